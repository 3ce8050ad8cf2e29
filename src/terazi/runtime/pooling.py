"""One unit vector per text from the vectors of its tokens, as sentence-transformers' files say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from terazi.errors import UnsupportedError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["pool"]

# sentence-transformers' words, in old and new spelling.
_WAYS = {
    "mean": "mean",
    "pooling_mode_mean_tokens": "mean",
    "cls": "first",
    "pooling_mode_cls_token": "first",
}


def pool(states: np.ndarray, mask: np.ndarray, directory: Path) -> np.ndarray:
    """Pool float32[n, length, d] into unit vectors float32[n, d]; ``mask`` [n, length] is 0 at padding.

    ``1_Pooling/config.json`` of the directory chooses the mean (also without that file) or the first token.
    Raises `UnsupportedError` for what else it may ask for, and for layers after the pooling.
    """
    if (directory / "2_Dense" / "config.json").is_file():
        raise UnsupportedError(
            f"{directory}: has a dense layer after the pooling, which only GGUF files keep"
        )
    if _way(directory / "1_Pooling" / "config.json") == "first":
        pooled = states[:, 0]
    else:
        weights = mask[..., None].astype(np.float32)
        pooled = (states * weights).sum(1) / np.maximum(weights.sum(1), 1)
    return pooled / np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-12)


def _way(file: Path) -> str:
    said = _object(file)
    ways = [name for name, value in said.items() if name.startswith("pooling_mode_") and value is True]
    ways = ways or [str(said.get("pooling_mode", "mean"))]
    if len(ways) != 1 or ways[0] not in _WAYS:
        asked = " and ".join(ways)[:80]
        raise UnsupportedError(f"{file}: asks for {asked}; only the mean and the first token are known")
    return _WAYS[ways[0]]


def _object(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        found = {}
    return found if isinstance(found, dict) else {}
