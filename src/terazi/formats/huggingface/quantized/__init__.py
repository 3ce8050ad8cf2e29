"""Checkpoints whose weights a quantizer packed, read as the weights that its codes stand for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from terazi.errors import FormatError, UnsupportedError
from terazi.formats.huggingface.quantized import bitsandbytes, compressed, floats, hqq, integers
from terazi.formats.huggingface.quantized.layout import Layout
from terazi.model import Tensor

__all__ = ["check", "unpack"]

_HINT = "get the original, unquantized checkpoint of this model"

# config.json's quant_method -> how its layers may be stored.
_METHODS: dict[str, tuple[Layout, ...]] = {
    "auto-round": (integers.AUTO_ROUND,),
    "awq": (integers.AWQ,),
    "bitsandbytes": (bitsandbytes.FOUR_BITS, bitsandbytes.EIGHT_BITS),
    "compressed-tensors": (compressed.PACKED, compressed.PLAIN),
    "fp8": (floats.FP8,),
    "gptq": (integers.GPTQ,),
    "hqq": (hqq.HQQ,),
    "modelopt": (floats.MODELOPT,),
    "mxfp4": (floats.MXFP4,),
}
_READABLE = {"F64", "F32", "F16", "BF16", "I8", "I16", "I32", "I64", "MXFP4"}
# How activations and the cache are quantized; engines choose their own ways.
_ACTIVATIONS = ("activation_scale", ".input_scale", ".input_zero_point", ".input_global_scale")
_ACTIVATIONS += (".output_scale", ".k_scale", ".v_scale", ".q_scale", ".prob_scale")


def check(settings: Any, path: Path) -> str:
    """Return the method of a ``quantization_config``. Raises `UnsupportedError` unless it can be read."""
    method = settings.get("quant_method") if isinstance(settings, dict) else None
    if not isinstance(method, str) or method not in _METHODS:
        name = str(method)[:40] if method else "a method that config.json does not name"
        raise UnsupportedError(
            f"{path}: its weights are already quantized by {name}",
            hint=f"{_HINT}; of quantized ones, {', '.join(_METHODS)} can be read",
        )
    return method


def unpack(tensors: Mapping[str, Tensor], settings: Any, path: Path) -> dict[str, Tensor]:
    """Return ``tensors`` with every packed layer as one weight; rows are decoded when they are read.

    ``settings`` is config.json's ``quantization_config``. Raises `UnsupportedError` for other methods and
    `FormatError` for parts that do not fit together.
    """
    layouts = _METHODS[check(settings, path)]
    result = {name: tensor for name, tensor in tensors.items() if not name.endswith(_ACTIVATIONS)}
    for layout in layouts:
        for base, parts in layout.gather(result).items():
            try:
                made = layout.make(base + layout.result, parts, settings)
            except KeyError as error:
                problem = f"{base} has no {str(error.args[0]).lstrip('._')}"
                raise FormatError(path, problem, hint=_HINT) from None
            except ValueError as error:
                raise FormatError(path, f"{base}: {error}", hint=_HINT) from None
            for part in parts.values():
                del result[part.name]
            result[made.name] = made
    odd = next((tensor for tensor in result.values() if tensor.type not in _READABLE), None)
    if odd is not None:
        raise UnsupportedError(
            f"{path}: {odd.name} is {odd.type}, packed as no layer of {settings['quant_method']} is",
            hint=_HINT,
        )
    return result
