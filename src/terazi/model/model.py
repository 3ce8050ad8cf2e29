"""An opened checkpoint: configuration, licence, variant, tokenizer, chat template and lazy tensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from terazi.model.tensor import Tensor

__all__ = ["Config", "Model", "Tokenizer", "Variant"]

Variant = Literal["base", "instruct", "embedding", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Hyperparameters under GGUF's names, whatever the source calls them.

    ``architecture`` is GGUF's (``llama``, ``qwen3``, ``bert``). ``head_counts_kv`` has one entry per layer,
    so that hybrids (0 = no attention there) and layer-wise grouped queries are exact. ``values`` keeps the
    other ``<architecture>.*`` keys by their short names, such as ``rope.freq_base``.
    """

    architecture: str
    context_length: int
    embedding_length: int
    block_count: int
    head_count: int
    head_counts_kv: tuple[int, ...]
    key_length: int
    value_length: int
    feed_forward_length: int
    vocabulary_size: int
    expert_count: int = 0
    experts_used: int = 0
    sliding_window: int = 0
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenizer:
    """What a checkpoint says of its tokenizer.

    ``kind`` is GGUF's word: ``gpt2`` (byte-level BPE), ``llama`` (SentencePiece), ``bert`` (WordPiece).
    """

    kind: str
    vocabulary_size: int
    pre: str | None = None
    chat_template: str | None = None
    special: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """An opened checkpoint in any format. Nothing but headers has been read.

    ``metadata`` holds the source's own keys (GGUF key/values, or ``config.json``); ``tensors`` keeps the
    source's names and order.
    """

    path: Path
    format: Literal["gguf", "huggingface", "onnx", "mlx"]
    files: tuple[Path, ...]
    name: str
    config: Config
    tokenizer: Tokenizer | None
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, Any]
    license: str | None = None
    variant: Variant = "unknown"

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(tensor.size for tensor in self.tensors.values())

    @property
    def nbytes(self) -> int:
        """Bytes of all weights as stored."""
        return sum(tensor.stored_bytes for tensor in self.tensors.values())

    @property
    def bits_per_weight(self) -> float:
        """Average stored bits per weight."""
        return self.nbytes * 8 / max(self.parameters, 1)
