"""Tensor types: names, GGUF ids, block layouts and precision classes, as data.

Block sizes and bytes are those of ggml (``ggml/include/ggml.h``, ``ggml-common.h``).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from terazi.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["OTHER_TYPES", "TYPES", "TYPES_BY_ID", "DType", "Importance", "Precision", "dtype"]

Importance = Literal["none", "ignored", "used", "required"]
"""What a type's quantizer does with column importance. ``none``: there is no quantizer."""

Precision = Literal["ultra-low", "low", "medium", "full", "exact"]
"""Class by bits: ultra-low 1-2, low 3-4, medium 5-8, full 16-32; ``exact`` for integer and 64-bit data."""


@dataclass(frozen=True, slots=True)
class DType:
    """How one type lays out a row: ``block_size`` weights in ``block_bytes`` bytes."""

    name: str
    id: int
    block_size: int
    block_bytes: int
    precision: Precision
    importance: Importance = "none"
    activation: bool = False  # an engine-internal type: valid in a file, never a target

    @property
    def bits_per_weight(self) -> float:
        """Average bits that one weight takes, scales included."""
        return self.block_bytes * 8 / self.block_size

    @property
    def quantized(self) -> bool:
        """Whether weights share scales in blocks."""
        return self.block_size > 1

    def row_bytes(self, columns: int) -> int:
        """Bytes of a row of ``columns`` weights. Raises `UsageError` when it is no whole number of blocks."""
        if columns % self.block_size:
            raise UsageError(
                f"{self.name} needs rows in multiples of {self.block_size}, not {columns}",
                hint="choose a type with a smaller block, such as Q8_0 or Q5_0",
            )
        return columns // self.block_size * self.block_bytes


_TABLE = (
    DType("F32", 0, 1, 4, "full", "ignored"),
    DType("F16", 1, 1, 2, "full", "ignored"),
    DType("Q4_0", 2, 32, 18, "low", "used"),
    DType("Q4_1", 3, 32, 20, "low", "used"),
    DType("Q5_0", 6, 32, 22, "medium", "used"),
    DType("Q5_1", 7, 32, 24, "medium", "used"),
    DType("Q8_0", 8, 32, 34, "medium", "ignored"),
    DType("Q8_1", 9, 32, 36, "medium", activation=True),
    DType("Q2_K", 10, 256, 84, "ultra-low", "used"),
    DType("Q3_K", 11, 256, 110, "low", "used"),
    DType("Q4_K", 12, 256, 144, "low", "used"),
    DType("Q5_K", 13, 256, 176, "medium", "used"),
    DType("Q6_K", 14, 256, 210, "medium", "used"),
    DType("Q8_K", 15, 256, 292, "medium", activation=True),
    DType("IQ2_XXS", 16, 256, 66, "ultra-low", "required"),
    DType("IQ2_XS", 17, 256, 74, "ultra-low", "required"),
    DType("IQ3_XXS", 18, 256, 98, "low", "used"),
    DType("IQ1_S", 19, 256, 50, "ultra-low", "required"),
    DType("IQ4_NL", 20, 32, 18, "low", "used"),
    DType("IQ3_S", 21, 256, 110, "low", "used"),
    DType("IQ2_S", 22, 256, 82, "ultra-low", "used"),
    DType("IQ4_XS", 23, 256, 136, "low", "used"),
    DType("I8", 24, 1, 1, "exact"),
    DType("I16", 25, 1, 2, "exact"),
    DType("I32", 26, 1, 4, "exact"),
    DType("I64", 27, 1, 8, "exact"),
    DType("F64", 28, 1, 8, "exact"),
    DType("IQ1_M", 29, 256, 56, "ultra-low", "used"),
    DType("BF16", 30, 1, 2, "full", "ignored"),
    DType("TQ1_0", 34, 256, 54, "ultra-low", "ignored"),
    DType("TQ2_0", 35, 256, 66, "ultra-low", "ignored"),
    DType("MXFP4", 39, 32, 17, "low", "ignored"),
    DType("NVFP4", 40, 64, 36, "low", "ignored"),
    DType("Q1_0", 41, 128, 18, "ultra-low", "ignored"),
    DType("Q2_0", 42, 64, 18, "ultra-low", "ignored"),
)

TYPES: Mapping[str, DType] = MappingProxyType({entry.name: entry for entry in _TABLE})
"""Every GGUF tensor type by name."""

TYPES_BY_ID: Mapping[int, DType] = MappingProxyType({entry.id: entry for entry in _TABLE})
"""The same by the id that files store."""

_NOT_IN_GGUF = -1
_OTHER_TABLE = (
    DType("BOOL", _NOT_IN_GGUF, 1, 1, "exact"),
    DType("U8", _NOT_IN_GGUF, 1, 1, "medium"),
    DType("U16", _NOT_IN_GGUF, 1, 2, "exact"),
    DType("U32", _NOT_IN_GGUF, 1, 4, "exact"),
    DType("U64", _NOT_IN_GGUF, 1, 8, "exact"),
    DType("F8", _NOT_IN_GGUF, 1, 1, "medium"),
    DType("I4", _NOT_IN_GGUF, 2, 1, "low"),
    DType("U4", _NOT_IN_GGUF, 2, 1, "low"),
    DType("F4", _NOT_IN_GGUF, 2, 1, "low"),
    DType("I2", _NOT_IN_GGUF, 4, 1, "ultra-low"),
    DType("U2", _NOT_IN_GGUF, 4, 1, "ultra-low"),
)

OTHER_TYPES: Mapping[str, DType] = MappingProxyType({entry.name: entry for entry in _OTHER_TABLE})
"""Element types of other formats (ONNX initializers, MLX packed words): described, never decoded alone."""


def dtype(name: str) -> DType:
    """Look a type up by name, ignoring case. Raises `UsageError` naming the known ones."""
    found = TYPES.get(name.upper()) or OTHER_TYPES.get(name.upper())
    if found is None:
        raise UsageError(f"unknown type {name!r}", hint="see `terazi types`")
    return found
