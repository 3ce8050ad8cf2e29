"""Qwen 2, 2.5 and 3, dense and mixtures of experts, and Seed-OSS."""

from __future__ import annotations

from terazi.model.arch.decoder import EXPERTS, PARAMETERS, SHARED_EXPERT, TENSORS
from terazi.model.arch.table import Architecture, Back, Settings, integer

__all__ = ["ARCHITECTURES", "QUERY_KEY_NORMS", "SILU"]

QUERY_KEY_NORMS = {
    "layers.{}.self_attn.q_norm": "blk.{}.attn_q_norm",
    "layers.{}.self_attn.k_norm": "blk.{}.attn_k_norm",
}

MIXTURE = PARAMETERS | {
    "expert_count": integer("num_experts", "num_local_experts"),
    "expert_used_count": integer("num_experts_per_tok"),
    "expert_feed_forward_length": integer("moe_intermediate_size"),
}

SILU = {"hidden_act": ("silu",), "use_sliding_window": (False,)}


def _sparse(found: Settings) -> Settings:
    return {"decoder_sparse_step": 1, "norm_topk_prob": True}


ARCHITECTURES = (
    Architecture(
        name="qwen2",
        classes=("Qwen2ForCausalLM", "Qwen2Model"),
        back=Back("qwen2"),
        parameters=PARAMETERS,
        tensors=TENSORS,
        expects=SILU,
    ),
    Architecture(
        name="qwen3",
        classes=("Qwen3ForCausalLM", "Qwen3Model"),
        back=Back("qwen3"),
        parameters=PARAMETERS,
        tensors=TENSORS | QUERY_KEY_NORMS,
        expects=SILU,
    ),
    Architecture(
        name="seed_oss",
        classes=("SeedOssForCausalLM",),
        back=Back("seed_oss"),
        parameters=PARAMETERS,
        tensors=TENSORS | {"layers.{}.post_attention_layernorm": "blk.{}.post_attention_norm"},
        expects={"hidden_act": ("silu",), "attention_out_bias": (False,), "mlp_bias": (False,)},
    ),
    Architecture(
        name="qwen2moe",
        classes=("Qwen2MoeForCausalLM",),
        back=Back("qwen2_moe", settings=lambda found: {"decoder_sparse_step": 1}),
        parameters=MIXTURE
        | {"expert_shared_feed_forward_length": integer("shared_expert_intermediate_size")},
        tensors=TENSORS | EXPERTS | SHARED_EXPERT,
        expects=SILU | {"norm_topk_prob": (False,)},
    ),
    Architecture(
        name="qwen3moe",
        classes=("Qwen3MoeForCausalLM",),
        back=Back("qwen3_moe", settings=_sparse),
        parameters=MIXTURE,
        tensors=TENSORS | EXPERTS | QUERY_KEY_NORMS,
        expects=SILU | {"norm_topk_prob": (True,)},
    ),
)
