"""What quantizing starts from: any checkpoint, seen as GGUF."""

from __future__ import annotations

from pathlib import Path

from terazi.convert.gguf import to_gguf
from terazi.formats import open_model
from terazi.model import Model

__all__ = ["open_source"]


def open_source(model: Model | Path | str) -> Model:
    """Open a GGUF file (with all its parts) or a Hugging Face directory as a GGUF model.

    Nothing is written in between: weights are renamed and permuted as they are read. Raises what
    `open_model` and `to_gguf` raise.
    """
    return to_gguf(model if isinstance(model, Model) else open_model(model))
