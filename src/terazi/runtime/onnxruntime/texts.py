"""Texts to the inputs that an encoder graph takes, by the tokenizer beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from terazi.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["graph_inputs", "open_tokenizer", "text_feeds"]

_COLUMNS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
_ONNX = {1: np.float32, 6: np.int32, 7: np.int64}


def graph_inputs(model: Any) -> dict[str, type]:
    """Return what a parsed graph takes, by name, with the NumPy type of what can be texts."""
    weights = {tensor.name for tensor in model.graph.initializer}
    values = (value for value in model.graph.input if value.name not in weights)
    return {value.name: _ONNX.get(value.type.tensor_type.elem_type, np.void) for value in values}


def open_tokenizer(directory: Path, context: int) -> Any:
    """Open tokenizer.json so that it pads batches and cuts texts at ``context`` tokens."""
    from tokenizers import Tokenizer

    file = directory / "tokenizer.json"
    if not file.is_file():
        raise UnsupportedError(f"{file}: missing, so texts cannot be tokenized for this model")
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.enable_truncation(context)
    padding = tokenizer.padding or {}
    tokenizer.enable_padding(**{key: value for key, value in padding.items() if key.startswith("pad_")})
    return tokenizer


def text_feeds(tokenizer: Any, inputs: Mapping[str, type], texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Tokenize and pad ``texts`` into ``inputs``, the names and types that a graph takes.

    Raises `UnsupportedError` when it takes anything else.
    """
    if unknown := inputs.keys() - _COLUMNS.keys():
        raise UnsupportedError(f"the model takes {', '.join(sorted(unknown))}: texts alone do not run it")
    encodings = tokenizer.encode_batch(list(texts))
    return {
        name: np.array([getattr(encoding, _COLUMNS[name]) for encoding in encodings], kind)
        for name, kind in inputs.items()
    }
