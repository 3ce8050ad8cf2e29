"""OLMo 1, 2, 3 and OLMoE."""

from __future__ import annotations

from terazi.model.arch.decoder import EXPERTS, PARAMETERS, TENSORS
from terazi.model.arch.llama import PAIRED
from terazi.model.arch.qwen import QUERY_KEY_NORMS
from terazi.model.arch.table import Architecture, Back, constant, integer, layers_of_kind, real

__all__ = ["ARCHITECTURES"]

ARCHITECTURES = (
    Architecture(
        name="olmo",
        classes=("OlmoForCausalLM",),
        back=Back("olmo"),
        parameters=PARAMETERS
        | {
            "attention.layer_norm_epsilon": constant(real("", default=1e-5)({})),
            "attention.clamp_kqv": real("clip_qkv"),
        },
        tensors=TENSORS | PAIRED,
        expects={"hidden_act": ("silu",)},
    ),
    Architecture(
        name="olmo2",
        classes=("Olmo2ForCausalLM", "Olmo3ForCausalLM"),
        back=Back("olmo2"),
        parameters=PARAMETERS
        | {
            "attention.sliding_window": integer("sliding_window", optional=True),
            "attention.sliding_window_pattern": layers_of_kind("sliding_attention"),
        },
        tensors=TENSORS
        | QUERY_KEY_NORMS
        | {
            "layers.{}.post_attention_layernorm": "blk.{}.post_attention_norm",
            "layers.{}.post_feedforward_layernorm": "blk.{}.post_ffw_norm",
        },
        expects={"hidden_act": ("silu",)},
    ),
    Architecture(
        name="olmoe",
        classes=("OlmoeForCausalLM",),
        back=Back("olmoe"),
        parameters=PARAMETERS
        | {
            "expert_count": integer("num_experts", "num_local_experts"),
            "expert_used_count": integer("num_experts_per_tok"),
        },
        tensors=TENSORS | EXPERTS | QUERY_KEY_NORMS,
        expects={"hidden_act": ("silu",), "norm_topk_prob": (False,)},
    ),
)
