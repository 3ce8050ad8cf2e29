"""Command R (Cohere) and Command R7B (Cohere 2): attention and feed-forward side by side."""

from __future__ import annotations

from terazi.model.arch.decoder import LAYER_NORMED, TENSORS
from terazi.model.arch.qwen import QUERY_KEY_NORMS
from terazi.model.arch.table import Architecture, Back, integer, layers_of_kind, real

__all__ = ["ARCHITECTURES"]

SCALED = LAYER_NORMED | {
    "attention.layer_norm_epsilon": real("layer_norm_eps", default=1e-5),
    "logit_scale": real("logit_scale", default=0.0625),
}

ARCHITECTURES = (
    Architecture(
        name="command-r",
        classes=("CohereForCausalLM",),
        back=Back("cohere"),
        parameters=SCALED,
        tensors=TENSORS | QUERY_KEY_NORMS,
        expects={"hidden_act": ("silu",)},
    ),
    Architecture(
        name="cohere2",
        classes=("Cohere2ForCausalLM",),
        back=Back("cohere2"),
        parameters=SCALED
        | {
            "attention.sliding_window": integer("sliding_window"),
            "attention.sliding_window_pattern": layers_of_kind("sliding_attention"),
        },
        tensors=TENSORS,
        expects={"hidden_act": ("silu",), "attention_bias": (False,)},
    ),
)
