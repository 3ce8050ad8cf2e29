"""Bytes on disk to a Model and back: detect, read, write."""
