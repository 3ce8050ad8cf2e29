"""StarCoder 2."""

from __future__ import annotations

from terazi.model.arch.decoder import ATTENTION, HEAD, LAYER_NORMED
from terazi.model.arch.table import Architecture, Back, real

__all__ = ["ARCHITECTURES"]

ARCHITECTURES = (
    Architecture(
        name="starcoder2",
        classes=("Starcoder2ForCausalLM",),
        back=Back("starcoder2"),
        parameters=LAYER_NORMED | {"attention.layer_norm_epsilon": real("norm_epsilon", default=1e-5)},
        tensors=HEAD
        | ATTENTION
        | {
            "layers.{}.post_attention_layernorm": "blk.{}.ffn_norm",
            "layers.{}.mlp.c_fc": "blk.{}.ffn_up",
            "layers.{}.mlp.c_proj": "blk.{}.ffn_down",
        },
        expects={"hidden_act": ("gelu_pytorch_tanh",)},
    ),
)
