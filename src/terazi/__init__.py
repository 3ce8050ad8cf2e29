"""Weigh a model's size, speed, memory and quality, and get the variant that fits your device."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from terazi.codecs import dequantize_rows, quantize_rows
    from terazi.dtypes import TYPES
    from terazi.errors import TeraziError

__all__ = ["TYPES", "TeraziError", "dequantize_rows", "quantize_rows"]

# Public name -> module; imported on first use so that `import terazi` costs nothing.
_HOME = {
    "TYPES": "terazi.dtypes",
    "TeraziError": "terazi.errors",
    "dequantize_rows": "terazi.codecs",
    "quantize_rows": "terazi.codecs",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'terazi' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
