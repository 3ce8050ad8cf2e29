"""Hugging Face checkpoints as GGUF: the same weights under llama.cpp's names, read only when written."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from terazi.convert.sentence_transformers import dense_layers, pooling
from terazi.convert.tokenizer import tokenizer_metadata
from terazi.errors import FormatError, UnsupportedError, UsageError
from terazi.model import Artifact, Model, Tensor
from terazi.model.arch import architecture, settings
from terazi.model.arch.change import recoded
from terazi.model.arch.table import Architecture, Source, To
from terazi.model.tensor import concatenate_rows
from terazi.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["convert", "named", "to_gguf"]

_WRAPPERS = re.compile(
    r"^(?:(?:model|language_model|transformer|gpt_neox|backbone|bert|roberta|distilbert|text_model)\.)+"
)
# Other modalities of a multimodal checkpoint: their own files in llama.cpp, so not part of this one.
_OTHER_PARTS = re.compile(
    r"(?:^|\.)(?:vision_\w+|visual|audio_\w+|multi_modal_projector|connector|embed_vision|embed_audio|vision_model|mtp)\."
)
# GGUF names that llama.cpp wants in F32 although they are matrices.
_FULL_PRECISION = ("ffn_gate_inp", "ssm_conv1d", "shortconv.conv", "token_types", "position_embd")
_FILE_TYPES = {"F32": 0, "F16": 1, "BF16": 32}


def to_gguf(model: Model, *, type: str | None = None, pre: str | None = None) -> Model:
    """Return a Hugging Face model as a GGUF one; weights stay on disk until they are read.

    ``type`` (F32, F16, BF16) is what matrices become; by default they stay as stored. Vectors and the few
    matrices that llama.cpp reads as such become F32. ``pre`` forces the pre-tokenizer's name when llama.cpp
    has none that splits exactly as this tokenizer does. A model that is GGUF already is returned as it is.

    Raises `UnsupportedError` for an architecture without a table or a tensor that its table does not name,
    and `FormatError` for a configuration or tokenizer that makes no sense.
    """
    if model.format == "gguf":
        return model
    if model.format not in ("huggingface", "mlx"):
        raise UnsupportedError(
            f"{model.path}: cannot be made GGUF from {model.format}",
            hint="ONNX models take ONNX types: see `terazi quantize --list-types`",
        )
    type = type.upper() if type else None
    if type is not None and type not in _FILE_TYPES:
        raise UsageError(
            f"cannot convert to {type}", hint="choose F32, F16 or BF16; `terazi quantize` does the rest"
        )
    try:
        table = architecture(model.metadata)
        values = settings(model.metadata)
        tensors = {tensor.name: _typed(tensor, table, type) for tensor in _tensors(model, table, values)}
        metadata = _metadata(model, table, values, tensors, pre)
    except FormatError as error:  # tables know the file's name, not where it is
        if Path(error.path).is_absolute() or model.path in Path(error.path).parents:
            raise
        raise FormatError(model.path / str(error.path), error.problem, hint=error.hint) from None
    return _described(model, metadata, tensors)


def convert(
    model: Model,
    output: Path | str,
    *,
    type: str | None = None,
    pre: str | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Artifact:
    """Write a checkpoint as a GGUF file; see `to_gguf` for ``type`` and ``pre``."""
    from terazi.formats import gguf

    if model.format == "gguf":
        raise UsageError(f"{model.path} is GGUF already", hint="`terazi quantize` makes other types of it")
    made = to_gguf(model, type=type, pre=pre)
    path = gguf.write(output, made.metadata, list(made.tensors.values()), force=force, progress=progress)
    label = next(name for name, id in _FILE_TYPES.items() if id == made.metadata["general.file_type"])
    return Artifact.of_files([path], format="gguf", label=label, license=made.license)


def _described(model: Model, metadata: dict[str, Any], tensors: dict[str, Tensor]) -> Model:
    from terazi.formats.gguf.describe import describe

    config, tokenizer, variant = describe(model.path, metadata, tensors)
    return dataclasses.replace(
        model,
        format="gguf",
        config=config,
        tokenizer=tokenizer,
        tensors=tensors,
        metadata=metadata,
        variant=variant if model.variant == "unknown" else model.variant,
    )


def _tensors(model: Model, table: Architecture, values: Mapping[str, Any]) -> Iterator[Tensor]:
    """Yield the GGUF tensors: what belongs to no block first, then block after block."""
    found: dict[str, list[tuple[tuple[int, ...], Tensor]]] = {}
    for tensor in model.tensors.values():
        for name, numbers, part in named(tensor, table, values):
            found.setdefault(name, []).append((numbers, part))
    for tensor in (*table.extra(values), *dense_layers(model.path, table.dense)):
        found.setdefault(tensor.name, [((), tensor)])
    if values.get("tie_word_embeddings", False) and "token_embd.weight" in found:
        found.pop("output.weight", None)
    if not found:
        raise FormatError(model.path, "holds no weights")
    for name in sorted(found, key=_place):
        yield _joined(name, [part for _, part in sorted(found[name], key=lambda entry: entry[0])])


def named(
    tensor: Tensor, table: Architecture, values: Mapping[str, Any]
) -> Iterator[tuple[str, tuple[int, ...], Tensor]]:
    """Look one Hugging Face tensor up; yields the GGUF name, the numbers (layer, expert) and the weights."""
    name = _WRAPPERS.sub("", tensor.name)
    if _OTHER_PARTS.search(tensor.name) or name.startswith(table.ignored or ("\0",)):
        return
    numbers = tuple(int(part) for part in name.split(".") if part.isdecimal())
    pattern = ".".join("{}" if part.isdecimal() else part for part in name.split("."))
    layered = re.sub(r"\.\d+\.", ".{}.", name, count=1)
    pattern = layered if layered in table.tensors else pattern
    stem, _, suffix = pattern.rpartition(".")
    if suffix in ("gamma", "beta"):  # old TensorFlow names
        suffix = {"gamma": "weight", "beta": "bias"}[suffix]
    if pattern in table.tensors:
        targets, suffix = table.tensors[pattern], ""
    elif suffix in ("weight", "bias") and stem in table.tensors:
        targets = table.tensors[stem]
    else:
        raise UnsupportedError(
            f"{tensor.name}: the {table.name} table does not name this tensor",
            hint="see docs/guides/convert.md on how to extend a table in src/terazi/model/arch",
        )
    if targets is None:
        return
    for target in targets if isinstance(targets, tuple) else (targets,):
        base, change = (target.name, target.change) if isinstance(target, To) else (target, None)
        made = change.make(tensor, Source(values, numbers)) if change else tensor
        order = (*numbers, target.place or 0) if isinstance(target, To) else numbers
        yield (f"{base}.{suffix}" if suffix else base).format(*numbers), order, made


def _joined(name: str, parts: Sequence[Tensor]) -> Tensor:
    """Give the weights their name; several parts are stacked along a new first axis."""
    if len(parts) == 1:
        return parts[0].renamed(name)
    if len({part.shape for part in parts}) > 1 or len({part.type for part in parts}) > 1:
        raise FormatError("config.json", f"the {len(parts)} parts of {name} differ in shape or type")
    return concatenate_rows(name, parts, (len(parts), *parts[0].shape))


def _place(name: str) -> tuple[int, int]:
    found = re.match(r"blk\.(\d+)\.", name)
    return (1, int(found[1])) if found else (0, 0)


def _typed(tensor: Tensor, table: Architecture, type: str | None) -> Tensor:
    """Encode a tensor as llama.cpp wants it: vectors and special matrices in F32, others as ``type``."""
    words = (*_FULL_PRECISION, *table.full_precision)
    full = (
        len(tensor.shape) < 2 or tensor.name.endswith(".bias") or any(word in tensor.name for word in words)
    )
    wanted = "F32" if full or "norm" in tensor.name else type or tensor.type
    if wanted == tensor.type:
        return tensor
    if wanted not in _FILE_TYPES:  # weights stored as 64-bit numbers, integers and the like
        wanted = "F32"
    return recoded(tensor, wanted)


def _metadata(
    model: Model,
    table: Architecture,
    values: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    pre: str | None,
) -> dict[str, Any]:
    from terazi.formats.huggingface.describe import chat_template

    metadata: dict[str, Any] = {
        "general.architecture": table.name,
        "general.type": "model",
        "general.name": model.name,
    }
    if model.license:
        metadata["general.license"] = model.license
    types = [
        tensor.type for tensor in tensors.values() if len(tensor.shape) > 1 and tensor.type in _FILE_TYPES
    ]
    main = max(
        set(types), key=lambda kind: sum(t.size for t in tensors.values() if t.type == kind), default="F32"
    )
    metadata["general.file_type"] = np.uint32(_FILE_TYPES[main])
    for key, reader in table.parameters.items():
        value = reader(values)
        if value is not None:
            metadata[f"{table.name}.{key}"] = value
    pooled = pooling(model.path)
    if pooled is not None:
        metadata[f"{table.name}.pooling_type"] = np.uint32(pooled)
    for name in table.dense:
        layer = tensors.get(f"{name}.weight")
        if layer is not None:
            metadata[f"{table.name}.{name}_feat_in"] = np.uint32(layer.columns)
            metadata[f"{table.name}.{name}_feat_out"] = np.uint32(layer.row_count)
    embedding = tensors.get("token_embd.weight")
    if embedding is None:
        raise FormatError(model.path, "has no token embedding")
    metadata |= tokenizer_metadata(model.path, embedding.row_count, values, chat_template(model.path), pre)
    for key, reader in table.tokenizer.items():
        metadata[key] = reader(values)
    return metadata
