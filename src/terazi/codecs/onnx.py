"""ONNX Runtime's block-wise weights (MatMulNBits, GatherBlockQuantized): codes to packed bytes and back.

Layout: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md. Codes are
unsigned; value = (code - zero point) * scale. Within a byte the first code is in the lowest bits.
"""

from __future__ import annotations

import numpy as np

__all__ = ["pack", "unpack"]


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Pack ``codes`` (uint8[..., n] below 2**bits; bits 2, 4 or 8) into uint8[..., ceil(n * bits / 8)]."""
    per_byte = 8 // bits
    if per_byte == 1:
        return np.ascontiguousarray(codes, dtype=np.uint8)
    missing = -codes.shape[-1] % per_byte
    padded = np.pad(codes.astype(np.uint8), [(0, 0)] * (codes.ndim - 1) + [(0, missing)])
    packed = np.zeros((*padded.shape[:-1], padded.shape[-1] // per_byte), np.uint8)
    for place in range(per_byte):
        packed |= padded[..., place::per_byte] << (bits * place)
    return packed


def unpack(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    """Undo `pack`: the first ``count`` codes of each row, uint8[..., count]."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = (packed[..., None] >> shifts) & ((1 << bits) - 1)
    return codes.reshape(*packed.shape[:-1], -1)[..., :count]
