"""GPTQ: rounding column by column, each column's error taken over by those still to come.

Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers",
https://arxiv.org/abs/2210.17323, in the form of Chee et al., "QuIP", https://arxiv.org/abs/2307.13304,
section 3: what a column takes over follows from one factorization of the second moments, without an inverse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from terazi.quantize.methods.blocks import round_to_nearest

if TYPE_CHECKING:
    from terazi.quantize.methods.blocks import Blocks

__all__ = ["Factors", "factorize", "gptq"]

_BLOCK = 64


@dataclass(frozen=True, slots=True)
class Factors:
    """What GPTQ has to know of a matrix's inputs: see `factorize`.

    ``feedback`` float32[columns, columns]: entry [j, i] is the share of column i's error that column j > i
    takes over. ``importance`` float32[columns]: what an error in a column costs after that.
    """

    feedback: np.ndarray
    importance: np.ndarray


def factorize(gram: np.ndarray, damp: float = 0.1) -> Factors:
    """Prepare GPTQ for all matrices whose inputs x sum up to ``gram``, the sum of ``x xT``.

    ``damp`` times the mean of its diagonal is added to it. It becomes U D Ut, U upper triangular with a unit
    diagonal: U transposed is the feedback and D the importance. Columns never seen become independent.
    """
    try:
        lower = _factor(_damped(gram.astype(np.float32), damp))
    except np.linalg.LinAlgError:  # too close to singular for 24 bits
        lower = _factor(_damped(gram.astype(np.float64), damp))
    root = lower.diagonal().copy()
    lower /= root[:, None]
    return Factors(lower.astype(np.float32, copy=False), (root**2).astype(np.float32))


def gptq(
    weight: np.ndarray,
    factors: Factors,
    bits: int,
    group_size: int,
    *,
    symmetric: bool = False,
    threads: int = 0,
) -> Blocks:
    """Quantize ``weight`` (float32[rows, columns]) so that ``weight @ x`` changes least on calibration data.

    Columns must be a multiple of ``group_size``. The scale of a group is searched when its first column is
    reached.
    """
    return round_to_nearest(
        weight,
        bits,
        group_size,
        symmetric=symmetric,
        importance=factors.importance,
        feedback=factors.feedback,
        threads=threads,
    )


def _damped(gram: np.ndarray, damp: float) -> np.ndarray:
    diagonal = gram.diagonal()
    unseen = diagonal <= 0
    mean = max(float(diagonal.mean()), 1e-12)
    if unseen.any():
        gram[unseen, :] = 0
        gram[:, unseen] = 0
    gram[np.diag_indices_from(gram)] += damp * mean + unseen
    return gram


def _factor(matrix: np.ndarray) -> np.ndarray:
    """Return L, lower triangular, with ``matrix`` = Lt L; ``matrix`` is used up.

    Block by block from the end, so that nearly all of it is matrix products: three times as fast as LAPACK's
    factorization in NumPy's OpenBLAS.
    """
    lower = np.zeros_like(matrix)
    for stop in range(len(matrix), 0, -_BLOCK):
        start = max(stop - _BLOCK, 0)
        rows = matrix[start:stop, :stop]
        rows -= lower[stop:, start:stop].T @ lower[stop:, :stop]
        corner = np.linalg.cholesky(rows[::-1, start:][:, ::-1])[::-1, ::-1]
        lower[start:stop, :start] = np.linalg.inv(corner) @ rows[:, :start]
        lower[start:stop, start:stop] = corner.T
    return lower
