"""GGUF files and others as Hugging Face checkpoints: decoded weights, config.json and tokenizer files."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from terazi.convert.card import model_papers
from terazi.convert.huggingface_tokenizer import tokenizer_files
from terazi.convert.sentence_transformers import pooling_files
from terazi.dtypes import dtype
from terazi.errors import FormatError, UnsupportedError, UsageError
from terazi.model import Artifact, Model, Tensor
from terazi.model.arch import architectures
from terazi.model.arch.change import recoded, swapped
from terazi.model.arch.rope import rope_back
from terazi.model.arch.table import Architecture, Field, Source, To, head_size
from terazi.progress import Progress, silent

__all__ = ["companions", "convert", "to_huggingface"]

_COMPANIONS = (".json", ".txt", ".model", ".jinja")
_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_LAYER = re.compile(r"^blk\.(\d+)\.")


def convert(
    model: Model,
    output: Path | str,
    *,
    type: str | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Artifact:
    """Write a GGUF or MLX model, or a checkpoint in another type, as a directory that transformers loads.

    ``type`` (F32, F16, BF16) is what all weights become; by default F16 when the file is quantized, otherwise
    what its matrices are stored as. Raises `UnsupportedError` for an architecture without a way back.
    """
    from terazi.formats.huggingface import writer

    made = to_huggingface(model, type=type)
    label = next(name for name, word in _DTYPES.items() if word == made.metadata["dtype"])
    papers = model_papers(model, format="huggingface", label=label, output=Path(output))
    texts = papers | companions(model) | {"config.json": json.dumps(made.metadata, indent=2)}
    files = writer.write(output, list(made.tensors.values()), texts, force=force, progress=progress)
    return Artifact.of_files(files, format="huggingface", label=label, license=model.license)


def to_huggingface(model: Model, *, type: str | None = None) -> Model:
    """Return a model under Hugging Face's names in one type; weights are decoded only when they are read."""
    type = type.upper() if type else _usual_type(model)
    if type not in _DTYPES:
        raise UsageError(f"cannot convert to {type}", hint="choose F32, F16 or BF16")
    if model.format == "gguf":
        table = _table(model)
        settings = _settings(model, table)
        tensors = list(_tensors(model, table, settings))
        there = {tensor.name for tensor in tensors}
        assert table.back is not None
        tensors += [tensor for tensor in table.back.extra(settings) if tensor.name not in there]
    else:
        packing = ("quantization", "quantization_config", "torch_dtype")
        settings = {name: value for name, value in model.metadata.items() if name not in packing}
        tensors = [_unblocked(tensor, type) for tensor in model.tensors.values()]
    return dataclasses.replace(
        model,
        format="huggingface",
        metadata=settings | {"dtype": _DTYPES[type]},
        tensors={tensor.name: _in(type, tensor) for tensor in tensors},
    )


def companions(model: Model) -> dict[str, str | bytes]:
    """Return what belongs beside config.json, by name: tokenizer, chat template and other settings."""
    if model.format == "gguf":
        kind = model.metadata.get(f"{model.config.architecture}.pooling_type")
        width = model.config.embedding_length
        pooled = pooling_files(int(kind), width) if isinstance(kind, int | np.integer) else {}
        return {**tokenizer_files(model.metadata), **pooled}
    parts = (file for file in model.files if file.suffix in _COMPANIONS or file.parent != model.path)
    names = {file: str(file.relative_to(model.path)) for file in parts}
    kept = {file: name for file, name in names.items() if name != "config.json" and "index" not in name}
    return {name: file.read_bytes() for file, name in kept.items()}


def _in(type: str, tensor: Tensor) -> Tensor:
    as_it_is = tensor.type == type or dtype(tensor.type).precision == "exact"
    return tensor if as_it_is else recoded(tensor, type)


def _unblocked(tensor: Tensor, type: str) -> Tensor:
    """Return gpt-oss's experts, which stay in MXFP4 when read, as they are without it: inputs by outputs."""
    if not tensor.name.endswith("_blocks"):
        return tensor
    plain = swapped.make(recoded(tensor, type), Source({}, ()))
    return plain.renamed(tensor.name.removesuffix("_blocks"))


def _usual_type(model: Model) -> str:
    matrices = [tensor for tensor in model.tensors.values() if len(tensor.shape) > 1]
    largest = max(matrices, key=lambda tensor: tensor.size, default=None)
    if largest is None or largest.type not in _DTYPES:
        return "BF16" if model.format == "huggingface" else "F16"  # MXFP4, which fits into BF16
    return largest.type


def _table(model: Model) -> Architecture:
    name = model.config.architecture
    tables = [table for table in architectures() if table.back is not None]
    experts = model.config.expert_count > 0
    for table in tables:
        if table.name == name and experts == ("expert_count" in table.parameters):
            return table
    known = ", ".join(sorted({table.name for table in tables}))
    raise UnsupportedError(f"{name} has no way back to Hugging Face; these have: {known}")


def _settings(model: Model, table: Architecture) -> dict[str, Any]:
    """Return config.json: every setting that the table reads under one name, and the rotary ones."""
    assert table.back is not None
    found: dict[str, Any] = {
        "architectures": [table.classes[0]],
        "model_type": table.back.model_type,
        "vocab_size": model.config.vocabulary_size,
        "tie_word_embeddings": "output.weight" not in model.tensors,
    }
    named = {f"{table.name}.{key}": reader for key, reader in table.parameters.items()}
    for key, reader in (named | dict(table.tokenizer)).items():
        value = model.metadata.get(key)
        if value is None:
            continue
        if isinstance(reader, Field):
            plain = value.item() if isinstance(value, np.generic) else value
            found[reader.names[0]] = None if reader.null is not None and plain == reader.null else plain
        elif reader is head_size and key == f"{table.name}.attention.key_length":
            found["head_dim"] = int(value)
    for name, word in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        id = model.metadata.get(f"tokenizer.ggml.{word}_token_id")
        found[f"{name}_token_id"] = None if id is None else int(id)
    found["attention_bias"] = bool({"blk.0.attn_q.bias", "blk.0.attn_qkv.bias"} & set(model.tensors))
    found["mlp_bias"] = "blk.0.ffn_up.bias" in model.tensors
    for name in ("sliding_window", "final_logit_softcapping"):  # llama.cpp's 0 is Hugging Face's null
        found[name] = found.get(name) or None
    windows = model.metadata.get(f"{table.name}.attention.sliding_window_pattern")
    if isinstance(windows, np.ndarray):
        kinds = ("full_attention", "sliding_attention")
        found["layer_types"] = [kinds[int(window)] for window in windows]
    found |= rope_back(model, table.name)
    return found | dict(table.back.settings(found))


def _tensors(model: Model, table: Architecture, settings: Mapping[str, Any]) -> Iterator[Tensor]:
    assert table.back is not None
    names = _inverse(table)
    for tensor in model.tensors.values():
        layer = _LAYER.match(tensor.name)
        pattern = _LAYER.sub("blk.{}.", tensor.name)
        stem, _, suffix = pattern.rpartition(".")
        name, change = names.get(pattern) or names.get(stem) or (None, None)
        if tensor.name.startswith("rope_freqs") or tensor.name.startswith("rope_factors"):
            continue  # config.json has them
        if name is None:
            raise UnsupportedError(f"{tensor.name}: the {table.name} table does not name this tensor")
        number = int(layer[1]) if layer else 0
        for expert, part in _experts(tensor, name):
            if change is not None:
                part = change(part, Source(settings, (number,)))
            whole = name.format(number, expert) + ("" if pattern in names else f".{suffix}")
            yield part.renamed(
                whole if name.startswith(("lm_head", "embed_out")) else table.back.wrapper + whole
            )


def _inverse(table: Architecture) -> dict[str, tuple[str, Any]]:
    """Return GGUF's name -> Hugging Face's, and what undoes the change of the weights."""
    found: dict[str, tuple[str, Any]] = {}
    for name, target in table.tensors.items():
        if target is None:
            continue
        if isinstance(target, tuple) or (isinstance(target, To) and target.change.undo is None):
            raise UnsupportedError(f"{table.name}: what becomes of {name} cannot be undone")
        plain = target if isinstance(target, str) else target.name
        found[plain] = (name, target.change.undo if isinstance(target, To) else None)
    return found


def _experts(tensor: Tensor, name: str) -> Iterator[tuple[int, Tensor]]:
    """Take a stack of experts apart where Hugging Face has a tensor for each."""
    if name.count("{}") < 2:
        yield 0, tensor
        return
    if len(tensor.shape) != 3:
        raise FormatError(tensor.name, f"{tensor.shape} is no stack of experts")
    experts, rows, _ = tensor.shape
    for expert in range(experts):
        yield expert, tensor.taking_rows(np.arange(expert * rows, (expert + 1) * rows))
