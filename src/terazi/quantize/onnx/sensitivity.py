"""How much each matrix of a graph suffers from a recipe, measured on real activations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from terazi.quantize.methods.blocks import round_to_nearest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from terazi.quantize.onnx.graph import Matrix
    from terazi.quantize.onnx.recipes import OnnxRecipe

__all__ = ["product_error", "spared"]


def product_error(weight: np.ndarray, inputs: np.ndarray, recipe: OnnxRecipe) -> float:
    """Return the relative squared error of ``inputs @ weight.T`` under the recipe.

    ``weight`` float32[outputs, inputs], ``inputs`` float32[tokens, inputs]: real activations of this node.
    """
    if recipe.kind == "weights":
        decoded = round_to_nearest(
            weight, recipe.bits, fitting_group(recipe.group_size, weight.shape[1]), symmetric=recipe.symmetric
        ).decode()
        seen = inputs
    else:
        scales = np.maximum(np.abs(weight).max(1, keepdims=True), 1e-12) / 127
        decoded = np.round(weight / scales) * scales
        seen = _dynamic_int8(inputs)
    exact = inputs @ weight.T
    return float(((seen @ decoded.T - exact) ** 2).sum() / max((exact**2).sum(), 1e-30))


def spared(matrices: Sequence[Matrix], errors: Mapping[str, float], share: float) -> set[str]:
    """Return the nodes to spare: the worst first, while they hold at most ``share`` of all weights."""
    allowed = share * sum(matrix.size for matrix in matrices)
    chosen: set[str] = set()
    for matrix in sorted(matrices, key=lambda matrix: -errors[matrix.node]):
        if matrix.size <= allowed:
            allowed -= matrix.size
            chosen.add(matrix.node)
    return chosen


def fitting_group(wanted: int, columns: int) -> int:
    """Return the largest power of two up to ``wanted`` (from 16 on) that divides ``columns``, else 0."""
    size = wanted
    while size >= 16 and columns % size:
        size //= 2
    return size if size >= 16 else 0


def _dynamic_int8(inputs: np.ndarray) -> np.ndarray:
    """Round as DynamicQuantizeLinear does: one scale and zero point for the whole tensor, zero exact."""
    low, high = min(float(inputs.min()), 0.0), max(float(inputs.max()), 0.0)
    scale = max((high - low) / 255, 1e-12)
    zero = np.round(-low / scale)
    return (np.clip(np.round(inputs / scale) + zero, 0, 255) - zero) * scale
