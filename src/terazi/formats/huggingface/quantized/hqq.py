"""HQQ's weights: integers of 1 to 8 bits with a scale and a zero point per group, in the type of that layer.

Layout: ``HQQLinear.state_dict`` of mobiusml/hqq as it goes into safetensors (settings are tensors there).
"""

from __future__ import annotations

import numpy as np

from terazi.formats.huggingface.quantized.layout import (
    Layout,
    Parts,
    Settings,
    decoded,
    matrix,
    numbers,
    stored,
)
from terazi.model import Tensor

__all__ = ["HQQ"]

# packing -> bits, and how many numbers share a word of how many bytes, the first in the highest bits.
_PACKINGS = {
    "8bit_u8": (8, 1, 1),
    "4bit_u8": (4, 2, 1),
    "3bit_32": (3, 10, 4),
    "2bit_u8": (2, 4, 1),
    "1bit_u8": (1, 8, 1),
}
_TYPES = {"torch.float32": "F32", "torch.float16": "F16", "torch.bfloat16": "BF16"}
_SETTINGS = ("nbits", "group_size", "axis", "packing", "unpack_view_dtype", "view_as_float", "quant_scale")
_SETTINGS += ("quant_zero", "compute_dtype", "offload_meta", "encoded_state_dict", "stores_quant_config")
_SETTINGS += ("channel_wise", "optimize", "round_zero")


def _number(parts: Parts, key: str) -> int:
    tensor = parts[key]
    types = {"U8": np.uint8, "I32": np.int32, "I64": np.int64}
    if tensor.size != 1 or tensor.type not in types:
        raise ValueError(f"{key[1:]} is {tensor.type} {tensor.shape}, not a whole number")
    return int(np.ascontiguousarray(tensor.encoded()).view(types[tensor.type])[0, 0])


def _text(parts: Parts, key: str) -> str:
    return parts[key].encoded().tobytes().decode("ascii", "replace")


def _make(name: str, parts: Parts, settings: Settings) -> Tensor:
    """The flat weight is a matrix [height][width] with one group per row (axis 1) or column (axis 0).

    Its rows are cut into as many parts as share a word, and lie over one another.
    """
    packing, kind = _text(parts, ".packing"), _TYPES.get(_text(parts, ".compute_dtype"))
    if packing not in _PACKINGS or kind is None:
        raise ValueError(f"packing {packing[:20]!r} and compute_dtype are not known")
    if any(key in parts and _number(parts, key) for key in (".quant_scale", ".quant_zero")):
        raise ValueError("scales and zero points that are quantized themselves")
    bits, shared, word = _PACKINGS[packing]
    shape = tuple(np.ascontiguousarray(parts[".shape"].encoded()).reshape(-1).view(np.int64).tolist())
    if len(shape) != 2 or min(shape) <= 0:
        raise ValueError(f"a weight of shape {shape}")
    rows, columns = shape
    axis, group = _number(parts, ".axis"), _number(parts, ".group_size")
    if axis not in (0, 1) or group <= 0 or rows * columns % group:
        raise ValueError(f"groups of {group} along axis {axis} do not divide {shape}")
    count = rows * columns // group
    height, width = (count, group) if axis == 1 else (group, count)
    step = -(-height // shared)
    codes = parts[".W_q"]
    if codes.nbytes != step * width * word:
        raise ValueError(f"W_q has {codes.nbytes} bytes, not those of {(height, width)} in {bits} bits")
    scales, zeros = (matrix(parts[key], count, 1) for key in (".scale", ".zero"))

    def unpacked(low: int, high: int) -> np.ndarray:
        pieces = [np.empty((0, width), np.int32)]
        for which in range(low // step, -(-high // step)):
            first, last = max(low - which * step, 0), min(high - which * step, step)
            raw = stored(codes, first * width * word, last * width * word)
            words = raw.view(np.uint8 if word == 1 else np.int32).reshape(-1, width)
            pieces.append(words >> bits * (shared - 1 - which) & (1 << bits) - 1)
        return np.concatenate(pieces).astype(np.float32)

    def per_group(tensor: Tensor, low: int, high: int) -> np.ndarray:
        return numbers(tensor, low, high)[:, None] if axis == 1 else numbers(tensor, 0, count)[None]

    def decode(start: int, stop: int) -> np.ndarray:
        first, last = start * columns, stop * columns
        low, high = first // width, -(-last // width)
        values = (unpacked(low, high) - per_group(zeros, low, high)) * per_group(scales, low, high)
        return values.reshape(-1)[first - low * width :][: last - first].reshape(stop - start, columns)

    return decoded(name, (rows, columns), kind, decode, parts, bits)


HQQ = Layout(".W_q", (".W_q", ".scale", ".zero", ".shape", *(f".{name}" for name in _SETTINGS)), _make)
