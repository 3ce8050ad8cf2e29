"""Which encoding each tensor gets (presets, plans), and the streaming run that applies it."""
