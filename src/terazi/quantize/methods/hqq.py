"""HQQ: zero points by half-quadratic optimization, from the weights alone.

Badri and Shaji, "Half-Quadratic Quantization of Large Machine Learning Models", 2023,
https://mobiusml.github.io/hqq_blog.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from terazi import kernels
from terazi.quantize.methods.blocks import Blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["hqq"]


def hqq(weight: NDArray[np.float32], bits: int, group_size: int, *, threads: int = 0) -> Blocks:
    """Quantize ``weight`` (float32[rows, columns]) so that few large errors and many small ones are left.

    The sum of |error| ** 0.75 is minimized over zero points, which need not be whole numbers, and a few
    scales. Columns must be a multiple of ``group_size``, and that of 16.
    """
    codes, scales, zeros = kernels.round_groups(
        np.ascontiguousarray(weight, np.float32), group_size, bits, half_quadratic=True, threads=threads
    )
    return Blocks(codes.reshape(len(codes), -1, group_size), scales, zeros, bits)
