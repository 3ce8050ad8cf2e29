"""The variants of each format: which there are, what is known before they run, how they are made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from terazi.search.variants import gguf, mlx, onnx

if TYPE_CHECKING:
    from collections.abc import Mapping

    from terazi.search.variants.family import Family

__all__ = ["FORMATS", "variant_format", "variant_type"]

FORMATS: Mapping[str, Family] = {"gguf": gguf.FAMILY, "onnx": onnx.FAMILY, "mlx": mlx.FAMILY}
"""Format -> its variants."""

_NAMED_LAST = "gguf"  # its presets go without a prefix, so any other name is taken for one


def variant_type(name: str) -> str:
    """Return the one spelling of a variant's name: ``Q4_K_M``, ``onnx:int8``, ``mlx:4bit``.

    ONNX recipes may go without the prefix, except ``onnx:f32``. Raises `UsageError` for an unknown name.
    """
    return _found(name)[1]


def variant_format(name: str) -> str:
    """Return the key of `FORMATS` that a variant's name belongs to; raises what `variant_type` raises."""
    return _found(name)[0]


def _found(name: str) -> tuple[str, str]:
    for format in sorted(FORMATS, key=lambda key: key == _NAMED_LAST):
        spelled = FORMATS[format].spelled(name)
        if spelled is not None:
            return format, spelled
    raise AssertionError("GGUF spells every name or raises")
