"""bitsandbytes' weights: NF4 and FP4 in the type they had before, LLM.int8() as F16.

Layout: ``QuantState.as_dict(packed=True)`` and ``Linear8bitLt`` of bitsandbytes 0.40 and later.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from terazi.formats.huggingface.quantized.layout import (
    Layout,
    Parts,
    Settings,
    decoded,
    matrix,
    numbers,
    stored,
    whole,
)
from terazi.model import Tensor

__all__ = ["EIGHT_BITS", "FOUR_BITS"]

_TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_STATES = (".weight.quant_state.bitsandbytes__nf4", ".weight.quant_state.bitsandbytes__fp4")


def _four_bits(name: str, parts: Parts, settings: Settings) -> Tensor:
    """Codes, two per byte with the first in the high half, along the flat weight; a scale per block of it."""
    state = _state(parts)
    kind, block = _TYPES.get(str(state.get("dtype"))), whole(state, "blocksize")
    if kind is None:
        raise ValueError(f"weights that were {str(state.get('dtype'))[:20]}")
    shape = state.get("shape")
    if not isinstance(shape, list) or len(shape) < 2 or not all(type(n) is int and n > 0 for n in shape):
        raise ValueError(f"a weight of shape {str(shape)[:40]}")
    columns, size = shape[-1], prod(shape)
    codes, table = parts[".weight"], matrix(parts[".weight.quant_map"], 1, 16, "F32").rows()[0]
    if codes.nbytes != -(-size // 2):
        raise ValueError(f"{codes.nbytes} bytes do not hold a weight of {shape}")
    scales = _scales(parts, state, -(-size // block))

    def decode(start: int, stop: int) -> np.ndarray:
        first, last = start * columns, stop * columns
        low, high = first // block, -(-last // block)
        pairs = stored(codes, first // 2, -(-last // 2))
        order = np.stack([pairs >> 4, pairs & 15], axis=-1).reshape(-1)[first % 2 :][: last - first]
        factors = np.repeat(scales(low, high), block)[first - low * block :][: last - first]
        return (table[order] * factors).reshape(stop - start, columns)

    return decoded(name, tuple(shape), kind, decode, parts, 4)


def _state(parts: Parts) -> dict[str, Any]:
    key = next((key for key in _STATES if key in parts), _STATES[0])
    try:
        state = json.loads(parts[key].encoded().tobytes().decode())
    except (ValueError, RecursionError):
        state = None
    if not isinstance(state, dict):
        raise ValueError("its quant_state is not a JSON object")
    return state


def _scales(parts: Parts, state: dict[str, Any], count: int) -> Callable[[int, int], np.ndarray]:
    """Return a reader of scales [low, high): as stored, or 8-bit codes with scales of their own."""
    scales = parts[".weight.absmax"]
    if scales.size != count:
        raise ValueError(f"{scales.size} scales for {count} blocks")
    if scales.type == "F32":
        return lambda low, high: numbers(scales, low, high)
    if scales.type != "U8":
        raise ValueError(f"scales of type {scales.type}")
    block = whole(state, "nested_blocksize")
    offset = state.get("nested_offset")
    if not isinstance(offset, int | float):
        raise ValueError("its quant_state does not say how scales are stored")
    table = matrix(parts[".weight.nested_quant_map"], 1, 256, "F32").rows()[0]
    factors = matrix(parts[".weight.nested_absmax"], 1, -(-count // block), "F32").rows()[0]

    def read(low: int, high: int) -> np.ndarray:
        codes = stored(scales, low, high)
        return table[codes] * factors[np.arange(low, high) // block] + np.float32(offset)

    return read


def _eight_bits(name: str, parts: Parts, settings: Settings) -> Tensor:
    """Integers times the largest weight of their row over 127."""
    codes = parts[".weight"]
    if codes.type != "I8" or len(codes.shape) != 2:
        raise ValueError(f"weight is {codes.type} {codes.shape}, not a matrix of 8-bit integers")
    order = parts.get(".weight_format")
    if order is not None and order.encoded().any():
        raise ValueError("integers in an order of some GPU's (weight_format is not row-major)")
    rows, columns = codes.shape
    scales = matrix(parts[".SCB"], 1, rows, "F32")

    def decode(start: int, stop: int) -> np.ndarray:
        largest = numbers(scales, start, stop)[:, None]
        return codes.encoded(start, stop).view(np.int8) * largest * np.float32(1 / 127)

    return decoded(name, (rows, columns), "F16", decode, parts, 8)


_NESTED = (".weight.nested_absmax", ".weight.nested_quant_map")
FOUR_BITS = Layout(
    ".weight.absmax", (".weight", ".weight.absmax", ".weight.quant_map", *_NESTED, *_STATES), _four_bits
)
EIGHT_BITS = Layout(".SCB", (".weight", ".SCB", ".weight_format"), _eight_bits)
