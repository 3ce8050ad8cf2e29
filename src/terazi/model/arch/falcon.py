"""Falcon-H1: attention and a state space side by side in each layer, multipliers folded into weights."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from terazi.errors import FormatError
from terazi.model.arch.change import recoded
from terazi.model.arch.decoder import PARAMETERS, TENSORS
from terazi.model.arch.granite import STATE_SPACE
from terazi.model.arch.rope import frequencies
from terazi.model.arch.table import Architecture, Change, Settings, Source, To, integer, real
from terazi.model.tensor import Tensor

__all__ = ["ARCHITECTURES"]


def _number(settings: Settings, name: str) -> float:
    """Read a multiplier; ``name[1]`` is one of a list."""
    key, _, index = name.partition("[")
    value = settings.get(key)
    if index and isinstance(value, list) and len(value) > int(index[:-1]):
        value = value[int(index[:-1])]
    elif index and value is not None:
        raise FormatError("config.json", f"{key} is not a list of multipliers")
    return float(real(key, default=1.0)({key: value}))


def _times(factors: Callable[[Settings, int], np.ndarray]) -> Change:
    """Multiply each row by one of ``factors(settings, rows)``: float32[rows] or a single one."""

    def make(tensor: Tensor, source: Source) -> Tensor:
        whole = np.broadcast_to(factors(source.settings, tensor.row_count), (tensor.row_count,))

        def read(start: int, stop: int) -> np.ndarray:
            rows = tensor.rows(start, stop) * whole[start:stop, None]
            return np.ascontiguousarray(rows, np.float32).view(np.uint8)

        return recoded(Tensor(name=tensor.name, shape=tensor.shape, type="F32", read=read), tensor.type)

    return Change(make)


def times(*names: str) -> Change:
    """Multiply by the product of some settings."""
    return _times(
        lambda settings, rows: np.array(prod(_number(settings, name) for name in names), np.float32)
    )


def _sections(settings: Settings, rows: int) -> np.ndarray:
    """Multipliers of the parts of the state space's input: gate, x, B, C and dt."""
    inner = int(integer("mamba_d_ssm")(settings))
    states = int(integer("mamba_n_groups", default=1)(settings)) * int(integer("mamba_d_state")(settings))
    sizes = [inner, inner, states, states, rows - 2 * (inner + states)]
    if sizes[-1] < 0:
        raise FormatError("config.json", f"mamba_d_ssm and mamba_d_state do not fit {rows} rows")
    parts = [_number(settings, f"ssm_multipliers[{index}]") for index in range(5)]
    return np.float32(_number(settings, "ssm_in_multiplier")) * np.repeat(np.array(parts, np.float32), sizes)


ARCHITECTURES = (
    Architecture(
        name="falcon-h1",
        classes=("FalconH1ForCausalLM",),
        parameters=PARAMETERS
        | {
            "ssm.conv_kernel": integer("mamba_d_conv"),
            "ssm.inner_size": integer("mamba_d_ssm"),
            "ssm.state_size": integer("mamba_d_state"),
            "ssm.time_step_rank": integer("mamba_n_heads"),
            "ssm.group_count": integer("mamba_n_groups", default=1),
        },
        tensors=TENSORS
        | STATE_SPACE
        | {
            "embed_tokens": To("token_embd", times("embedding_multiplier")),
            "lm_head": To("output", times("lm_head_multiplier")),
            "final_layernorm": "output_norm",
            "layers.{}.self_attn.q_proj": To("blk.{}.attn_q", times("attention_in_multiplier")),
            "layers.{}.self_attn.k_proj": To(
                "blk.{}.attn_k", times("attention_in_multiplier", "key_multiplier")
            ),
            "layers.{}.self_attn.v_proj": To("blk.{}.attn_v", times("attention_in_multiplier")),
            "layers.{}.self_attn.o_proj": To("blk.{}.attn_output", times("attention_out_multiplier")),
            "layers.{}.mamba.in_proj": To("blk.{}.ssm_in", _times(_sections)),
            "layers.{}.mamba.out_proj": To("blk.{}.ssm_out", times("ssm_out_multiplier")),
            "layers.{}.feed_forward.gate_proj": To("blk.{}.ffn_gate", times("mlp_multipliers[0]")),
            "layers.{}.feed_forward.up_proj": "blk.{}.ffn_up",
            "layers.{}.feed_forward.down_proj": To("blk.{}.ffn_down", times("mlp_multipliers[1]")),
            "layers.{}.pre_ff_layernorm.weight": "blk.{}.ffn_norm",
        },
        extra=frequencies,
        full_precision=("ssm_a", "ssm_d", "ssm_norm"),
        expects={
            "hidden_act": ("silu",),
            "mamba_norm_before_gate": (False,),
            "mamba_proj_bias": (False,),
            "attention_bias": (False,),
            "projectors_bias": (False,),
            "tie_word_embeddings": (False,),
        },
    ),
)
