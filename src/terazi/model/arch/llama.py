"""Llama and what is built like it: Mistral, Mixtral, Ministral 3, SmolLM3 and the text part of SmolVLM."""

from __future__ import annotations

from terazi.model.arch.change import interleaved
from terazi.model.arch.decoder import PARAMETERS, TENSORS
from terazi.model.arch.rope import frequencies, rope_value
from terazi.model.arch.table import Architecture, Back, To, integer

__all__ = ["ARCHITECTURES", "PAIRED"]

PAIRED = {
    "layers.{}.self_attn.q_proj": To("blk.{}.attn_q", interleaved("num_attention_heads")),
    "layers.{}.self_attn.k_proj": To(
        "blk.{}.attn_k", interleaved("num_key_value_heads", "num_attention_heads")
    ),
}
"""Queries and keys for graphs that rotate neighbouring pairs (ggml's NORM rope)."""

MIXTRAL = {
    "layers.{}.block_sparse_moe.gate": "blk.{}.ffn_gate_inp",
    "layers.{}.block_sparse_moe.experts.{}.w1": "blk.{}.ffn_gate_exps",
    "layers.{}.block_sparse_moe.experts.{}.w2": "blk.{}.ffn_down_exps",
    "layers.{}.block_sparse_moe.experts.{}.w3": "blk.{}.ffn_up_exps",
}

ARCHITECTURES = (
    Architecture(
        name="llama",
        classes=(
            "LlamaForCausalLM",
            "LlamaModel",
            "MistralForCausalLM",
            "SmolVLMForConditionalGeneration",
            "Idefics3ForConditionalGeneration",
        ),
        back=Back("llama"),
        parameters=PARAMETERS,
        tensors=TENSORS | PAIRED,
        extra=frequencies,
        expects={"hidden_act": ("silu",)},
    ),
    Architecture(
        name="llama",
        classes=("MixtralForCausalLM",),
        back=Back("mixtral"),
        parameters=PARAMETERS
        | {
            "expert_count": integer("num_local_experts"),
            "expert_used_count": integer("num_experts_per_tok"),
        },
        tensors=TENSORS | MIXTRAL | PAIRED,
        expects={"hidden_act": ("silu",)},
    ),
    Architecture(
        name="mistral3",
        classes=("Ministral3ForCausalLM", "Mistral3ForConditionalGeneration"),
        parameters=PARAMETERS
        | {
            "rope.scaling.yarn_log_multiplier": rope_value("mscale_all_dim"),
            "attention.temperature_scale": rope_value("llama_4_scaling_beta"),
        },
        tensors=TENSORS | PAIRED,
        expects={"hidden_act": ("silu",)},
    ),
    Architecture(
        name="smollm3",
        classes=("SmolLM3ForCausalLM",),
        back=Back("smollm3"),
        parameters=PARAMETERS,
        tensors=TENSORS | PAIRED,
        extra=frequencies,
        expects={"hidden_act": ("silu",), "no_rope_layer_interval": (4,), "use_sliding_window": (False,)},
    ),
)
