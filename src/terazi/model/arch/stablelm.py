"""StableLM and StableLM 2: Llama with LayerNorm and few rotated dimensions."""

from __future__ import annotations

import numpy as np

from terazi.model.arch.decoder import LAYER_NORMED, TENSORS
from terazi.model.arch.rope import rope
from terazi.model.arch.table import Architecture, Back, Settings, head_size, real

__all__ = ["ARCHITECTURES"]


def _rotary(settings: Settings) -> np.uint32:
    fraction = rope(settings)["partial_rotary_factor"]
    return np.uint32(int(head_size(settings)) * (0.25 if fraction is None else fraction))


ARCHITECTURES = (
    Architecture(
        name="stablelm",
        classes=("StableLmForCausalLM", "StableLMEpochForCausalLM"),
        back=Back("stablelm", settings=lambda found: {"use_qkv_bias": found["attention_bias"]}),
        parameters=LAYER_NORMED
        | {
            "attention.layer_norm_epsilon": real("layer_norm_eps", "norm_eps", default=1e-5),
            "rope.dimension_count": _rotary,
        },
        tensors=TENSORS,
        expects={"hidden_act": ("silu",), "qk_layernorm": (False,), "use_parallel_residual": (False,)},
    ),
)
