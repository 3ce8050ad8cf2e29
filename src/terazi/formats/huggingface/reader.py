"""Opening a Hugging Face directory: which files belong to the checkpoint, and their tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from terazi.errors import FormatError, NotFoundError, UnsupportedError
from terazi.formats.huggingface import quantized, safetensors
from terazi.formats.huggingface.describe import (
    chat_template,
    read_config,
    read_license,
    read_tokenizer,
    variant,
)
from terazi.model import Model, Tensor

__all__ = ["COMPANIONS", "detect", "read", "read_json", "read_weights"]

_INDEX = "model.safetensors.index.json"
COMPANIONS = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "modules.json",
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "2_Dense/model.safetensors",
    "3_Dense/config.json",
    "3_Dense/model.safetensors",
)
_MAX_JSON = 256_000_000


def detect(path: Path) -> bool:
    """Whether ``path`` is a directory with config.json and safetensors, or a safetensors file."""
    if path.is_dir():
        return (path / "config.json").is_file() and _has_weights(path)
    return safetensors.detect(path)


def read(path: Path | str) -> Model:
    """Open a checkpoint; a safetensors file stands for the directory it lies in.

    ``metadata`` of the result is config.json, and ``files`` lists the weights and whichever of the
    tokenizer's and template's files are there. Raises `FormatError`, `NotFoundError` (a missing part) or
    `UnsupportedError` (weights quantized by a method that `quantized` does not read).
    """
    path = Path(path)
    directory = path if path.is_dir() else path.parent
    if not (directory / "config.json").is_file():
        raise NotFoundError(
            f"{directory}: has no config.json, which says what the weights are",
            hint="put the model's config.json and tokenizer files beside the safetensors file",
        )
    metadata = read_json(directory / "config.json")
    if "quantization" in metadata:
        raise UnsupportedError(
            f"{directory}: its weights are already quantized (see config.json)",
            hint="get the original, unquantized checkpoint of this model",
        )
    quantization = metadata.get("quantization_config")
    if quantization is not None:
        quantized.check(quantization, directory)
    weights, tensors = read_weights(directory, packed=quantization is not None)
    if quantization is not None:
        tensors = quantized.unpack(tensors, quantization, directory)
    companions = (*(directory / name for name in COMPANIONS), *sorted(directory.glob("rwkv_vocab_*.txt")))
    companions = tuple(file for file in companions if file.is_file())
    config = read_config(directory, metadata)
    template = chat_template(directory)
    return Model(
        path=directory,
        format="huggingface",
        files=(*weights, *companions),
        name=directory.resolve().name,
        config=config,
        tokenizer=read_tokenizer(directory, template),
        tensors=tensors,
        metadata=metadata,
        license=read_license(directory, metadata),
        variant=variant(directory, metadata, template),
    )


def read_json(path: Path) -> dict[str, Any]:
    """Read one of a checkpoint's JSON files, which must be an object. Raises `FormatError`."""
    if path.stat().st_size > _MAX_JSON:
        raise FormatError(path, f"is larger than {_MAX_JSON} bytes, too much for JSON")
    return safetensors.parse_json(path, path.read_bytes(), "the file")


def _has_weights(directory: Path) -> bool:
    return (directory / _INDEX).is_file() or any(directory.glob("*.safetensors"))


def read_weights(directory: Path, *, packed: bool = False) -> tuple[tuple[Path, ...], dict[str, Tensor]]:
    """Return the files with weights and all their tensors; ``packed`` as in `safetensors.read`."""
    index = directory / _INDEX
    if index.is_file():
        return _read_index(index, packed)
    single = directory / "model.safetensors"
    found = [single] if single.is_file() else sorted(directory.glob("*.safetensors"))
    if len(found) != 1:
        names = ", ".join(file.name for file in found[:5])
        raise FormatError(directory, f"has {len(found)} safetensors files ({names}) and no {_INDEX}")
    return tuple(found), safetensors.read(found[0], packed=packed)


def _read_index(index: Path, packed: bool) -> tuple[tuple[Path, ...], dict[str, Tensor]]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise FormatError(index, "has no weight_map from tensors to files")
    names = sorted(set(weight_map.values()))
    for name in names:
        if Path(name).name != name or "\\" in name or not name.endswith(".safetensors"):
            raise FormatError(index, f"names {name[:80]!r}, which is no file beside it")
        if not (index.parent / name).is_file():
            raise NotFoundError(
                f"{index.parent / name}: part of the model is missing",
                hint=f"all {len(names)} files that {index.name} names are needed",
            )
    files = tuple(index.parent / name for name in names)
    parts = {file.name: safetensors.read(file, packed=packed) for file in files}
    tensors: dict[str, Tensor] = {}
    for tensor, name in weight_map.items():
        if tensor not in parts[name]:
            raise FormatError(index, f"places tensor {tensor[:80]!r} in {name}, which does not hold it")
        tensors[tensor] = parts[name][tensor]
    return files, tensors
