"""Granite 3 and MiniCPM: Llama with scaled embeddings, residuals, attention and logits."""

from __future__ import annotations

import numpy as np

from terazi.errors import FormatError
from terazi.model.arch.change import part
from terazi.model.arch.decoder import PARAMETERS, TENSORS
from terazi.model.arch.llama import PAIRED
from terazi.model.arch.phi import long_factors
from terazi.model.arch.table import Architecture, Settings, To, integer, real

__all__ = ["ARCHITECTURES", "SCALES", "SHARED_HALVES"]

SCALES = {
    "attention.scale": real("attention_multiplier"),
    "embedding_scale": real("embedding_multiplier"),
    "residual_scale": real("residual_multiplier"),
    "logit_scale": real("logits_scaling", default=1.0),
}

EXPERT_HALVES = {
    "layers.{}.block_sparse_moe.router.layer": "blk.{}.ffn_gate_inp",
    "layers.{}.block_sparse_moe.input_linear": (
        To("blk.{}.ffn_gate_exps", part(0, 2, axis=1)),
        To("blk.{}.ffn_up_exps", part(1, 2, axis=1)),
    ),
    "layers.{}.block_sparse_moe.output_linear": "blk.{}.ffn_down_exps",
}

SHARED_HALVES = {
    "layers.{}.shared_mlp.input_linear": (
        To("blk.{}.ffn_gate_shexp", part(0, 2)),
        To("blk.{}.ffn_up_shexp", part(1, 2)),
    ),
    "layers.{}.shared_mlp.output_linear": "blk.{}.ffn_down_shexp",
}


def _depth_scale(settings: Settings) -> np.float32:
    return np.float32(real("scale_depth", default=1.0)(settings) / settings["num_hidden_layers"] ** 0.5)


def _width_scale(settings: Settings) -> np.float32:
    base = settings.get("dim_model_base")
    if not isinstance(base, int) or base <= 0:
        raise FormatError("config.json", "has no dim_model_base")
    return np.float32(settings["hidden_size"] / base)


ARCHITECTURES = (
    Architecture(
        name="granite",
        classes=("GraniteForCausalLM",),
        parameters=PARAMETERS | SCALES,
        tensors=TENSORS | PAIRED,
        expects={"hidden_act": ("silu",)},
    ),
    Architecture(
        name="granitemoe",
        classes=("GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM"),
        parameters=PARAMETERS
        | SCALES
        | {
            "expert_count": integer("num_local_experts"),
            "expert_used_count": integer("num_experts_per_tok"),
            "expert_shared_feed_forward_length": integer("shared_intermediate_size", optional=True),
        },
        tensors=TENSORS | PAIRED | EXPERT_HALVES | SHARED_HALVES,
        expects={"hidden_act": ("silu",)},
    ),
    Architecture(
        name="minicpm",
        classes=("MiniCPMForCausalLM",),
        parameters=PARAMETERS
        | {
            "embedding_scale": real("scale_emb", default=1.0),
            "residual_scale": _depth_scale,
            "logit_scale": _width_scale,
        },
        tensors=TENSORS | PAIRED,
        extra=long_factors,
        expects={"hidden_act": ("silu",)},
    ),
)
