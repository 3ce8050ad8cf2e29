"""RWKV-7 "Goose": recurrent layers only, as flash-linear-attention names them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from terazi.model.arch.change import shaped
from terazi.model.arch.table import (
    Architecture,
    Change,
    Reader,
    Settings,
    Source,
    To,
    constant,
    integer,
    real,
)
from terazi.model.tensor import Tensor

__all__ = ["ARCHITECTURES"]


def _rank(name: str, exponent: float, factor: float) -> Reader:
    """Width of a low-rank layer: as stated, otherwise a multiple of 32 by the width of the model."""

    def read(settings: Settings) -> np.uint32:
        width = int(integer("hidden_size")(settings))
        usual = max(1, round(width**exponent * factor / 32)) * 32
        return integer(name, default=usual)(settings)

    return read


ICLR_RANK = _rank("a_low_rank_dim", 0.5, 1.8)


def _unused(settings: Settings) -> Iterator[Tensor]:
    """Yield the first layer's mix of values, which llama.cpp wants there and does not use."""
    width, rank = int(integer("hidden_size")(settings)), int(ICLR_RANK(settings))
    for name, shape in (("v0", (width,)), ("v1", (rank, width)), ("v2", (width, rank))):
        zeros = np.broadcast_to(np.float16(0), shape)
        yield Tensor.from_array(f"blk.0.time_mix_{name}.weight", zeros)


def _values(name: str) -> To:
    """Take a part of the mix of values; some checkpoints have it in the first layer too, in another shape."""

    def make(tensor: Tensor, source: Source) -> Tensor:
        unused = {part.name: part for part in _unused(source.settings)} if source.layer == 0 else {}
        return unused.get(f"blk.0.time_mix_{name}.weight", tensor)

    return To(f"blk.{{}}.time_mix_{name}.weight", Change(make))


MIXED = {
    f"layers.{{}}.attn.x_{name}": To("blk.{}.time_mix_lerp_fused.weight", shaped(1, 1, -1), place)
    for place, name in enumerate("rwkvag")
}
"""How much of the token before goes into each input, in ggml's order."""

LOW_RANK = {
    f"layers.{{}}.attn.{name}_lora.lora.{part}": f"blk.{{}}.time_mix_{name}{number}.weight"
    for name in "wag"
    for part, number in (("0.weight", 1), ("2.weight", 2), ("2.bias", 0))
}

ARCHITECTURES = (
    Architecture(
        name="rwkv7",
        classes=("RWKV7ForCausalLM", "Rwkv7ForCausalLM"),
        parameters={
            "block_count": integer("num_hidden_layers"),
            "context_length": constant(
                np.uint32(1 << 20)
            ),  # no limit; a value for those who take the default
            "embedding_length": integer("hidden_size"),
            "feed_forward_length": integer("intermediate_size"),
            "attention.head_count": constant(np.uint32(0)),
            "attention.layer_norm_epsilon": real("norm_eps", default=1e-5),
            "attention.decay_lora_rank": _rank("decay_low_rank_dim", 0.5, 1.8),
            "attention.iclr_lora_rank": ICLR_RANK,
            "attention.value_residual_mix_lora_rank": _rank("v_low_rank_dim", 0.5, 1.3),
            "attention.gate_lora_rank": _rank("gate_low_rank_dim", 0.8, 0.6),
            "wkv.head_size": integer("head_dim", default=64),
        },
        tensors={
            "embeddings": "token_embd",
            "layers.{}.pre_norm": "token_embd_norm",
            "layers.{}.attn_norm": "blk.{}.attn_norm",
            "layers.{}.ffn_norm": "blk.{}.attn_norm_2",
            "layers.{}.attn.r_proj": "blk.{}.time_mix_receptance",
            "layers.{}.attn.k_proj": "blk.{}.time_mix_key",
            "layers.{}.attn.v_proj": "blk.{}.time_mix_value",
            "layers.{}.attn.o_proj": "blk.{}.time_mix_output",
            "layers.{}.attn.g_norm": "blk.{}.time_mix_ln",
            "layers.{}.attn.k_k": To("blk.{}.time_mix_k_k.weight", shaped(-1)),
            "layers.{}.attn.k_a": To("blk.{}.time_mix_k_a.weight", shaped(-1)),
            "layers.{}.attn.r_k": To("blk.{}.time_mix_r_k.weight", shaped(-1)),
            "layers.{}.ffn.x_k": To("blk.{}.channel_mix_lerp_k.weight", shaped(1, 1, -1)),
            "layers.{}.ffn.key": "blk.{}.channel_mix_key",
            "layers.{}.ffn.value": "blk.{}.channel_mix_value",
            "norm": "output_norm",
            "lm_head": "output",
            "layers.{}.attn.v_lora.lora.0.weight": _values("v1"),
            "layers.{}.attn.v_lora.lora.2.weight": _values("v2"),
            "layers.{}.attn.v_lora.lora.2.bias": _values("v0"),
        }
        | MIXED
        | LOW_RANK,
        extra=_unused,
        full_precision=("_lerp_",),
        expects={"hidden_act": ("sqrelu",), "norm_bias": (True,), "norm_first": (True,)},
    ),
)
