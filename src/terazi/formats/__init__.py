"""Bytes on disk to a Model and back: detect, read, write."""

from terazi.formats.detect import FORMATS, open_model

__all__ = ["FORMATS", "open_model"]
