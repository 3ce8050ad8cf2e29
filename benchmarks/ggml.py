"""ggml's reference quantizer through ctypes: the yardstick of the parity tests and the speed tables.

Needs ``libggml-python`` (a prebuilt x86-64 ggml, test extra); LIBGGML_BASE names another build's
``libggml-base.so``.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path

import numpy as np


class _InitParams(ctypes.Structure):
    _fields_ = (("size", ctypes.c_size_t), ("buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


class _TypeTraits(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("block_size", ctypes.c_int64),
        ("block_size_interleave", ctypes.c_int64),
        ("block_bytes", ctypes.c_size_t),
        ("quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
        ("from_float", ctypes.c_void_p),
    )


@cache
def _library() -> ctypes.CDLL:
    path = os.environ.get("LIBGGML_BASE")
    if path is None:
        import libggml

        path = str(Path(libggml.__file__).parent / "lib64" / "libggml-base.so")
    library = ctypes.CDLL(path)
    library.ggml_init.argtypes = [_InitParams]
    library.ggml_init.restype = ctypes.c_void_p
    library.ggml_quantize_chunk.argtypes = [
        ctypes.c_int,
        *[ctypes.c_void_p] * 2,
        *[ctypes.c_int64] * 3,
        ctypes.c_void_p,
    ]
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_init.argtypes = [ctypes.c_int]
    library.ggml_row_size.argtypes = [ctypes.c_int, ctypes.c_int64]
    library.ggml_row_size.restype = ctypes.c_size_t
    library.ggml_get_type_traits.argtypes = [ctypes.c_int]
    library.ggml_get_type_traits.restype = ctypes.POINTER(_TypeTraits)
    library.ggml_validate_row_data.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
    library.ggml_validate_row_data.restype = ctypes.c_bool
    library.ggml_init(_InitParams(1 << 20, None, True))  # fills ggml's float16 tables
    return library


def prepare(type_id: int) -> None:
    """Build the tables that a type's quantizer needs, outside of any timing."""
    _library().ggml_quantize_init(type_id)


def quantize(
    type_id: int, x: np.ndarray, importance: np.ndarray | None, out: np.ndarray | None = None
) -> np.ndarray:
    """Encode float32[rows, columns] on this thread; returns uint8[rows, row_bytes]."""
    rows, columns = x.shape
    if out is None:
        out = np.empty((rows, _library().ggml_row_size(type_id, columns)), np.uint8)
    weights = None if importance is None else importance.ctypes.data
    _library().ggml_quantize_chunk(type_id, x.ctypes.data, out.ctypes.data, 0, rows, columns, weights)
    return out


def dequantize(type_id: int, q: np.ndarray, columns: int, out: np.ndarray | None = None) -> np.ndarray:
    """Decode uint8[rows, row_bytes] on this thread; returns float32[rows, columns]."""
    if out is None:
        out = np.empty((q.shape[0], columns), np.float32)
    _library().ggml_get_type_traits(type_id).contents.to_float(q.ctypes.data, out.ctypes.data, out.size)
    return out


def is_valid(type_id: int, q: np.ndarray) -> bool:
    """Whether ggml accepts stored rows; it says on standard error what it does not like."""
    return _library().ggml_validate_row_data(type_id, q.ctypes.data, q.nbytes)
