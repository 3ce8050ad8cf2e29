"""Stored models: names, content by digest, lineage, and the sources that models come from."""

from terazi.registry.manifest import Entry, Manifest, StoredFile
from terazi.registry.pull import open_model, pull, resolve_model
from terazi.registry.store import Store

__all__ = ["Entry", "Manifest", "Store", "StoredFile", "open_model", "pull", "resolve_model"]
