"""GPTQ: rounding column by column, each column's error spread over those still to come.

Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers",
https://arxiv.org/abs/2210.17323, algorithm 1, with the scale of a group chosen by weighted search when its
first column is reached.
"""

from __future__ import annotations

import numpy as np

from terazi.quantize.methods.blocks import Blocks, choose_scales

__all__ = ["gptq"]


def gptq(
    weight: np.ndarray,
    hessian: np.ndarray,
    bits: int,
    group_size: int,
    *,
    symmetric: bool = False,
    damp: float = 0.01,
) -> Blocks:
    """Quantize ``weight`` (float32[rows, columns]) so that ``weight @ x`` changes least on calibration data.

    ``hessian`` is the sum of ``x xT`` over those inputs, float[columns, columns]; ``damp`` times the mean of
    its diagonal is added to it. Columns must be a multiple of ``group_size``.
    """
    rows, columns = weight.shape
    weight = weight.astype(np.float64)
    factor = _inverse_factor(hessian, damp)
    groups = columns // group_size
    codes = np.empty((rows, groups, group_size), np.uint8)
    scales = np.empty((rows, groups), np.float32)
    zeros = np.empty((rows, groups), np.float32)
    top = (1 << bits) - 1
    for index in range(groups):
        start, stop = index * group_size, (index + 1) * group_size
        group = weight[:, start:stop].copy()
        inner = factor[start:stop, start:stop]
        importance = 1 / np.diag(inner) ** 2
        scale, zero = choose_scales(group, importance, bits, symmetric=symmetric)
        scales[:, index], zeros[:, index] = scale, zero
        errors = np.empty_like(group)
        for column in range(group_size):
            code = np.clip(np.round(group[:, column] / scale) + zero, 0, top)
            codes[:, index, column] = code
            errors[:, column] = (group[:, column] - (code - zero) * scale) / inner[column, column]
            group[:, column + 1 :] -= np.outer(errors[:, column], inner[column, column + 1 :])
        weight[:, stop:] -= errors @ factor[start:stop, stop:]
    return Blocks(codes, scales, None if symmetric else zeros.astype(np.uint8), bits)


def _inverse_factor(hessian: np.ndarray, damp: float) -> np.ndarray:
    """Return the upper Cholesky factor of the damped inverse; columns never seen become independent."""
    damped = hessian.astype(np.float64)
    diagonal = np.diag(damped)
    unseen = diagonal <= 0
    damped[unseen, :] = 0
    damped[:, unseen] = 0
    damped[np.diag_indices_from(damped)] += damp * max(diagonal.mean(), 1e-12) + unseen
    return np.linalg.cholesky(np.linalg.inv(damped)).T
