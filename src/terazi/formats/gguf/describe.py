"""What GGUF metadata says about a model: configuration, tokenizer, variant."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from terazi.errors import FormatError
from terazi.model import Config, Tokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from terazi.model import Tensor
    from terazi.model.model import Variant

__all__ = ["describe"]

_MAX_LAYERS = 1 << 16
_INSTRUCT = re.compile(r"(?i)\b(instruct|chat|it|conversational|assistant)\b")
_SPECIAL = re.compile(r"tokenizer\.ggml\.(\w+)_token_id$")


def describe(
    path: Path, metadata: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> tuple[Config, Tokenizer | None, Variant]:
    """Read the ``general.*``, ``<architecture>.*`` and ``tokenizer.*`` keys. Raises `FormatError`."""
    keys = _Keys(path, metadata)
    if "general.architecture" not in metadata:
        kind = metadata.get("general.type", "something else")
        raise FormatError(path, f"holds no model (no general.architecture; it is {str(kind)[:40]!r})")
    architecture = keys.text("general.architecture")
    tokenizer = _tokenizer(keys)
    config = _config(keys, architecture, tokenizer, tensors)
    return config, tokenizer, _variant(keys, architecture, tokenizer)


class _Keys:
    """Typed access to metadata; a value of the wrong type is an error that names its key."""

    def __init__(self, path: Path, metadata: Mapping[str, Any]) -> None:
        self.path = path
        self.metadata = metadata

    def text(self, key: str) -> str:
        value = self.metadata.get(key, "")
        if not isinstance(value, str):
            raise FormatError(self.path, f"{key} is not text")
        return value

    def texts(self, key: str) -> list[str]:
        value = self.metadata.get(key, [])
        return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []

    def number(self, key: str, default: int = 0) -> int:
        value = self.metadata.get(key, default)
        if isinstance(value, np.ndarray) and value.dtype.kind in "iu" and value.size:
            value = value.max()
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
            raise FormatError(self.path, f"{key} is not a positive whole number")
        return int(value)

    def per_layer(self, key: str, layers: int, default: int) -> tuple[int, ...]:
        value = self.metadata.get(key)
        if isinstance(value, np.ndarray):
            if value.dtype.kind not in "iu" or value.size < layers or (value < 0).any():
                raise FormatError(self.path, f"{key} is not one whole number for each of {layers} layers")
            return tuple(value[:layers].tolist())
        return (self.number(key, default),) * layers


def _config(
    keys: _Keys, architecture: str, tokenizer: Tokenizer | None, tensors: Mapping[str, Tensor]
) -> Config:
    prefix = f"{architecture}."
    layers = keys.number(prefix + "block_count")
    if layers > _MAX_LAYERS:
        raise FormatError(keys.path, f"{prefix}block_count is {layers}: no model has so many layers")
    width = keys.number(prefix + "embedding_length")
    heads = keys.number(prefix + "attention.head_count")
    head_size = width // heads if heads else 0
    embedding = tensors.get("token_embd.weight")
    vocabulary = tokenizer.vocabulary_size if tokenizer else 0
    return Config(
        architecture=architecture,
        context_length=keys.number(prefix + "context_length"),
        embedding_length=width,
        block_count=layers,
        head_count=heads,
        head_counts_kv=keys.per_layer(prefix + "attention.head_count_kv", layers, heads),
        key_length=keys.number(prefix + "attention.key_length", head_size),
        value_length=keys.number(prefix + "attention.value_length", head_size),
        feed_forward_length=keys.number(prefix + "feed_forward_length"),
        vocabulary_size=embedding.row_count if embedding else vocabulary,
        expert_count=keys.number(prefix + "expert_count"),
        experts_used=keys.number(prefix + "expert_used_count"),
        sliding_window=keys.number(prefix + "attention.sliding_window"),
        values={
            key.removeprefix(prefix): value for key, value in keys.metadata.items() if key.startswith(prefix)
        },
    )


def _tokenizer(keys: _Keys) -> Tokenizer | None:
    kind = keys.text("tokenizer.ggml.model")
    if not kind:
        return None
    special = {found[1]: keys.number(key) for key in keys.metadata if (found := _SPECIAL.match(key))}
    return Tokenizer(
        kind=kind,
        vocabulary_size=len(keys.texts("tokenizer.ggml.tokens")),
        pre=keys.text("tokenizer.ggml.pre") or None,
        chat_template=keys.text("tokenizer.chat_template") or None,
        special=special,
    )


def _variant(keys: _Keys, architecture: str, tokenizer: Tokenizer | None) -> Variant:
    if keys.number(f"{architecture}.pooling_type") or "bert" in architecture:
        return "embedding"
    words = " ".join([keys.text("general.finetune"), keys.text("general.name"), *keys.texts("general.tags")])
    if (tokenizer and tokenizer.chat_template) or _INSTRUCT.search(words.replace("_", " ")):
        return "instruct"
    return "base" if tokenizer else "unknown"
