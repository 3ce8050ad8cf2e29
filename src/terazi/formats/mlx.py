"""MLX directories to a Model: packed weights read as the floats they stand for, rows decoded when read.

Layout as mlx-lm writes it: Hugging Face's names; a quantized layer has ``weight`` (uint32 words), ``scales``
and, for affine, ``biases``; config.json's ``quantization`` gives group size, bits and mode, and exceptions by
layer.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from terazi.codecs.mlx import checked, decode
from terazi.errors import FormatError, UsageError
from terazi.formats.huggingface import reader
from terazi.formats.huggingface.describe import (
    chat_template,
    read_config,
    read_license,
    read_tokenizer,
    variant,
)
from terazi.model import Model, Tensor
from terazi.model.tensor import Packed

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["detect", "is_quantized", "read"]

_HINT = "the file is damaged or made by another tool: convert the original again"


def detect(path: Path) -> bool:
    """Whether ``path`` is a directory that mlx-lm quantized."""
    return path.is_dir() and reader.detect(path) and is_quantized(path / "config.json")


def is_quantized(config: Path) -> bool:
    """Whether a config.json is that of a directory which mlx-lm quantized."""
    return "group_size" in _settings(config)


def read(path: Path | str) -> Model:
    """Open a quantized MLX directory. ``metadata`` is config.json, with its ``quantization``."""
    directory = Path(path)
    metadata, settings = reader.read_json(directory / "config.json"), _settings(directory / "config.json")
    weights, stored = reader.read_weights(directory, packed=True)
    companions = tuple(directory / name for name in reader.COMPANIONS if (directory / name).is_file())
    template = chat_template(directory)
    return Model(
        path=directory,
        format="mlx",
        files=(*weights, *companions),
        name=directory.resolve().name,
        config=read_config(directory, metadata),
        tokenizer=read_tokenizer(directory, template),
        tensors=_unpacked(directory, stored, settings),
        metadata=metadata,
        license=read_license(directory, metadata),
        variant=variant(directory, metadata, template),
    )


def _settings(config: Path) -> dict[str, Any]:
    settings = reader.read_json(config).get("quantization")
    return settings if isinstance(settings, dict) else {}


def _unpacked(path: Path, stored: Mapping[str, Tensor], settings: Mapping[str, Any]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        layer, _, part = name.rpartition(".")
        scales = stored.get(f"{layer}.scales")
        if scales is None:
            tensors[name] = tensor
        elif part == "weight":
            own = settings.get(layer, settings)
            tensors[name] = _layer(path, tensor, scales, stored.get(f"{layer}.biases"), own)
    return tensors


def _layer(path: Path, words: Tensor, scales: Tensor, biases: Tensor | None, settings: Any) -> Tensor:
    """Return one layer as a lazily decoded tensor, in the type of its scales (BF16 for float modes)."""
    try:
        mode, bits = settings.get("mode", "affine"), settings["bits"]
        bits, group = checked(mode, bits, settings.get("group_size") or 64, words.columns * 32 // bits)
    except (AttributeError, KeyError, TypeError, ZeroDivisionError, UsageError) as error:
        raise FormatError(
            path / "config.json", f"quantization of {words.name}: {error}", hint=_HINT
        ) from None
    columns = words.columns * 32 // bits
    expected = ("U8",) if mode != "affine" else ("F32", "F16", "BF16")
    groups = (words.row_count, columns // group)
    parts = [scales] if biases is None else [scales, biases]
    if (
        words.type != "U32"
        or (mode == "affine") == (biases is None)
        or any(part.type not in expected or (part.row_count, part.columns) != groups for part in parts)
    ):
        raise FormatError(path, f"{words.name}: its scales or biases do not fit it", hint=_HINT)
    kind = scales.type if mode == "affine" else "BF16"

    def read_rows(start: int, stop: int) -> np.ndarray:
        values = decode(
            words.encoded(start, stop).view(np.uint32),
            scales.rows(start, stop) if mode == "affine" else scales.encoded(start, stop),
            biases.rows(start, stop) if biases is not None else None,
            mode=mode,
            bits=bits,
            group_size=group,
        )
        return _stored(values, kind)

    packed = Packed(f"{mode} {bits}-bit", bits, sum(part.nbytes for part in (words, *parts)))
    shape = (*words.shape[:-1], columns)
    return Tensor(name=words.name, shape=shape, type=kind, read=read_rows, packed=packed)


def _stored(values: np.ndarray, kind: str) -> np.ndarray:
    if kind == "F32":
        return values.view(np.uint8)
    from terazi.codecs import quantize_rows

    return quantize_rows(values, kind)
