"""GLM 4 (0414): norms before and after attention and feed-forward."""

from __future__ import annotations

import numpy as np

from terazi.model.arch.decoder import ATTENTION, HEAD, PARAMETERS
from terazi.model.arch.rope import rope
from terazi.model.arch.table import Architecture, Back, Settings, head_size

__all__ = ["ARCHITECTURES"]


def _rotary(settings: Settings) -> np.uint32:
    fraction = rope(settings)["partial_rotary_factor"]
    return np.uint32(int(head_size(settings)) * (0.5 if fraction is None else fraction))


ARCHITECTURES = (
    Architecture(
        name="glm4",
        classes=("Glm4ForCausalLM",),
        back=Back("glm4"),
        parameters=PARAMETERS | {"rope.dimension_count": _rotary},
        tensors=HEAD
        | ATTENTION
        | {
            "layers.{}.post_self_attn_layernorm": "blk.{}.post_attention_norm",
            "layers.{}.post_attention_layernorm": "blk.{}.ffn_norm",
            "layers.{}.mlp.gate_up_proj": "blk.{}.ffn_up",
            "layers.{}.mlp.down_proj": "blk.{}.ffn_down",
            "layers.{}.post_mlp_layernorm": "blk.{}.post_ffw_norm",
        },
        expects={"hidden_act": ("silu",)},
    ),
)
