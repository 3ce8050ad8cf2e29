"""Packed integers with a scale and a zero point per group of inputs: GPTQ, AWQ, AutoRound, read as F16.

Layouts: AutoGPTQ/GPTQModel (`qweight`, `qzeros`, `scales`, `g_idx`), AutoAWQ's "gemm" version, and both as
AutoRound writes them.
"""

from __future__ import annotations

import numpy as np

from terazi.formats.huggingface.quantized.layout import Layout, Parts, Settings, decoded, matrix, whole
from terazi.model import Tensor

__all__ = ["AUTO_ROUND", "AWQ", "GPTQ", "groups", "unpacked", "words"]

# Position of each of eight 4-bit numbers in AWQ's words -> its column.
_AWQ_ORDER = np.array([0, 2, 4, 6, 1, 3, 5, 7])
_SUFFIXES = (".qweight", ".qzeros", ".scales", ".g_idx")


def words(tensor: Tensor) -> np.ndarray:
    """Return packed words as stored: uint32[rows, columns], mapped. Raises ``ValueError``."""
    if tensor.type != "I32" or len(tensor.shape) != 2:
        raise ValueError(f"{tensor.name} is {tensor.type} {tensor.shape}, not a matrix of 32-bit words")
    return tensor.encoded().view(np.uint32)


def unpacked(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    """Unpack uint32[rows, n] into int16[rows, count]: a stream of bits per row, lowest first."""
    packed = np.ascontiguousarray(packed)
    if packed.shape[1] * 32 < count * bits:
        raise ValueError(f"{packed.shape[1]} words hold no {count} numbers of {bits} bits")
    if 32 % bits == 0:
        shifts = np.arange(0, 32, bits, dtype=np.uint32)
        numbers = (packed[:, :, None] >> shifts) & np.uint32((1 << bits) - 1)
        return numbers.reshape(len(packed), packed.shape[1] * 32 // bits)[:, :count].astype(np.int16)
    stream = np.unpackbits(packed.view(np.uint8), axis=1, bitorder="little")[:, : count * bits]
    return stream.reshape(len(packed), count, bits).astype(np.int16) @ (1 << np.arange(bits, dtype=np.int16))


def groups(tensor: Tensor | None, columns: int, settings: Settings, count: int) -> np.ndarray:
    """Return the group of each column, int[columns]: as stored, otherwise by ``group_size``."""
    if tensor is not None:
        found = tensor.encoded().view(np.int32).reshape(-1)
    else:
        size = settings.get("group_size")
        size = columns if size in (None, -1) else whole(settings, "group_size")
        found = np.arange(columns) // max(size, 1)
    if found.shape != (columns,) or found.min(initial=0) < 0 or found.max(initial=0) >= count:
        raise ValueError(f"{columns} columns do not fall into {count} groups")
    return found


def _gptq(name: str, parts: Parts, settings: Settings) -> Tensor:
    """Words run down the inputs; zero points run along the outputs and are stored minus one (format 1)."""
    bits = whole(settings, "bits", (2, 3, 4, 8))
    codes, zero_codes = words(parts[".qweight"]), words(parts[".qzeros"])
    columns, rows = codes.shape[0] * 32 // bits, codes.shape[1]
    count = zero_codes.shape[0]
    scales = matrix(parts[".scales"], count, rows)
    group = groups(parts.get(".g_idx"), columns, settings, count)
    shift = 0 if settings.get("checkpoint_format") == "gptq_v2" else 1
    unpacked(zero_codes[:1], bits, rows)

    def decode(start: int, stop: int) -> np.ndarray:
        numbers = unpacked(codes[:, start:stop].T, bits, columns)
        zeros = unpacked(zero_codes, bits, rows)[:, start:stop].T + shift
        scale = scales.rows()[:, start:stop].T
        return (numbers - zeros[:, group]) * scale[:, group]

    return decoded(name, (rows, columns), "F16", decode, parts, bits)


def _awq(name: str, parts: Parts, settings: Settings) -> Tensor:
    """Words run along the outputs, eight 4-bit numbers each in AWQ's order."""
    whole(settings, "bits", (4,))
    if str(settings.get("version", "gemm")).lower() != "gemm":
        raise ValueError(f"version {str(settings['version'])[:20]} is not gemm")
    codes, zero_codes = words(parts[".qweight"]), words(parts[".qzeros"])
    columns, rows, count = codes.shape[0], codes.shape[1] * 8, zero_codes.shape[0]
    if zero_codes.shape[1] != codes.shape[1]:
        raise ValueError("qzeros and qweight differ in width")
    scales = matrix(parts[".scales"], count, rows)
    group = groups(parts.get(".g_idx"), columns, settings, count)

    def take(packed: np.ndarray, start: int, stop: int) -> np.ndarray:
        first, last = start // 8, -(-stop // 8)
        part = unpacked(packed[:, first:last], 4, (last - first) * 8).reshape(len(packed), -1, 8)
        ordered = np.empty_like(part)
        ordered[:, :, _AWQ_ORDER] = part
        return ordered.reshape(len(packed), -1)[:, start - first * 8 : stop - first * 8].T

    def decode(start: int, stop: int) -> np.ndarray:
        zeros, scale = take(zero_codes, start, stop), scales.rows()[:, start:stop].T
        return (take(codes, start, stop) - zeros[:, group]) * scale[:, group]

    return decoded(name, (rows, columns), "F16", decode, parts, 4)


def _auto_round(name: str, parts: Parts, settings: Settings) -> Tensor:
    """AutoRound packs like GPTQ or AWQ; layers may differ in bits and groups, which their shapes tell."""
    packing, codes, zeros = settings.get("packing_format"), parts[".qweight"], parts[".qzeros"]
    if packing not in ("auto_round:auto_gptq", "auto_round:auto_awq"):
        raise ValueError(
            f"packing_format is {str(packing)[:40]}, not auto_round:auto_gptq or auto_round:auto_awq"
        )
    if packing == "auto_round:auto_awq":
        return _awq(name, parts, {"bits": 4, "group_size": codes.row_count // zeros.row_count})
    bits = zeros.columns * 32 // codes.columns
    columns = codes.row_count * 32 // max(bits, 1)
    return _gptq(name, parts, {"bits": bits, "group_size": columns // zeros.row_count})


GPTQ = Layout(".qweight", _SUFFIXES, _gptq)
AWQ = Layout(".qweight", _SUFFIXES, _awq)
AUTO_ROUND = Layout(".qweight", _SUFFIXES, _auto_round)
