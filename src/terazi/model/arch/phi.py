"""Phi 2, 3, 3.5, 4 and 4-mini."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from terazi.errors import FormatError
from terazi.model.arch.decoder import ATTENTION, HEAD, LAYER_NORMED, PARAMETERS
from terazi.model.arch.rope import rope
from terazi.model.arch.table import Architecture, Back, Settings, integer, real
from terazi.model.tensor import Tensor

__all__ = ["ARCHITECTURES", "long_factors"]


def _original_context(settings: Settings) -> np.uint32:
    stated = rope(settings)["original_max_position_embeddings"]
    return np.uint32(stated or int(integer("max_position_embeddings")(settings)))


def _attention_factor(settings: Settings) -> np.float32 | None:
    """What scales queries and keys under LongRoPE; transformers computes it when it is not stated."""
    scaling = rope(settings)
    if not scaling.get("long_factor"):
        return None
    if scaling.get("attention_factor") is not None:
        return np.float32(scaling["attention_factor"])
    original = int(_original_context(settings))
    factor = int(integer("max_position_embeddings")(settings)) / original
    return np.float32(math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0)


def long_factors(settings: Settings) -> Iterator[Tensor]:
    """Yield LongRoPE's factors per frequency, for contexts beyond the original one and within it."""
    for name in ("long", "short"):
        factors = rope(settings).get(f"{name}_factor")
        if factors:
            if not all(isinstance(factor, int | float) for factor in factors):
                raise FormatError("config.json", f"{name}_factor is not a list of numbers")
            yield Tensor.from_array(f"rope_factors_{name}.weight", np.array(factors, np.float32))


ARCHITECTURES = (
    Architecture(
        name="phi2",
        classes=("PhiForCausalLM",),
        back=Back("phi"),
        parameters=LAYER_NORMED | {"attention.layer_norm_epsilon": real("layer_norm_eps", default=1e-5)},
        tensors=HEAD
        | ATTENTION
        | {
            "layers.{}.self_attn.dense": "blk.{}.attn_output",
            "layers.{}.mlp.fc1": "blk.{}.ffn_up",
            "layers.{}.mlp.fc2": "blk.{}.ffn_down",
            "final_layernorm": "output_norm",
        },
        expects={"hidden_act": ("gelu_new",), "qk_layernorm": (False,)},
    ),
    Architecture(
        name="phi3",
        classes=("Phi3ForCausalLM",),
        back=Back("phi3"),
        parameters=PARAMETERS
        | {
            "attention.sliding_window": integer("sliding_window", default=0),
            "rope.scaling.original_context_length": _original_context,
            "rope.scaling.attn_factor": _attention_factor,
        },
        tensors=HEAD
        | ATTENTION
        | {
            "layers.{}.self_attn.qkv_proj": "blk.{}.attn_qkv",
            "layers.{}.post_attention_layernorm": "blk.{}.ffn_norm",
            "layers.{}.mlp.gate_up_proj": "blk.{}.ffn_up",
            "layers.{}.mlp.down_proj": "blk.{}.ffn_down",
        },
        extra=long_factors,
        expects={"hidden_act": ("silu",)},
    ),
)
