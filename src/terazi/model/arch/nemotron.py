"""Nemotron 3 and 4 (Minitron) and Arcee: squared ReLU without a gate."""

from __future__ import annotations

from terazi.model.arch.change import plus_one
from terazi.model.arch.decoder import LAYER_NORMED, PARAMETERS, TENSORS
from terazi.model.arch.llama import PAIRED
from terazi.model.arch.rope import frequencies
from terazi.model.arch.table import Architecture, Back, To, real

__all__ = ["ARCHITECTURES"]

RELU2 = {"hidden_act": ("relu2",)}

ARCHITECTURES = (
    Architecture(
        name="nemotron",
        classes=("NemotronForCausalLM",),
        back=Back("nemotron"),
        parameters=LAYER_NORMED | {"attention.layer_norm_epsilon": real("norm_eps", default=1e-5)},
        tensors=TENSORS
        | {
            "norm.weight": To("output_norm.weight", plus_one),
            "layers.{}.input_layernorm.weight": To("blk.{}.attn_norm.weight", plus_one),
            "layers.{}.post_attention_layernorm.weight": To("blk.{}.ffn_norm.weight", plus_one),
        },
        expects=RELU2,
    ),
    Architecture(
        name="arcee",
        classes=("ArceeForCausalLM",),
        back=Back("arcee"),
        parameters=PARAMETERS,
        tensors=TENSORS | PAIRED,
        extra=frequencies,
        expects=RELU2,
    ),
)
