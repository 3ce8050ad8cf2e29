"""gpt-oss: mixtures of experts with attention sinks, every other layer with a sliding window."""

from __future__ import annotations

from terazi.model.arch.change import chain, part, swapped
from terazi.model.arch.decoder import ATTENTION, HEAD, PARAMETERS
from terazi.model.arch.table import Architecture, To, integer, layers_of_kind

__all__ = ["ARCHITECTURES"]

EXPERTS = {
    "layers.{}.mlp.router": "blk.{}.ffn_gate_inp",
    "layers.{}.mlp.experts.gate_up_proj": (
        To("blk.{}.ffn_gate_exps.weight", chain(swapped, part(0, 2, axis=1, alternating=True))),
        To("blk.{}.ffn_up_exps.weight", chain(swapped, part(1, 2, axis=1, alternating=True))),
    ),
    "layers.{}.mlp.experts.gate_up_proj_bias": (
        To("blk.{}.ffn_gate_exps.bias", part(0, 2, axis=1, alternating=True)),
        To("blk.{}.ffn_up_exps.bias", part(1, 2, axis=1, alternating=True)),
    ),
    "layers.{}.mlp.experts.down_proj": To("blk.{}.ffn_down_exps.weight", swapped),
    "layers.{}.mlp.experts.down_proj_bias": "blk.{}.ffn_down_exps.bias",
}

PACKED_EXPERTS = {
    "layers.{}.mlp.experts.gate_up_proj_blocks": (
        To("blk.{}.ffn_gate_exps.weight", part(0, 2, axis=1, alternating=True)),
        To("blk.{}.ffn_up_exps.weight", part(1, 2, axis=1, alternating=True)),
    ),
    "layers.{}.mlp.experts.down_proj_blocks": "blk.{}.ffn_down_exps.weight",
}
"""Experts in MXFP4, which lie as ggml wants them."""

ARCHITECTURES = (
    Architecture(
        name="gpt-oss",
        classes=("GptOssForCausalLM",),
        parameters=PARAMETERS
        | {
            "attention.sliding_window": integer("sliding_window", default=128),
            "attention.sliding_window_pattern": layers_of_kind("sliding_attention"),
            "expert_count": integer("num_local_experts"),
            "expert_used_count": integer("num_experts_per_tok"),
            "expert_feed_forward_length": integer("intermediate_size"),
        },
        tensors=HEAD
        | ATTENTION
        | EXPERTS
        | PACKED_EXPERTS
        | {
            "layers.{}.post_attention_layernorm": "blk.{}.post_attention_norm",
            "layers.{}.self_attn.sinks": "blk.{}.attn_sinks.weight",
        },
        expects={"hidden_act": ("silu",), "swiglu_limit": (7.0,)},
    ),
)
