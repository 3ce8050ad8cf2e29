"""A model in another format: one module per target."""
