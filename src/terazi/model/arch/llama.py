"""Llama and what shares its graph: Mistral and Mixtral."""

from __future__ import annotations

from terazi.model.arch.change import interleaved
from terazi.model.arch.decoder import EXPERTS, PARAMETERS, TENSORS
from terazi.model.arch.rope import frequencies
from terazi.model.arch.table import Architecture, To, integer

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
        classes=("LlamaForCausalLM", "LlamaModel", "MistralForCausalLM", "MixtralForCausalLM"),
        parameters=PARAMETERS
        | {
            "expert_count": integer("num_local_experts", optional=True),
            "expert_used_count": integer("num_experts_per_tok", optional=True),
        },
        tensors=TENSORS | EXPERTS | MIXTRAL | PAIRED,
        extra=frequencies,
    ),
)
