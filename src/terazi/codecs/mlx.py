"""MLX's block encodings: affine 2-8 bit, mxfp4, nvfp4, mxfp8, with the rounding of ``mx.quantize``.

Layouts and rounding: https://ml-explore.github.io/mlx (``mx.quantize``) and MLX's CPU backend. Codes are
packed into a little-endian stream of bits, row by row, seen as uint32 words.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from terazi.errors import UsageError

__all__ = ["E2M1", "E4M3", "MODES", "Mode", "decode", "encode"]


@dataclass(frozen=True, slots=True)
class Mode:
    """What a mode allows; the first group size and number of bits are its defaults."""

    bits: tuple[int, ...]
    group_sizes: tuple[int, ...]


MODES: dict[str, Mode] = {
    "affine": Mode((4, 2, 3, 5, 6, 8), (64, 32, 128)),
    "mxfp4": Mode((4,), (32,)),
    "nvfp4": Mode((4,), (16,)),
    "mxfp8": Mode((8,), (32,)),
}

# The eight magnitudes of E2M1, and where rounding changes from one to the next: ties go to the smaller.
_FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
E2M1 = np.concatenate([_FP4, -_FP4])
"""The value of every 4-bit floating-point code: float32[16]."""

_FP4_EDGES = np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5], np.float32)
_LARGEST = {"mxfp4": np.float32(6), "nvfp4": np.float32(6), "mxfp8": np.float32(448)}


def encode(
    x: np.ndarray, mode: str = "affine", *, bits: int | None = None, group_size: int | None = None
) -> dict[str, np.ndarray]:
    """Encode ``x`` (float32 or float16[rows, columns]); the same bytes as ``mx.quantize`` on the CPU.

    Returns ``weight`` uint32[rows, columns * bits / 32], ``scales`` and for affine ``biases`` [rows, groups]:
    in the type of ``x`` for affine, uint8 otherwise. Raises `UsageError` for what MLX does not know.
    """
    bits, group_size = checked(mode, bits, group_size, x.shape[1])
    groups = x.reshape(len(x), -1, group_size)
    if mode == "affine":
        codes, scales, biases = _affine(groups.astype(np.float32), bits)
        return {
            "weight": _pack(codes.reshape(len(x), -1), bits),
            "scales": scales.astype(x.dtype),
            "biases": biases.astype(x.dtype),
        }
    codes, scales = _floats(groups, mode)
    return {"weight": _pack(codes.reshape(len(x), -1), bits), "scales": scales}


def decode(
    weight: np.ndarray,
    scales: np.ndarray,
    biases: np.ndarray | None = None,
    *,
    mode: str = "affine",
    bits: int,
    group_size: int,
) -> np.ndarray:
    """Decode what `encode` made into float32[rows, columns]."""
    columns = weight.shape[1] * 32 // bits
    codes = _unpack(weight, bits, columns).reshape(len(weight), -1, group_size)
    if mode == "affine":
        assert biases is not None
        values = codes.astype(np.float32) * scales[..., None].astype(np.float32)
        values += biases[..., None].astype(np.float32)
    else:
        magnitudes = E4M3[codes] if bits == 8 else E2M1[codes]
        scale = E4M3[scales] if mode == "nvfp4" else np.exp2(scales.astype(np.float32) - 127)
        values = magnitudes * scale[..., None]
    return values.reshape(len(weight), columns).astype(np.float32)


def checked(mode: str, bits: int | None, group_size: int | None, columns: int) -> tuple[int, int]:
    """Return (bits, group size) with the mode's defaults put in. Raises `UsageError` for bad ones."""
    if mode not in MODES:
        raise UsageError(f"MLX knows no mode {mode!r}", hint=f"choose {', '.join(MODES)}")
    known = MODES[mode]
    bits, group_size = bits or known.bits[0], group_size or known.group_sizes[0]
    if bits not in known.bits or group_size not in known.group_sizes:
        raise UsageError(
            f"MLX has no {mode} with {bits} bits in groups of {group_size}",
            hint=f"bits {sorted(known.bits)}, group sizes {sorted(known.group_sizes)}",
        )
    if columns % group_size:
        raise UsageError(f"rows of {columns} are no whole number of groups of {group_size}")
    return bits, group_size


def _affine(groups: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    top = np.float32((1 << bits) - 1)
    low, high = groups.min(-1), groups.max(-1)
    from_low = np.abs(low) > np.abs(high)
    scale = np.maximum((high - low) / top, np.float32(1e-7))
    scale = np.where(from_low, scale, -scale)
    edge = np.where(from_low, low, high)
    steps = np.rint(edge / scale)
    zero = steps == 0
    scale = np.where(zero, scale, edge / np.where(zero, np.float32(1), steps))
    bias = np.where(zero, np.float32(0), edge)
    codes = np.clip(np.rint((groups - bias[..., None]) / scale[..., None]), 0, top)
    return codes.astype(np.uint8), scale, bias


def _floats(groups: np.ndarray, mode: str) -> tuple[np.ndarray, np.ndarray]:
    """Round to float codes; MLX divides in the type of the weights."""
    largest = np.abs(groups).max(-1) / groups.dtype.type(_LARGEST[mode])
    if mode == "nvfp4":
        scales = _to_fp8(largest)
        values = E4M3[scales]
    else:
        scales = _to_power_of_two(largest)
        values = np.exp2(scales.astype(np.float32) - 127)
    values = values.astype(groups.dtype)[..., None]
    one = groups.dtype.type(1)
    scaled = np.where(values == 0, 0, groups / np.where(values == 0, one, values)).astype(np.float32)
    return (_to_fp8 if mode == "mxfp8" else _to_fp4)(scaled), scales


def _to_fp4(x: np.ndarray) -> np.ndarray:
    size = np.abs(x)
    codes = np.searchsorted(_FP4_EDGES, size, side="left").astype(np.uint8)
    return codes | ((np.signbit(x) & (codes > 0)).astype(np.uint8) << 3)


def _to_power_of_two(x: np.ndarray) -> np.ndarray:
    """Return the E8M0 code of the smallest power of two that is at least ``x``, as MLX rounds its scales."""
    with np.errstate(divide="ignore"):
        codes = np.clip(np.round(np.log2(x)), -127, 127) + 127
    codes += (codes < 254) & (np.exp2(codes - 127) < x)
    return np.where(x == 0, 127, codes).astype(np.uint8)


def _fp8_values() -> np.ndarray:
    """Return the value of every E4M3 code (OCP 8-bit floating point, no infinities)."""
    codes = np.arange(256)
    exponent, mantissa = (codes >> 3) & 15, codes & 7
    size = np.where(exponent > 0, (8 + mantissa) * np.exp2(exponent - 10.0), mantissa * np.exp2(-9.0)).astype(
        np.float32
    )
    size[(codes & 127) == 127] = np.nan
    return np.where(codes & 128, -size, size)


E4M3 = _fp8_values()
"""The value of every 8-bit floating-point code: float32[256]."""

_FP8_EDGES = (E4M3[:126] + E4M3[1:127]) / 2


def _to_fp8(x: np.ndarray) -> np.ndarray:
    """Round to the nearest E4M3 value, ties to even codes, the largest value beyond it."""
    size = np.abs(x)
    below = np.searchsorted(_FP8_EDGES, size, side="left")
    tied = (below < 126) & (size == _FP8_EDGES[np.minimum(below, 125)]) & (below % 2 == 1)
    return ((below + tied) | (np.signbit(x).astype(np.int64) << 7)).astype(np.uint8)


def _pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Pack uint8[rows, n] into uint32[rows, n * bits / 32]: a stream of bits, the lowest first."""
    if bits == 8:
        return np.ascontiguousarray(codes).view("<u4")
    if bits == 4:
        return np.ascontiguousarray(codes[:, 0::2] | codes[:, 1::2] << 4).view("<u4")
    spread = (codes[..., None] >> np.arange(bits, dtype=np.uint8)) & 1
    return np.packbits(spread.reshape(len(codes), -1), axis=1, bitorder="little").view("<u4")


def _unpack(words: np.ndarray, bits: int, columns: int) -> np.ndarray:
    stream = np.ascontiguousarray(words).view(np.uint8)
    if bits == 8:
        return stream
    spread = np.unpackbits(stream, axis=1, bitorder="little").reshape(len(words), columns, bits)
    return np.packbits(spread, axis=2, bitorder="little")[..., 0]
