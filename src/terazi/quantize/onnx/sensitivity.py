"""How much each matrix of a graph suffers from a recipe, measured on real activations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from terazi.quantize.methods.blocks import round_to_nearest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from terazi.quantize.onnx.graph import Matrix
    from terazi.quantize.onnx.recipes import OnnxRecipe

__all__ = ["calibrated_error", "fitting_group", "product_error", "relative_error", "spared"]


def product_error(weight: np.ndarray, inputs: np.ndarray, recipe: OnnxRecipe) -> float:
    """Return the relative squared error of ``inputs @ weight.T`` with weights rounded as the recipe does.

    ``weight`` float32[outputs, inputs], ``inputs`` float32[tokens, inputs]: real activations of this node.
    """
    group = fitting_group(recipe.group_size, weight.shape[1])
    decoded = round_to_nearest(weight, recipe.bits, group, symmetric=recipe.symmetric).decode()
    return relative_error(inputs @ decoded.T, inputs @ weight.T)


def calibrated_error(weight: np.ndarray, inputs: np.ndarray, activation_bits: int) -> float:
    """Return the relative squared error of ``inputs @ weight.T`` with both as integers, as QDQ graphs do.

    Inputs share one range, observed on themselves; weights have one scale per output, in 8 bits.
    """
    low, high = min(float(inputs.min()), 0.0), max(float(inputs.max()), 0.0)
    step = max(high - low, 1e-12) / ((1 << activation_bits) - 1)
    scales = np.maximum(np.abs(weight).max(1, keepdims=True), 1e-12) / 127
    rounded = np.round(inputs / step) * step @ (np.round(weight / scales) * scales).T
    return relative_error(rounded, inputs @ weight.T)


def relative_error(seen: np.ndarray, exact: np.ndarray) -> float:
    """Return the squared error of ``seen`` over the square of ``exact``, summed over everything."""
    return float(((seen - exact) ** 2).sum() / max((exact**2).sum(), 1e-30))


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
