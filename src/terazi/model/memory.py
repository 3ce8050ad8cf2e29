"""How much memory a model needs while it runs in llama.cpp: weights, KV cache, working buffers."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from terazi.model.model import Config

__all__ = ["MemoryNeed", "kv_cache_bytes", "kv_cache_layers", "memory_needed"]

_F16 = 2
_BATCH = 512  # llama.cpp's default physical batch (n_ubatch)
_CELLS = 256  # cache sizes are padded to this many tokens

# Of layers with sliding windows, every n-th sees the whole context: llama.cpp's default where the file does
# not say (src/models/*.cpp, load_swa_pattern). Architectures that are not here have no window in llama.cpp.
_WHOLE_EVERY = {
    "afmoe": 4,
    "cohere2": 4,
    "exaone-moe": 4,
    "exaone4": 4,
    "gemma-embedding": 6,
    "gemma2": 2,
    "gemma3": 6,
    "gemma3n": 5,
    "gpt-oss": 2,
    "mellum": 4,
    "olmo2": 4,
    "plamo3": 8,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeed:
    """Estimated bytes. ``weights`` is the file's tensors, ``compute`` the buffers of one batch."""

    weights: int
    kv_cache: int
    compute: int

    @property
    def total(self) -> int:
        """Bytes in all, without the engine's own code (some 60-100 MB)."""
        return self.weights + self.kv_cache + self.compute


def memory_needed(weights: int, config: Config, context: int, *, value_bytes: float = _F16) -> MemoryNeed:
    """Estimate the memory for ``weights`` bytes of tensors at ``context`` tokens, one conversation.

    ``value_bytes`` is the size of one cached number (2 for F16, 1.0625 for Q8_0). The compute buffer is a fit
    to what llama.cpp allocates for one batch: three feed-forward and five residual rows of float32 per token,
    the F16 attention mask, and logits of one token. It was within 1 % of the buffers of SmolLM2-135M, a 9 M
    Llama and a two-layer Qwen3; encoders need less.
    """
    rows = 3 * config.feed_forward_length + 5 * config.embedding_length
    batch = min(_BATCH, context)
    compute = batch * (4 * rows + _F16 * _padded(context)) + 4 * config.vocabulary_size
    return MemoryNeed(
        weights=weights,
        kv_cache=kv_cache_bytes(config, context, value_bytes=value_bytes),
        compute=compute,
    )


def kv_cache_bytes(config: Config, context: int, *, value_bytes: float = _F16) -> int:
    """Return the bytes that llama.cpp allocates for keys and values of ``context`` tokens."""
    return int(sum(kv_cache_layers(config, context, value_bytes=value_bytes)))


def kv_cache_layers(config: Config, context: int, *, value_bytes: float = _F16) -> tuple[float, ...]:
    """Return the bytes of the cache per layer, in order.

    Layers with a sliding window hold the window and one batch. Encoders keep no cache. Recurrent state, a few
    MB whatever the context, is not counted.
    """
    if config.values.get("attention.causal") is False or "bert" in config.architecture:
        return (0.0,) * config.block_count
    compressed = "attention.key_length_mla" in config.values  # values are read out of the keys
    width = config.key_length + (0 if compressed else config.value_length)
    whole = _padded(context)
    windowed = min(whole, _padded(config.sliding_window + _BATCH))
    cached = (*_cached_heads(config), *(0 for _ in range(config.block_count)))
    return tuple(
        heads * (whole if sees_all else windowed) * width * value_bytes
        for heads, sees_all in zip(cached, _sees_all(config), strict=False)
    )


def _cached_heads(config: Config) -> tuple[int, ...]:
    """Key/value heads per layer, without the last layers where those reuse an earlier cache (Gemma 3n)."""
    shared = _whole_number(config.values.get("attention.shared_kv_layers"))
    return config.head_counts_kv[: max(config.block_count - shared, 0)]


def _sees_all(config: Config) -> list[bool]:
    """Whether each layer attends to the whole context."""
    layers = range(config.block_count)
    pattern = config.values.get("attention.sliding_window_pattern", _WHOLE_EVERY.get(config.architecture))
    if not config.sliding_window or pattern is None:
        return [True for _ in layers]
    if hasattr(pattern, "__len__"):
        return [layer >= len(pattern) or not pattern[layer] for layer in layers]
    period = _whole_number(pattern)
    return [period > 0 and layer % period == period - 1 for layer in layers]


def _whole_number(value: Any) -> int:
    """Metadata is untrusted: what is no whole number counts as 0."""
    return int(value) if isinstance(value, Integral) else 0


def _padded(tokens: int) -> int:
    return -(-tokens // _CELLS) * _CELLS
