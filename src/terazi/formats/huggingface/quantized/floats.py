"""Small floating-point numbers with scales: FP8 (fine-grained and ModelOpt), NVFP4 and MXFP4.

Layouts: transformers' ``FineGrainedFP8Config`` (DeepSeek, Qwen), NVIDIA ModelOpt's exports, and the blocks of
gpt-oss. Number formats: OCP Microscaling Formats 1.0 (E4M3, E2M1, E8M0 scales).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from terazi.codecs.mlx import E2M1, E4M3
from terazi.formats.huggingface.quantized.layout import (
    Decode,
    Layout,
    Parts,
    Settings,
    decoded,
    matrix,
    numbers,
    stored,
)
from terazi.model import Tensor

__all__ = ["FP8", "MODELOPT", "MXFP4", "four_bits", "scaled"]


def scaled(name: str, codes: Tensor, scales: Tensor, block: tuple[int, int], parts: Parts) -> Tensor:
    """Return FP8 ``codes`` (one or a stack of matrices) times one of ``scales`` per block, as BF16.

    ``block`` is (rows, columns); 0 means all. Scales are numbers, or bytes that are powers of two (E8M0).
    """
    if codes.type != "F8" or len(codes.shape) < 2:
        raise ValueError(f"{codes.name} is {codes.type} {codes.shape}, not a matrix of 8-bit floats")
    factor = _factors(scales, codes.shape, block)

    def decode(start: int, stop: int) -> np.ndarray:
        return E4M3[codes.encoded(start, stop)] * factor(start, stop)

    return decoded(name, codes.shape, "BF16", decode, parts, 8)


def four_bits(
    name: str, codes: Tensor, scales: Tensor, group: int, factor: Callable[[], np.float32], parts: Parts
) -> Tensor:
    """Return pairs of FP4 ``codes``, low half first, times a scale per ``group`` and ``factor``, as BF16."""
    if codes.type != "U8" or len(codes.shape) < 2:
        raise ValueError(f"{codes.name} is {codes.type} {codes.shape}, not a matrix of pairs")
    shape = (*codes.shape[:-1], codes.columns * 2)
    per_group = _factors(scales, shape, (1, group))

    def decode(start: int, stop: int) -> np.ndarray:
        pairs = codes.encoded(start, stop)
        values = E2M1[np.stack([pairs & 15, pairs >> 4], axis=-1)].reshape(stop - start, shape[-1])
        return values * (per_group(start, stop) * factor())

    return decoded(name, shape, "BF16", decode, parts, 4)


def _factors(scales: Tensor, shape: tuple[int, ...], block: tuple[int, int]) -> Decode:
    """Return a reader of what the weights of each row are multiplied with: float32[rows, columns]."""
    rows, columns = shape[-2:]
    high, wide = block[0] or rows, block[1] or columns
    down, along = -(-rows // high), -(-columns // wide)
    matrix(scales, int(np.prod(shape[:-2])) * down, along, "F32", "F16", "BF16", "F8", "U8")

    def read(start: int, stop: int) -> np.ndarray:
        row = np.arange(start, stop)
        line = row // rows * down + row % rows // high
        first, last = (int(line[0]), int(line[-1]) + 1) if len(line) else (0, 0)
        found = _scales(scales, first * along, last * along).reshape(last - first, along)
        return np.repeat(found[line - first], wide, axis=1)[:, :columns]

    return read


def _scales(scales: Tensor, first: int, last: int) -> np.ndarray:
    if scales.type == "F8":
        return E4M3[stored(scales, first, last)]
    if scales.type == "U8":
        return np.exp2(stored(scales, first, last).astype(np.float32) - 127)
    return numbers(scales, first, last)


def _fine_grained(name: str, parts: Parts, settings: Settings) -> Tensor:
    block = settings.get("weight_block_size", [128, 128])
    return scaled(name, parts[""], parts["_scale_inv"], (0, 0) if block is None else pair(block), parts)


def pair(block: Any) -> tuple[int, int]:
    """Check the height and width of a block."""
    if not isinstance(block, list) or len(block) != 2 or not all(type(n) is int and n > 0 for n in block):
        raise ValueError(f"blocks of {str(block)[:40]} are no height and width")
    return block[0], block[1]


def _modelopt(name: str, parts: Parts, settings: Settings) -> Tensor:
    """FP8 with one scale, or NVFP4: a scale per 16 weights times one for all."""
    codes, scales = parts[".weight"], parts[".weight_scale"]
    if codes.type == "F8":
        return scaled(name, codes, scales, (0, 0), parts)
    whole = matrix(parts[".weight_scale_2"], 1, 1, "F32")
    return four_bits(name, codes, scales, 16, lambda: whole.rows().reshape(-1)[0], parts)


def _blocks(name: str, parts: Parts, settings: Settings) -> Tensor:
    """gpt-oss's experts, [...][row][block][16 bytes]: the same numbers as ggml's MXFP4 in another order."""
    codes, scales = parts["_blocks"], parts["_scales"]
    if codes.type != "U8" or scales.type != "U8" or codes.shape != (*scales.shape, 16):
        raise ValueError(f"blocks of {codes.shape} and scales of {scales.shape} do not fit together")
    count = scales.columns

    def read(start: int, stop: int) -> np.ndarray:
        pairs = codes.encoded(start * count, stop * count)
        codes_in_order = np.stack([pairs & 15, pairs >> 4], axis=-1).reshape(-1, 32)
        halves = codes_in_order[:, :16] | codes_in_order[:, 16:] << 4
        exponents = scales.encoded(start, stop).reshape(-1, 1)
        return np.concatenate([exponents, halves], axis=1).reshape(stop - start, count * 17)

    return Tensor(name=name, shape=(*scales.shape[:-1], count * 32), type="MXFP4", read=read)


FP8 = Layout("_scale_inv", ("", "_scale_inv"), _fine_grained, result="")
MODELOPT = Layout(".weight_scale", (".weight", ".weight_scale", ".weight_scale_2"), _modelopt)
MXFP4 = Layout("_blocks", ("_blocks", "_scales"), _blocks, result="_blocks")
