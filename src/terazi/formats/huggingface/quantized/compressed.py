"""Weights of compressed-tensors: packed or plain integers as F16, small floating-point numbers as BF16.

Layouts: the "pack-quantized", "int-quantized", "float-quantized", "nvfp4-pack-quantized",
"mxfp4-pack-quantized" and "mxfp8-quantized" formats of vllm-project/compressed-tensors.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from terazi.formats.huggingface.quantized.floats import four_bits, pair, scaled
from terazi.formats.huggingface.quantized.integers import groups, unpacked, words
from terazi.formats.huggingface.quantized.layout import Layout, Parts, Settings, decoded, matrix, whole
from terazi.model import Tensor

__all__ = ["PACKED", "PLAIN"]

_SUFFIXES = (".weight_scale", ".weight_zero_point", ".weight_g_idx", ".weight_global_scale")


def _packed(name: str, parts: Parts, settings: Settings) -> Tensor:
    """Words run along the inputs, numbers are stored plus half their range; or pairs of FP4 numbers."""
    scheme = _scheme(settings)
    if scheme.get("type") == "float":
        return _floats(name, parts, scheme)
    bits = whole(scheme, "num_bits", (2, 3, 4, 5, 6, 7, 8))
    codes = words(parts[".weight_packed"])
    rows, columns = (int(size) for size in parts[".weight_shape"].encoded().reshape(-1).view(np.int64))
    if len(codes) != rows or not 0 < columns <= codes.shape[1] * 32 // bits:
        raise ValueError(f"weight_shape says {(rows, columns)}, the words are {codes.shape}")

    def numbers(start: int, stop: int) -> np.ndarray:
        return unpacked(codes[start:stop], bits, columns) - (1 << bits - 1)

    return _integers(name, (rows, columns), numbers, parts, scheme, bits)


def _plain(name: str, parts: Parts, settings: Settings) -> Tensor:
    """Plain 8-bit integers or floats."""
    scheme, codes = _scheme(settings), parts[".weight"]
    if codes.type == "F8":
        return scaled(name, codes, parts[".weight_scale"], _block(scheme), parts)
    if codes.type != "I8" or len(codes.shape) != 2:
        raise ValueError(f"weight is {codes.type}, neither 8-bit integers nor 8-bit floats")

    def numbers(start: int, stop: int) -> np.ndarray:
        return codes.encoded(start, stop).view(np.int8).astype(np.int16)

    rows, columns = codes.shape
    return _integers(name, (rows, columns), numbers, parts, scheme, 8)


def _integers(
    name: str,
    shape: tuple[int, int],
    numbers: Callable[[int, int], np.ndarray],
    parts: Parts,
    scheme: Settings,
    bits: int,
) -> Tensor:
    rows, columns = shape
    scales = parts[".weight_scale"]
    count = scales.size // max(rows, 1)
    matrix(scales, rows, count)
    group = groups(parts.get(".weight_g_idx"), columns, scheme, count)
    zeros = _zeros(parts.get(".weight_zero_point"), bits, rows, count)

    def decode(start: int, stop: int) -> np.ndarray:
        scale = scales.rows().reshape(rows, count)[start:stop]
        return (numbers(start, stop) - zeros[start:stop][:, group]) * scale[:, group]

    return decoded(name, shape, "F16", decode, parts, bits)


def _zeros(tensor: Tensor | None, bits: int, rows: int, count: int) -> np.ndarray:
    """Return zero points, int16[rows, groups]: none, plain 8-bit integers, or packed down the rows."""
    if tensor is None:
        return np.zeros((rows, count), np.int16)
    if tensor.type == "I8":
        return tensor.encoded().view(np.int8).reshape(rows, count).astype(np.int16)
    return unpacked(words(tensor).T, bits, rows).T - (1 << bits - 1)


def _floats(name: str, parts: Parts, scheme: Settings) -> Tensor:
    """FP4: with a number that all scales of NVFP4 are divided by, or with powers of two (MXFP4)."""
    whole(scheme, "num_bits", (4,))
    shared = parts.get(".weight_global_scale")
    if shared is not None:
        matrix(shared, 1, 1, "F32")

    def factor() -> np.float32:
        return np.float32(1) if shared is None else 1 / shared.rows().reshape(-1)[0]

    size = whole(scheme, "group_size", (16, 32))
    return four_bits(name, parts[".weight_packed"], parts[".weight_scale"], size, factor, parts)


def _block(scheme: Settings) -> tuple[int, int]:
    """Return what shares a scale, as `scaled` wants it."""
    strategy = scheme.get("strategy")
    if strategy == "block":
        return pair(scheme.get("block_structure"))
    blocks = {"tensor": (0, 0), "channel": (1, 0)}
    if strategy in ("group", "tensor_group"):
        return 1, whole(scheme, "group_size")
    if strategy not in blocks:
        raise ValueError(f"scales by {str(strategy)[:20]} are not supported")
    return blocks[strategy]


def _scheme(settings: Settings) -> Settings:
    """Return how weights are quantized; all groups of layers must agree."""
    entries = settings.get("config_groups")
    listed = entries.values() if isinstance(entries, dict) else ()
    found = [entry.get("weights") for entry in listed if isinstance(entry, dict)]
    schemes = [entry for entry in found if isinstance(entry, dict)]
    if not schemes or any(entry != schemes[0] for entry in schemes):
        raise ValueError(f"{len(schemes)} different ways of quantizing weights")
    if schemes[0].get("type") not in ("int", "float"):
        raise ValueError(f"weights of type {str(schemes[0].get('type'))[:20]} are not supported")
    return schemes[0]


PACKED = Layout(".weight_packed", (".weight_packed", ".weight_shape", *_SUFFIXES), _packed)
PLAIN = Layout(".weight_scale", (".weight", *_SUFFIXES), _plain)
