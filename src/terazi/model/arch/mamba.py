"""Mamba 1 and 2: state space layers only."""

from __future__ import annotations

import numpy as np

from terazi.model.arch.change import chain, flat, mapped, shaped
from terazi.model.arch.table import Architecture, Back, Change, Settings, Source, To, constant, integer, real
from terazi.model.tensor import Tensor

__all__ = ["ARCHITECTURES", "decay", "grouped"]

decay = mapped(lambda rows: -np.exp(rows), lambda rows: np.log(-rows))
"""The state's decay from its stored logarithm."""


def _inner(settings: Settings) -> np.uint32:
    width = int(integer("hidden_size")(settings)) * int(real("expand", default=2)(settings))
    return integer("intermediate_size", default=width)(settings)


def _rank(settings: Settings) -> np.uint32:
    if isinstance(settings.get("time_step_rank"), int):
        return integer("time_step_rank")(settings)
    return np.uint32(-(-int(integer("hidden_size")(settings)) // 16))


def _inner2(settings: Settings) -> np.uint32:
    return np.uint32(int(integer("num_heads")(settings)) * int(integer("head_dim")(settings)))


def grouped(name: str) -> Change:
    """View a norm as one row per group; ``name`` is the setting with their number."""

    def make(tensor: Tensor, source: Source) -> Tensor:
        return shaped(int(integer(name, default=1)(source.settings)), -1).make(tensor, source)

    return Change(make, shaped(-1).make)


PARAMETERS = {
    "block_count": integer("num_hidden_layers"),
    "context_length": constant(np.uint32(1 << 20)),  # no limit; a value for those who take the default
    "embedding_length": integer("hidden_size"),
    "feed_forward_length": constant(np.uint32(0)),
    "attention.head_count": constant(np.uint32(0)),
    "attention.layer_norm_rms_epsilon": real("layer_norm_epsilon", default=1e-5),
    "ssm.conv_kernel": integer("conv_kernel"),
    "ssm.state_size": integer("state_size"),
}

TENSORS = {
    "embedding": "token_embd",
    "embeddings": "token_embd",
    "norm_f": "output_norm",
    "lm_head": "output",
    "layers.{}.norm": "blk.{}.attn_norm",
    "layers.{}.mixer.in_proj": "blk.{}.ssm_in",
    "layers.{}.mixer.conv1d.weight": To("blk.{}.ssm_conv1d.weight", flat),
    "layers.{}.mixer.conv1d.bias": "blk.{}.ssm_conv1d.bias",
    "layers.{}.mixer.out_proj": "blk.{}.ssm_out",
}

ARCHITECTURES = (
    Architecture(
        name="mamba",
        classes=("MambaForCausalLM",),
        back=Back("mamba", wrapper="backbone."),
        parameters=PARAMETERS | {"ssm.inner_size": _inner, "ssm.time_step_rank": _rank},
        tensors=TENSORS
        | {
            "layers.{}.mixer.x_proj": "blk.{}.ssm_x",
            "layers.{}.mixer.dt_proj": "blk.{}.ssm_dt",
            "layers.{}.mixer.A_log": To("blk.{}.ssm_a", decay),
            "layers.{}.mixer.D": "blk.{}.ssm_d",
        },
        full_precision=("ssm_a", "ssm_d"),
        expects={"hidden_act": ("silu",), "use_bias": (False,)},
    ),
    Architecture(
        name="mamba2",
        classes=("Mamba2ForCausalLM",),
        parameters=PARAMETERS
        | {
            "ssm.inner_size": _inner2,
            "ssm.time_step_rank": integer("num_heads"),
            "ssm.group_count": integer("n_groups", default=1),
        },
        tensors=TENSORS
        | {
            "layers.{}.mixer.dt_bias": "blk.{}.ssm_dt.bias",
            "layers.{}.mixer.A_log": To("blk.{}.ssm_a", chain(decay, shaped(-1, 1))),
            "layers.{}.mixer.D": To("blk.{}.ssm_d", shaped(-1, 1)),
            "layers.{}.mixer.norm": To("blk.{}.ssm_norm", grouped("n_groups")),
        },
        full_precision=("ssm_a", "ssm_d", "ssm_norm"),
        expects={"hidden_act": ("silu",), "use_bias": (False,)},
    ),
)
