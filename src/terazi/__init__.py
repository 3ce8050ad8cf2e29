"""Weigh a model's size, speed, memory and quality, and get the variant that fits your device."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from terazi.api import (
        calibrate,
        compare,
        convert,
        evaluate,
        inspect,
        open_model,
        optimize,
        propose,
        quantize,
        quantize_collection,
    )
    from terazi.codecs import dequantize_rows, quantize_rows
    from terazi.dtypes import TYPES
    from terazi.errors import TeraziError

__all__ = [
    "TYPES",
    "TeraziError",
    "calibrate",
    "compare",
    "convert",
    "dequantize_rows",
    "evaluate",
    "inspect",
    "open_model",
    "optimize",
    "propose",
    "quantize",
    "quantize_collection",
    "quantize_rows",
]

# Public name -> module; imported on first use so that `import terazi` costs nothing.
_HOME = {
    "TYPES": "terazi.dtypes",
    "TeraziError": "terazi.errors",
    "calibrate": "terazi.api",
    "compare": "terazi.api",
    "convert": "terazi.api",
    "dequantize_rows": "terazi.codecs",
    "evaluate": "terazi.api",
    "inspect": "terazi.api",
    "open_model": "terazi.api",
    "optimize": "terazi.api",
    "propose": "terazi.api",
    "quantize": "terazi.api",
    "quantize_collection": "terazi.api",
    "quantize_rows": "terazi.codecs",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'terazi' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """Keeps ``terazi.convert`` the verb: importing the folder of the same name would put its module there."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
