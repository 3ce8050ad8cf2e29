"""The local content-addressed store, its names, and the sources models are pulled from."""
