"""One module per model family: how to read its configuration and name its tensors."""
