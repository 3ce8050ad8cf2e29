"""The compiled kernels (native/bind.cpp). Use them through `terazi.kernels`."""

import numpy as np
from numpy.typing import NDArray

def quantize(
    type_id: int,
    x: NDArray[np.float32],
    importance: NDArray[np.float32] | None,
    threads: int,
    out: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Encode x[rows, columns]; raises ValueError where it is not finite. ``out`` is filled and returned."""

def dequantize(
    type_id: int,
    q: NDArray[np.uint8],
    columns: int,
    threads: int,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Decode q[rows, row_bytes]. ``out`` is filled and returned."""

def validate(type_id: int, q: NDArray[np.uint8], columns: int) -> int:
    """Index, along rows, of the first block of q[rows, row_bytes] with a scale that is not finite, or -1."""

def round_groups(
    x: NDArray[np.float32],
    group_size: int,
    bits: int,
    symmetric: bool,
    half_quadratic: bool,
    importance: NDArray[np.float32] | None,
    feedback: NDArray[np.float32] | None,
    threads: int,
    codes: NDArray[np.uint8],
    scales: NDArray[np.float32],
    zeros: NDArray[np.float32],
) -> None:
    """Fill codes[rows, columns], scales and zeros[rows, groups] with what x[rows, columns] becomes."""

def instruction_sets() -> list[str]:
    """Instruction sets of this CPU that have kernels, best last: baseline, avx2, avx512."""

def instruction_set() -> str:
    """The one in use."""

def use_instruction_set(name: str) -> None:
    """Make every later call use ``name``; raises ValueError when this CPU does not have it."""
