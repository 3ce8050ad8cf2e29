"""LFM2, dense and mixtures of experts: short convolutions with a few attention layers."""

from __future__ import annotations

import numpy as np

from terazi.model.arch.change import flat, part
from terazi.model.arch.decoder import PARAMETERS
from terazi.model.arch.table import Architecture, Settings, To, constant, integer, layers_of_kind, real

__all__ = ["ARCHITECTURES"]


def _heads_kv(settings: Settings) -> np.ndarray:
    """Key/value heads per layer: none where a convolution stands."""
    attention = layers_of_kind("full_attention")(settings)
    heads = int(integer("num_key_value_heads")(settings))
    layers = int(integer("num_hidden_layers")(settings))
    return np.where(np.ones(layers, bool) if attention is None else attention, heads, 0).astype(np.uint32)


def _feed_forward(settings: Settings) -> np.uint32:
    width = int(integer("block_ff_dim", "intermediate_size")(settings))
    if settings.get("block_auto_adjust_ff_dim"):
        width = int(2 * width / 3)
        if settings.get("block_ffn_dim_multiplier") is not None:
            width = int(settings["block_ffn_dim_multiplier"] * width)
        multiple = max(int(integer("block_multiple_of", default=256)(settings)), 1)
        width = -(-width // multiple) * multiple
    return np.uint32(width)


LAYERS = {
    "embed_tokens": "token_embd",
    "embedding_norm": "token_embd_norm",
    "lm_head": "output",
    "layers.{}.operator_norm": "blk.{}.attn_norm",
    "layers.{}.ffn_norm": "blk.{}.ffn_norm",
    "layers.{}.self_attn.q_proj": "blk.{}.attn_q",
    "layers.{}.self_attn.k_proj": "blk.{}.attn_k",
    "layers.{}.self_attn.v_proj": "blk.{}.attn_v",
    "layers.{}.self_attn.out_proj": "blk.{}.attn_output",
    "layers.{}.self_attn.q_layernorm": "blk.{}.attn_q_norm",
    "layers.{}.self_attn.k_layernorm": "blk.{}.attn_k_norm",
    "layers.{}.conv.conv": To("blk.{}.shortconv.conv", flat),
    "layers.{}.conv.in_proj": "blk.{}.shortconv.in_proj",
    "layers.{}.conv.out_proj": "blk.{}.shortconv.out_proj",
    "layers.{}.feed_forward.w1": "blk.{}.ffn_gate",
    "layers.{}.feed_forward.w2": "blk.{}.ffn_down",
    "layers.{}.feed_forward.w3": "blk.{}.ffn_up",
}

HYBRID = PARAMETERS | {
    "attention.head_count_kv": _heads_kv,
    "attention.layer_norm_rms_epsilon": real("norm_eps", default=1e-5),
    "shortconv.l_cache": integer("conv_L_cache"),
}

MIXTURE = {
    "layers.{}.feed_forward.gate": "blk.{}.ffn_gate_inp",
    "layers.{}.feed_forward.expert_bias": "blk.{}.exp_probs_b.bias",
    "layers.{}.feed_forward.experts.{}.w1": "blk.{}.ffn_gate_exps",
    "layers.{}.feed_forward.experts.{}.w2": "blk.{}.ffn_down_exps",
    "layers.{}.feed_forward.experts.{}.w3": "blk.{}.ffn_up_exps",
    "layers.{}.feed_forward.experts.gate_up_proj": (
        To("blk.{}.ffn_gate_exps.weight", part(0, 2, axis=1)),
        To("blk.{}.ffn_up_exps.weight", part(1, 2, axis=1)),
    ),
    "layers.{}.feed_forward.experts.down_proj": "blk.{}.ffn_down_exps.weight",
}

ARCHITECTURES = (
    Architecture(
        name="lfm2",
        classes=("Lfm2ForCausalLM", "Lfm2VlForConditionalGeneration"),
        parameters=HYBRID | {"feed_forward_length": _feed_forward},
        tensors=LAYERS,
        expects={"conv_bias": (False,)},
    ),
    Architecture(
        name="lfm2moe",
        classes=("Lfm2MoeForCausalLM",),
        parameters=HYBRID
        | {
            "expert_count": integer("num_experts"),
            "expert_used_count": integer("num_experts_per_tok"),
            "expert_feed_forward_length": integer("moe_intermediate_size"),
            "expert_gating_func": constant(np.uint32(2)),  # sigmoid
            "leading_dense_block_count": integer("num_dense_layers", default=0),
        },
        tensors=LAYERS | MIXTURE,
        expects={
            "conv_bias": (False,),
            "norm_topk_prob": (True,),
            "routed_scaling_factor": (1.0,),
            "use_expert_bias": (True,),
        },
    ),
)
