"""Checkpoints that GPTQ, AWQ or compressed-tensors quantized: their packed integers read as F16 weights.

Layouts: AutoGPTQ/GPTQModel (`qweight`, `qzeros`, `scales`, `g_idx`), AutoAWQ's "gemm" version, and the
"pack-quantized" and "int-quantized" formats of vllm-project/compressed-tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from terazi.errors import FormatError, UnsupportedError
from terazi.model import Tensor

__all__ = ["check", "unpack"]

# Position of each of eight 4-bit numbers in AWQ's words -> its column.
_AWQ_ORDER = np.array([0, 2, 4, 6, 1, 3, 5, 7])
_HINT = "get the original, unquantized checkpoint of this model"

Settings = Mapping[str, Any]
Parts = Mapping[str, Tensor]
Reader = Callable[[int, int], np.ndarray]


def check(settings: Any, path: Path) -> str:
    """Return the method of a ``quantization_config``. Raises `UnsupportedError` unless it can be read."""
    method = settings.get("quant_method") if isinstance(settings, dict) else None
    if method not in ("gptq", "awq", "compressed-tensors"):
        name = str(method)[:40] if method else "a method that config.json does not name"
        raise UnsupportedError(f"{path}: its weights are already quantized by {name}", hint=_HINT)
    return str(method)


def unpack(tensors: Mapping[str, Tensor], settings: Any, path: Path) -> dict[str, Tensor]:
    """Return ``tensors`` with every packed layer as one F16 ``weight``; rows are decoded when they are read.

    ``settings`` is config.json's ``quantization_config``. Raises `UnsupportedError` for other methods and
    `FormatError` for parts that do not fit together.
    """
    method = check(settings, path)
    layouts = {"gptq": _gptq, "awq": _awq, "compressed-tensors": _compressed}
    marks = ("weight_packed", "weight_scale") if method == "compressed-tensors" else ("qweight",)
    bases = {name.rpartition(".")[0] for name in tensors if name.rpartition(".")[2] in marks}
    parts: dict[str, dict[str, Tensor]] = {base: {} for base in bases}
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        base, _, part = name.rpartition(".")
        if base in parts and part != "bias":
            parts[base][part] = tensor
        else:
            result[name] = tensor
    for base, found in parts.items():
        try:
            shape, read = layouts[method](found, settings)
        except KeyError as error:
            raise FormatError(path, f"{base} has no {error.args[0]}", hint=_HINT) from None
        except ValueError as error:
            raise FormatError(path, f"{base}: {error}", hint=_HINT) from None
        result[f"{base}.weight"] = _weight(f"{base}.weight", shape, read)
    return result


def _weight(name: str, shape: tuple[int, int], decode: Reader) -> Tensor:
    def read(start: int, stop: int) -> np.ndarray:
        return np.ascontiguousarray(decode(start, stop).astype(np.float16)).view(np.uint8)

    return Tensor(name=name, shape=shape, type="F16", read=read)


def _count(settings: Settings, name: str, allowed: tuple[int, ...] | None = None) -> int:
    value = settings.get(name)
    if type(value) is not int or (allowed is not None and value not in allowed):
        raise ValueError(f"{name} is {str(value)[:40]}" + (f", not one of {allowed}" if allowed else ""))
    return value


def _words(tensor: Tensor) -> np.ndarray:
    """The packed words as stored: uint32[rows, columns], mapped."""
    if tensor.type != "I32" or len(tensor.shape) != 2:
        raise ValueError(f"{tensor.name} is {tensor.type} {tensor.shape}, not a matrix of 32-bit words")
    return tensor.encoded().view(np.uint32)


def _numbers(words: np.ndarray, bits: int, count: int) -> np.ndarray:
    """Unpack uint32[rows, n] into int16[rows, count]: a stream of bits per row, lowest first."""
    words = np.ascontiguousarray(words)
    if words.shape[1] * 32 < count * bits:
        raise ValueError(f"{words.shape[1]} words hold no {count} numbers of {bits} bits")
    if 32 % bits == 0:
        shifts = np.arange(0, 32, bits, dtype=np.uint32)
        numbers = (words[:, :, None] >> shifts) & np.uint32((1 << bits) - 1)
        return numbers.reshape(len(words), -1)[:, :count].astype(np.int16)
    stream = np.unpackbits(words.view(np.uint8), axis=1, bitorder="little")[:, : count * bits]
    return stream.reshape(len(words), count, bits).astype(np.int16) @ (1 << np.arange(bits, dtype=np.int16))


def _groups(parts: Parts, name: str, columns: int, settings: Settings, count: int) -> np.ndarray:
    """Return the group of each column: int[columns]."""
    if name in parts:
        found = parts[name].encoded().view(np.int32).reshape(-1)
    else:
        size = settings.get("group_size")
        size = columns if size in (None, -1) else _count(settings, "group_size")
        found = np.arange(columns) // max(size, 1)
    if found.shape != (columns,) or found.min(initial=0) < 0 or found.max(initial=0) >= count:
        raise ValueError(f"{columns} columns do not fall into {count} groups")
    return found


def _matrix(tensor: Tensor, shape: tuple[int, int]) -> Tensor:
    if tensor.shape != shape:
        raise ValueError(f"{tensor.name} is {tensor.shape}, not {shape}")
    return tensor


def _gptq(parts: Parts, settings: Settings) -> tuple[tuple[int, int], Reader]:
    """Words run down the inputs; zero points run along the outputs and are stored minus one (format 1)."""
    bits = _count(settings, "bits", (2, 3, 4, 8))
    words, zero_words = _words(parts["qweight"]), _words(parts["qzeros"])
    columns, rows = words.shape[0] * 32 // bits, words.shape[1]
    count = zero_words.shape[0]
    scales = _matrix(parts["scales"], (count, rows))
    group = _groups(parts, "g_idx", columns, settings, count)
    shift = 0 if settings.get("checkpoint_format") == "gptq_v2" else 1
    _numbers(zero_words[:1], bits, rows)

    def read(start: int, stop: int) -> np.ndarray:
        numbers = _numbers(words[:, start:stop].T, bits, columns)
        zeros = _numbers(zero_words, bits, rows)[:, start:stop].T + shift
        scale = scales.rows()[:, start:stop].T
        return (numbers - zeros[:, group]) * scale[:, group]

    return (rows, columns), read


def _awq(parts: Parts, settings: Settings) -> tuple[tuple[int, int], Reader]:
    """Words run along the outputs, eight 4-bit numbers each in AWQ's order."""
    _count(settings, "bits", (4,))
    if str(settings.get("version", "gemm")).lower() != "gemm":
        raise ValueError(f"version {str(settings['version'])[:20]} is not gemm")
    words, zero_words = _words(parts["qweight"]), _words(parts["qzeros"])
    columns, rows, count = words.shape[0], words.shape[1] * 8, zero_words.shape[0]
    if zero_words.shape[1] != words.shape[1]:
        raise ValueError("qzeros and qweight differ in width")
    scales = _matrix(parts["scales"], (count, rows))
    group = _groups(parts, "g_idx", columns, settings, count)

    def take(packed: np.ndarray, start: int, stop: int) -> np.ndarray:
        first, last = start // 8, -(-stop // 8)
        part = _numbers(packed[:, first:last], 4, (last - first) * 8).reshape(len(packed), -1, 8)
        ordered = np.empty_like(part)
        ordered[:, :, _AWQ_ORDER] = part
        return ordered.reshape(len(packed), -1)[:, start - first * 8 : stop - first * 8].T

    def read(start: int, stop: int) -> np.ndarray:
        zeros, scale = take(zero_words, start, stop), scales.rows()[:, start:stop].T
        return (take(words, start, stop) - zeros[:, group]) * scale[:, group]

    return (rows, columns), read


def _compressed(parts: Parts, settings: Settings) -> tuple[tuple[int, int], Reader]:
    """Words run along the inputs, numbers are stored plus half their range; or plain 8-bit integers."""
    scheme = _scheme(settings)
    scales = parts["weight_scale"]
    if "weight_packed" in parts:
        bits = _count(scheme, "num_bits", (2, 3, 4, 5, 6, 7, 8))
        words = _words(parts["weight_packed"])
        rows, columns = (int(size) for size in parts["weight_shape"].encoded().reshape(-1).view(np.int64))
        if len(words) != rows or not 0 < columns <= words.shape[1] * 32 // bits:
            raise ValueError(f"weight_shape says {(rows, columns)}, the words are {words.shape}")

        def numbers(start: int, stop: int) -> np.ndarray:
            return _numbers(words[start:stop], bits, columns) - (1 << bits - 1)
    else:
        bits, weight = 8, parts["weight"]
        if weight.type != "I8" or len(weight.shape) != 2:
            raise ValueError(f"weight is {weight.type}, which is no 8-bit integer")
        rows, columns = weight.shape

        def numbers(start: int, stop: int) -> np.ndarray:
            return weight.encoded(start, stop).view(np.int8).astype(np.int16)

    count = scales.size // max(rows, 1)
    _matrix(scales.reshaped((rows, count)) if scales.size == rows * count else scales, (rows, count))
    group = _groups(parts, "weight_g_idx", columns, scheme, count)
    zeros = _compressed_zeros(parts.get("weight_zero_point"), bits, rows, count)

    def read(start: int, stop: int) -> np.ndarray:
        scale = scales.rows().reshape(rows, count)[start:stop]
        return (numbers(start, stop) - zeros[start:stop][:, group]) * scale[:, group]

    return (rows, columns), read


def _compressed_zeros(tensor: Tensor | None, bits: int, rows: int, count: int) -> np.ndarray:
    """Return zero points, int16[rows, groups]: none, plain 8-bit integers, or packed down the rows."""
    if tensor is None:
        return np.zeros((rows, count), np.int16)
    if tensor.type == "I8":
        return tensor.encoded().view(np.int8).reshape(rows, count).astype(np.int16)
    return _numbers(_words(tensor).T, bits, rows).T - (1 << bits - 1)


def _scheme(settings: Settings) -> Settings:
    """Return how weights are quantized; all groups of layers must agree."""
    groups = settings.get("config_groups")
    found = [entry.get("weights") for entry in _values(groups) if isinstance(entry, dict)]
    schemes = [entry for entry in found if isinstance(entry, dict)]
    if not schemes or any(entry != schemes[0] for entry in schemes):
        raise ValueError(f"{len(schemes)} different ways of quantizing weights")
    if schemes[0].get("type") != "int":
        raise ValueError(f"weights of type {str(schemes[0].get('type'))[:20]} are not supported")
    return schemes[0]


def _values(groups: Any) -> Iterator[Any]:
    yield from groups.values() if isinstance(groups, dict) else ()
