"""Gemma 4 (text), dense and mixture of experts.

Every sixth layer has wide heads with few rotated dimensions; small models have embeddings per layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from terazi.errors import FormatError
from terazi.model.arch.decoder import TENSORS
from terazi.model.arch.gemma import GELU, PER_LAYER, THIRD
from terazi.model.arch.qwen import QUERY_KEY_NORMS
from terazi.model.arch.rope import rope
from terazi.model.arch.table import Architecture, Settings, constant, integer, layers_of_kind
from terazi.model.tensor import Tensor

__all__ = ["ARCHITECTURES"]


def _global(settings: Settings, name: str, old: str) -> Any:
    """A setting of the full-attention layers: per layer in newer files, under a name of its own before."""
    layers = settings.get("per_layer_config")
    entries = layers.values() if isinstance(layers, dict) else ()
    found = next((entry[name] for entry in entries if isinstance(entry, dict) and name in entry), None)
    return settings.get(old) if found is None else found


def _global_head(settings: Settings) -> np.uint32:
    size = _global(settings, "head_dim", "global_head_dim")
    return integer("global_head_dim", default=512)({"global_head_dim": size})


def _heads_kv(settings: Settings) -> np.ndarray | np.uint32:
    usual = integer("num_key_value_heads", default=4)(settings)
    wide = _global(settings, "num_key_value_heads", "num_global_key_value_heads")
    if wide is None:
        return usual
    windows = layers_of_kind("sliding_attention")(settings)
    count = integer("num_global_key_value_heads")({"num_global_key_value_heads": wide})
    return np.where(windows, usual, count).astype(np.uint32)


def _feed_forward(settings: Settings) -> np.ndarray | np.uint32:
    """One width, or twice as much in the layers that share keys and values."""
    width = integer("intermediate_size")(settings)
    if not settings.get("use_double_wide_mlp"):
        return width
    layers = int(integer("num_hidden_layers")(settings))
    shared = int(integer("num_kv_shared_layers", default=0)(settings))
    return np.where(np.arange(layers) < layers - shared, width, 2 * width).astype(np.uint32)


def _unrotated(settings: Settings) -> Iterator[Tensor]:
    """Yield factors that stop the dimensions beyond the rotated share (read for full attention only)."""
    fraction = rope(settings)["partial_rotary_factor"]
    half = int(_global_head(settings)) // 2
    turned = int(half * (0.25 if fraction is None else fraction))
    if not 0 < turned <= half:
        raise FormatError("config.json", f"partial_rotary_factor is {str(fraction)[:40]}")
    factors = np.where(np.arange(half) < turned, 1.0, 1e30).astype(np.float32)
    yield Tensor.from_array("rope_freqs.weight", factors)


EXPERTS = {
    "layers.{}.router.proj": "blk.{}.ffn_gate_inp",
    "layers.{}.router.scale": "blk.{}.ffn_gate_inp.scale",
    "layers.{}.router.per_expert_scale": "blk.{}.ffn_down_exps.scale",
    "layers.{}.experts.gate_up_proj": "blk.{}.ffn_gate_up_exps.weight",
    "layers.{}.experts.down_proj": "blk.{}.ffn_down_exps.weight",
    "layers.{}.post_feedforward_layernorm_1": "blk.{}.post_ffw_norm_1",
    "layers.{}.pre_feedforward_layernorm_2": "blk.{}.pre_ffw_norm_2",
    "layers.{}.post_feedforward_layernorm_2": "blk.{}.post_ffw_norm_2",
}
"""Beside the dense feed-forward, in the mixture of experts."""

ARCHITECTURES = (
    Architecture(
        name="gemma4",
        classes=("Gemma4ForCausalLM", "Gemma4ForConditionalGeneration"),
        parameters=THIRD
        | {
            "feed_forward_length": _feed_forward,
            "attention.head_count_kv": _heads_kv,
            "attention.key_length": _global_head,
            "attention.value_length": _global_head,
            "attention.key_length_swa": integer("head_dim", default=256),
            "attention.value_length_swa": integer("head_dim", default=256),
            "attention.sliding_window": integer("sliding_window", default=512),
            "attention.shared_kv_layers": integer("num_kv_shared_layers", default=0),
            "expert_count": integer("num_experts", optional=True),
            "expert_used_count": integer("top_k_experts", optional=True),
            "expert_feed_forward_length": integer("moe_intermediate_size", optional=True),
            "embedding_length_per_layer_input": integer("hidden_size_per_layer_input", default=0),
            "rope.dimension_count": _global_head,
            "rope.dimension_count_swa": integer("head_dim", default=256),
            **dict.fromkeys([key for key in THIRD if key.startswith("rope.scaling")], constant(None)),
        },
        tensors=TENSORS
        | QUERY_KEY_NORMS
        | PER_LAYER
        | EXPERTS
        | {
            "layers.{}.layer_scalar": "blk.{}.layer_output_scale.weight",
        },
        extra=_unrotated,
        expects=GELU | {"use_bidirectional_attention": ("vision",)},
    ),
)
