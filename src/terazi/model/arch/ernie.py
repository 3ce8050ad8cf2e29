"""ERNIE 4.5, dense and mixtures of experts."""

from __future__ import annotations

import numpy as np

from terazi.errors import UnsupportedError
from terazi.model.arch.change import part, shaped
from terazi.model.arch.decoder import EXPERTS, PARAMETERS, TENSORS
from terazi.model.arch.table import Architecture, Back, Settings, To, integer

__all__ = ["ARCHITECTURES"]


def _shared(settings: Settings) -> np.uint32 | None:
    count = int(integer("moe_num_shared_experts", default=0)(settings))
    return np.uint32(count * int(integer("moe_intermediate_size")(settings))) if count else None


def _step(settings: Settings) -> np.uint32:
    """Which layers have experts, all to the last one in llama.cpp's graph."""
    last, layers = settings.get("moe_layer_end_index"), settings.get("num_hidden_layers")
    if last not in (None, -1) and last != (layers or 0) - 1:
        raise UnsupportedError(f"experts up to layer {str(last)[:40]} of {layers} do not run in llama.cpp")
    return integer("moe_layer_interval", default=1)(settings)


ARCHITECTURES = (
    Architecture(
        name="ernie4_5",
        classes=("Ernie4_5ForCausalLM", "Ernie4_5_ForCausalLM"),
        back=Back("ernie4_5"),
        parameters=PARAMETERS,
        tensors=TENSORS,
        expects={"hidden_act": ("silu",), "use_bias": (False,)},
    ),
    Architecture(
        name="ernie4_5-moe",
        classes=("Ernie4_5_MoeForCausalLM",),
        parameters=PARAMETERS
        | {
            "expert_count": integer("moe_num_experts", "num_experts"),
            "expert_used_count": integer("moe_k", "num_experts_per_tok"),
            "expert_feed_forward_length": integer("moe_intermediate_size"),
            "expert_shared_feed_forward_length": _shared,
            "interleave_moe_layer_step": _step,
            "leading_dense_block_count": integer("moe_layer_start_index", default=1),
        },
        tensors=TENSORS
        | EXPERTS
        | {
            "layers.{}.mlp.experts.gate_up_proj": (
                To("blk.{}.ffn_gate_exps.weight", part(0, 2, axis=1)),
                To("blk.{}.ffn_up_exps.weight", part(1, 2, axis=1)),
            ),
            "layers.{}.mlp.experts.down_proj": "blk.{}.ffn_down_exps.weight",
            "layers.{}.mlp.moe_statics.e_score_correction_bias": To("blk.{}.exp_probs_b.bias", shaped(-1)),
            "layers.{}.mlp.shared_experts.gate_proj": "blk.{}.ffn_gate_shexp",
            "layers.{}.mlp.shared_experts.up_proj": "blk.{}.ffn_up_shexp",
            "layers.{}.mlp.shared_experts.down_proj": "blk.{}.ffn_down_shexp",
        },
        ignored=("mtp_block.", "mtp_emb_norm.", "mtp_hidden_norm.", "mtp_linear_proj."),
        expects={"hidden_act": ("silu",), "use_bias": (False,)},
    ),
)
