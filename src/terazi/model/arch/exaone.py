"""EXAONE 4: norms after attention and feed-forward, of queries and of keys."""

from __future__ import annotations

import numpy as np

from terazi.errors import UnsupportedError
from terazi.model.arch.decoder import PARAMETERS, TENSORS
from terazi.model.arch.qwen import QUERY_KEY_NORMS
from terazi.model.arch.rope import frequencies
from terazi.model.arch.table import Architecture, Back, Settings, integer, layers_of_kind

__all__ = ["ARCHITECTURES"]


def _window(settings: Settings) -> np.uint32 | None:
    """llama.cpp has windows (and layers without rotation) for the model of 64 layers only."""
    window = integer("sliding_window", optional=True)(settings)
    if (window is not None) != (settings.get("num_hidden_layers") == 64):
        raise UnsupportedError("EXAONE 4 runs in llama.cpp with 64 layers and windows or without windows")
    return window


ARCHITECTURES = (
    Architecture(
        name="exaone4",
        classes=("Exaone4ForCausalLM",),
        back=Back("exaone4"),
        parameters=PARAMETERS
        | {
            "attention.sliding_window": _window,
            "attention.sliding_window_pattern": layers_of_kind("sliding_attention"),
        },
        tensors=TENSORS
        | QUERY_KEY_NORMS
        | {
            "layers.{}.post_attention_layernorm": "blk.{}.post_attention_norm",
            "layers.{}.post_feedforward_layernorm": "blk.{}.post_ffw_norm",
        },
        extra=frequencies,
        expects={"hidden_act": ("silu",)},
    ),
)
