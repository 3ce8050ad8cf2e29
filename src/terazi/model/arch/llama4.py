"""Llama 4 (text): mixtures of experts, three layers of chunked attention to one of full attention."""

from __future__ import annotations

from terazi.model.arch.change import chain, part, swapped
from terazi.model.arch.decoder import ATTENTION, HEAD, PARAMETERS
from terazi.model.arch.rope import frequencies
from terazi.model.arch.table import Architecture, To, integer

__all__ = ["ARCHITECTURES"]

ARCHITECTURES = (
    Architecture(
        name="llama4",
        classes=("Llama4ForCausalLM", "Llama4ForConditionalGeneration"),
        parameters=PARAMETERS
        | {
            "feed_forward_length": integer("intermediate_size_mlp", default=16384),
            "expert_count": integer("num_local_experts", default=16),
            "expert_used_count": integer("num_experts_per_tok", default=1),
            "expert_feed_forward_length": integer("intermediate_size"),
            "interleave_moe_layer_step": integer("interleave_moe_layer_step", default=1),
        },
        tensors=HEAD
        | ATTENTION
        | {
            "layers.{}.post_attention_layernorm": "blk.{}.ffn_norm",
            "layers.{}.feed_forward.gate_proj": "blk.{}.ffn_gate",
            "layers.{}.feed_forward.up_proj": "blk.{}.ffn_up",
            "layers.{}.feed_forward.down_proj": "blk.{}.ffn_down",
            "layers.{}.feed_forward.router": "blk.{}.ffn_gate_inp",
            "layers.{}.feed_forward.shared_expert.gate_proj": "blk.{}.ffn_gate_shexp",
            "layers.{}.feed_forward.shared_expert.up_proj": "blk.{}.ffn_up_shexp",
            "layers.{}.feed_forward.shared_expert.down_proj": "blk.{}.ffn_down_shexp",
            "layers.{}.feed_forward.experts.gate_up_proj": (
                To("blk.{}.ffn_gate_exps.weight", chain(swapped, part(0, 2, axis=1))),
                To("blk.{}.ffn_up_exps.weight", chain(swapped, part(1, 2, axis=1))),
            ),
            "layers.{}.feed_forward.experts.down_proj": To("blk.{}.ffn_down_exps.weight", swapped),
        },
        extra=frequencies,
        expects={
            "hidden_act": ("silu",),
            "attention_chunk_size": (8192,),
            "no_rope_layer_interval": (4,),
            "floor_scale": (8192,),
            "attn_scale": (0.1,),
            "attn_temperature_tuning": (True, 4),
        },
    ),
)
