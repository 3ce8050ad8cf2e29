"""Hunyuan (dense): norms of queries and keys after their rotation."""

from __future__ import annotations

import numpy as np

from terazi.model.arch.decoder import PARAMETERS, TENSORS
from terazi.model.arch.rope import rope
from terazi.model.arch.table import Architecture, Back, Settings, head_size

__all__ = ["ARCHITECTURES"]


def _theta(settings: Settings) -> np.float32:
    """The rotary base, raised once and for all where the scaling states ``alpha``."""
    found = rope(settings)
    base, alpha = float(found.get("rope_theta") or 10000.0), found.get("alpha")
    if found["rope_type"] == "dynamic" and alpha:
        size = int(head_size(settings))
        base *= float(alpha) ** (size / (size - 2))
    return np.float32(base)


ARCHITECTURES = (
    Architecture(
        name="hunyuan-dense",
        classes=("HunYuanDenseV1ForCausalLM",),
        back=Back("hunyuan_v1_dense"),
        parameters=PARAMETERS | {"rope.freq_base": _theta},
        tensors=TENSORS
        | {
            "layers.{}.self_attn.query_layernorm": "blk.{}.attn_q_norm",
            "layers.{}.self_attn.key_layernorm": "blk.{}.attn_k_norm",
        },
        expects={"hidden_act": ("silu",)},
    ),
)
