"""Granite 3 and 4 and MiniCPM: Llama with scaled embeddings, residuals, attention and logits."""

from __future__ import annotations

import numpy as np

from terazi.errors import FormatError
from terazi.model.arch.change import chain, flat, part, shaped
from terazi.model.arch.decoder import PARAMETERS, TENSORS
from terazi.model.arch.llama import PAIRED
from terazi.model.arch.mamba import decay, grouped
from terazi.model.arch.phi import long_factors
from terazi.model.arch.table import Architecture, Back, Settings, To, integer, layers_of_kind, real

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

DENSE_HALVES = {
    "layers.{}.shared_mlp.input_linear": (
        To("blk.{}.ffn_gate", part(0, 2)),
        To("blk.{}.ffn_up", part(1, 2)),
    ),
    "layers.{}.shared_mlp.output_linear": "blk.{}.ffn_down",
}

STATE_SPACE = {
    "layers.{}.mamba.in_proj": "blk.{}.ssm_in",
    "layers.{}.mamba.conv1d.weight": To("blk.{}.ssm_conv1d.weight", flat),
    "layers.{}.mamba.conv1d.bias": "blk.{}.ssm_conv1d.bias",
    "layers.{}.mamba.dt_bias": "blk.{}.ssm_dt.bias",
    "layers.{}.mamba.A_log": To("blk.{}.ssm_a", chain(decay, shaped(-1, 1))),
    "layers.{}.mamba.D": To("blk.{}.ssm_d", shaped(-1, 1)),
    "layers.{}.mamba.norm": To("blk.{}.ssm_norm", grouped("mamba_n_groups")),
    "layers.{}.mamba.out_proj": "blk.{}.ssm_out",
}


def _heads_kv(settings: Settings) -> np.ndarray | None:
    """Key/value heads per layer: none where a state space stands."""
    attention = layers_of_kind("attention", "full_attention")(settings)
    heads = int(integer("num_key_value_heads", "num_attention_heads")(settings))
    return None if attention is None else np.where(attention, heads, 0).astype(np.uint32)


def _inner(settings: Settings) -> np.uint32:
    return np.uint32(int(integer("mamba_expand")(settings)) * int(integer("hidden_size")(settings)))


def _rotary(settings: Settings) -> bool:
    return settings.get("position_embedding_type") == "rope"


HYBRID = (
    PARAMETERS
    | SCALES
    | {
        "attention.head_count_kv": _heads_kv,
        "rope.scaling.finetuned": _rotary,  # for Granite it says whether there is rope at all
        "ssm.conv_kernel": integer("mamba_d_conv"),
        "ssm.inner_size": _inner,
        "ssm.state_size": integer("mamba_d_state"),
        "ssm.time_step_rank": integer("mamba_n_heads"),
        "ssm.group_count": integer("mamba_n_groups", default=1),
    }
)


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
        back=Back("granite"),
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
        name="granitehybrid",
        classes=("GraniteMoeHybridForCausalLM",),
        parameters=HYBRID
        | {
            "expert_count": integer("num_local_experts"),
            "expert_used_count": integer("num_experts_per_tok"),
            "expert_shared_feed_forward_length": integer("shared_intermediate_size"),
        },
        tensors=TENSORS | PAIRED | EXPERT_HALVES | SHARED_HALVES | STATE_SPACE,
        full_precision=("ssm_a", "ssm_d", "ssm_norm"),
        when=lambda settings: bool(settings.get("num_local_experts")),
        expects={"hidden_act": ("silu",), "mamba_proj_bias": (False,)},
    ),
    Architecture(
        name="granitehybrid",
        classes=("GraniteMoeHybridForCausalLM",),
        parameters=HYBRID | {"feed_forward_length": integer("shared_intermediate_size")},
        tensors=TENSORS | PAIRED | DENSE_HALVES | STATE_SPACE,
        full_precision=("ssm_a", "ssm_d", "ssm_norm"),
        when=lambda settings: not settings.get("num_local_experts"),
        expects={"hidden_act": ("silu",), "mamba_proj_bias": (False,)},
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
