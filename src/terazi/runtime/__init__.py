"""Run an artifact in its engine; the only package that imports engines."""
