"""BERT's forward pass in MLX, under the names that Hugging Face gives its weights.

Layout of the network: Devlin et al. 2018, https://arxiv.org/abs/1810.04805. mlx-lm has no encoders, and
mlx-embeddings, which loads the same directories, brings packages for vision and audio with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlx.core
import mlx.nn

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Bert"]

mx: Any = mlx.core  # native modules without types
nn: Any = mlx.nn


class Bert(nn.Module):
    """The encoder that config.json describes, without its pooler, which embeddings do not use.

    Raises `KeyError`, `TypeError` or `ValueError` for settings that describe no BERT.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        if config.get("hidden_act", "gelu") != "gelu":
            raise ValueError(f"its activation is {config['hidden_act']!r}; only gelu is known")
        if config.get("position_embedding_type", "absolute") != "absolute":
            raise ValueError("its positions are relative; only absolute ones are known")
        self.embeddings = _Embeddings(config)
        self.encoder = _Encoder(config)

    def __call__(self, tokens: Any, mask: Any, types: Any) -> Any:
        """Return states [n, length, d] of tokens int32[n, length]; ``mask`` is 0 where they are padding."""
        states = self.embeddings(tokens, types)
        added = mx.where(mask[:, None, None, :] > 0, 0.0, -1e4).astype(states.dtype)
        for layer in self.encoder.layer:
            states = layer(states, added)
        return states


class _Embeddings(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width = config["hidden_size"]
        self.word_embeddings = nn.Embedding(config["vocab_size"], width)
        self.position_embeddings = nn.Embedding(config["max_position_embeddings"], width)
        self.token_type_embeddings = nn.Embedding(config.get("type_vocab_size", 2), width)
        self.LayerNorm = _norm(config)

    def __call__(self, tokens: Any, types: Any) -> Any:
        states = self.word_embeddings(tokens) + self.token_type_embeddings(types)
        return self.LayerNorm(states + self.position_embeddings(mx.arange(tokens.shape[1])))


class _Encoder(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.layer = [_Layer(config) for _ in range(config["num_hidden_layers"])]


class _Layer(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width, inner = config["hidden_size"], config["intermediate_size"]
        self.attention = _Attention(config)
        self.intermediate = _Dense(width, inner)
        self.output = _Output(inner, config)

    def __call__(self, states: Any, added: Any) -> Any:
        states = self.attention(states, added)
        return self.output(nn.gelu(self.intermediate.dense(states)), states)


class _Attention(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.self = _SelfAttention(config)
        self.output = _Output(config["hidden_size"], config)

    def __call__(self, states: Any, added: Any) -> Any:
        return self.output(self.self(states, added), states)


class _SelfAttention(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width = config["hidden_size"]
        self._heads = config["num_attention_heads"]
        if width % self._heads:
            raise ValueError(f"{self._heads} heads do not divide a width of {width}")
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def __call__(self, states: Any, added: Any) -> Any:
        count, length, width = states.shape
        size = width // self._heads

        def split(x: Any) -> Any:
            return x.reshape(count, length, self._heads, size).transpose(0, 2, 1, 3)

        parts = (split(part(states)) for part in (self.query, self.key, self.value))
        mixed = mx.fast.scaled_dot_product_attention(*parts, scale=size**-0.5, mask=added)
        return mixed.transpose(0, 2, 1, 3).reshape(count, length, width)


class _Dense(nn.Module):
    def __init__(self, columns: int, rows: int) -> None:
        super().__init__()
        self.dense = nn.Linear(columns, rows)


class _Output(nn.Module):
    """A linear layer, what came before added, and the norm."""

    def __init__(self, columns: int, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.dense = nn.Linear(columns, config["hidden_size"])
        self.LayerNorm = _norm(config)

    def __call__(self, states: Any, before: Any) -> Any:
        return self.LayerNorm(self.dense(states) + before)


def _norm(config: Mapping[str, Any]) -> Any:
    return nn.LayerNorm(config["hidden_size"], eps=config.get("layer_norm_eps", 1e-12))
