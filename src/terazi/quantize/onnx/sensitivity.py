"""How much each matrix of a graph suffers from a recipe, measured on real activations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from terazi.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from onnx import ModelProto

    from terazi.quantize.methods.blocks import Blocks
    from terazi.quantize.onnx.graph import Matrix, Rewrite

    Feeds = Mapping[str, np.ndarray]

__all__ = ["calibrated_error", "output_errors", "product_error", "spared"]

_PROBED_BYTES = 256 << 20
"""Codes that one probing graph holds; larger models take several."""


def product_error(weight: np.ndarray, blocks: Blocks, inputs: np.ndarray) -> float:
    """Return the relative squared error of ``inputs @ weight.T`` with ``blocks`` in place of the weights.

    ``weight`` float32[outputs, inputs], ``inputs`` float32[tokens, inputs]: real activations of this node.
    """
    return relative_error(inputs @ blocks.decode().T, inputs @ weight.T)


def calibrated_error(weight: np.ndarray, inputs: np.ndarray, activation_bits: int) -> float:
    """Return the relative squared error of ``inputs @ weight.T`` with both as integers, as QDQ graphs do.

    Inputs share one range, observed on themselves; weights have one scale per output, in 8 bits.
    """
    low, high = min(float(inputs.min()), 0.0), max(float(inputs.max()), 0.0)
    step = max(high - low, 1e-12) / ((1 << activation_bits) - 1)
    scales = np.maximum(np.abs(weight).max(1, keepdims=True), 1e-12) / 127
    rounded = np.round(inputs / step) * step @ (np.round(weight / scales) * scales).T
    return relative_error(rounded, inputs @ weight.T)


def output_errors(
    model: ModelProto,
    source: Path,
    rewrite: Rewrite,
    found: Sequence[Matrix],
    batches: Sequence[Feeds],
    threads: int | None,
) -> dict[str, float]:
    """Return by node the error of the graph's outputs when that matrix alone multiplies in int8.

    It is the squared error over the square of the output, summed over outputs and batches.
    """
    from terazi.quantize.onnx.observe import PROBE, probing
    from terazi.runtime.onnxruntime import open_graph

    errors = dict.fromkeys((matrix.node for matrix in found), 0.0)
    for probed in _parts(found, _PROBED_BYTES):
        with open_graph(probing(model, rewrite, probed), source, threads=threads) as engine:
            names = [name for name in engine.inputs if name != PROBE]
            for batch in batches:
                if missing := [name for name in names if name not in batch]:
                    raise UsageError(f"the model takes {', '.join(names)}: a batch lacks {missing[0]}")
                fed = {name: batch[name] for name in names}
                exact = engine.run({**fed, PROBE: np.array(-1)})
                for number, matrix in enumerate(probed):
                    seen = engine.run({**fed, PROBE: np.array(number)})
                    errors[matrix.node] += sum(map(relative_error, seen, exact))
    return errors


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


def _parts(found: Sequence[Matrix], most: int) -> Iterator[list[Matrix]]:
    """Split ``found`` so that no part but single matrices holds over ``most`` weights."""
    part: list[Matrix] = []
    for matrix in found:
        if part and sum(one.size for one in part) + matrix.size > most:
            yield part
            part = []
        part.append(matrix)
    if part:
        yield part
