"""Hugging Face checkpoints: a directory with config.json and safetensors files."""

from terazi.formats.huggingface.reader import detect, read

__all__ = ["detect", "read"]
