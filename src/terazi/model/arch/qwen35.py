"""Qwen 3.5 (text), dense and mixtures of experts, and Qwen3-Next.

Three gated delta-rule layers to one of full attention.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from terazi.errors import FormatError
from terazi.model.arch.change import chain, flat, part, plus_one, reordered
from terazi.model.arch.decoder import EXPERTS, PARAMETERS, SHARED_EXPERT, TENSORS
from terazi.model.arch.mamba import decay
from terazi.model.arch.qwen import QUERY_KEY_NORMS, SILU
from terazi.model.arch.rope import rope
from terazi.model.arch.table import (
    Architecture,
    Change,
    Reader,
    Settings,
    Source,
    To,
    integer,
    layers_of_kind,
)
from terazi.model.tensor import Tensor

__all__ = ["ARCHITECTURES", "sections"]


def sections(*usual: int) -> Reader:
    """Read how many rotary pairs follow time, height and width; a text has only time."""

    def read(settings: Settings) -> np.ndarray:
        found = rope(settings).get("mrope_section") or [*usual]
        if not isinstance(found, list) or not all(isinstance(size, int) for size in found[:4]):
            raise FormatError("config.json", "mrope_section is not a list of counts")
        return np.array([*found, 0, 0, 0, 0][:4], np.int32)

    return read


def _inner(settings: Settings) -> np.uint32:
    heads = int(integer("linear_num_value_heads")(settings))
    return np.uint32(heads * int(integer("linear_value_head_dim")(settings)))


def _rotary(settings: Settings) -> np.uint32:
    fraction = rope(settings)["partial_rotary_factor"]
    return np.uint32(
        int(integer("head_dim", default=256)(settings)) * (0.25 if fraction is None else fraction)
    )


def tiled(*, size: str | None = None, after_keys: bool = False, axis: int = 0) -> Change:
    """Reorder value heads from [key head][value head] to [value head][key head], as ggml repeats keys.

    ``size`` names the setting with the width of a value head (1 without it). With ``after_keys`` the values
    stand behind queries and keys, which stay.
    """

    def make(tensor: Tensor, source: Source) -> Tensor:
        read: Callable[[str], int] = lambda name: int(integer(name)(source.settings))  # noqa: E731
        keys, values = read("linear_num_key_heads"), read("linear_num_value_heads")
        width = read(size) if size else 1
        first = 2 * keys * read("linear_key_head_dim") if after_keys else 0
        length = tensor.shape[axis]
        if not keys or values % keys or length != first + values * width:
            raise FormatError(tensor.name, f"{tensor.shape} does not hold {values} value heads of {width}")
        order = np.arange(first, length).reshape(keys, values // keys, width).swapaxes(0, 1).reshape(-1)
        return reordered(tensor, np.concatenate([np.arange(first), order]), axis)

    return Change(make)


def by_kind(*kinds: str) -> Change:
    """Take the rows of some kinds (``query``, ``key``, ``value``, ``gate``), which are stored by key head."""

    def make(tensor: Tensor, source: Source) -> Tensor:
        read: Callable[[str], int] = lambda name: int(integer(name)(source.settings))  # noqa: E731
        keys = read("linear_num_key_heads")
        key = read("linear_key_head_dim")
        value = read("linear_num_value_heads") * read("linear_value_head_dim") // max(keys, 1)
        sizes = {"query": key, "key": key, "value": value, "gate": value}
        if tensor.shape[0] != keys * sum(sizes.values()):
            raise FormatError(tensor.name, f"{tensor.shape} does not hold {keys} key heads")
        rows = np.arange(tensor.shape[0]).reshape(keys, -1)
        ends = dict(zip(sizes, np.cumsum(list(sizes.values())).tolist(), strict=True))
        taken = [rows[:, ends[kind] - sizes[kind] : ends[kind]].reshape(-1) for kind in kinds]
        return reordered(tensor, np.concatenate(taken))

    return Change(make)


HYBRID = PARAMETERS | {
    "attention.key_length": integer("head_dim", default=256),
    "attention.value_length": integer("head_dim", default=256),
    "attention.recurrent_layers": layers_of_kind("linear_attention"),
    "rope.dimension_count": _rotary,
    "rope.dimension_sections": sections(11, 11, 10),
    "ssm.conv_kernel": integer("linear_conv_kernel_dim", default=4),
    "ssm.state_size": integer("linear_key_head_dim", default=128),
    "ssm.group_count": integer("linear_num_key_heads", default=16),
    "ssm.time_step_rank": integer("linear_num_value_heads", default=32),
    "ssm.inner_size": _inner,
}

LAYERS = TENSORS | {
    "norm": To("output_norm", plus_one),
    "layers.{}.input_layernorm": To("blk.{}.attn_norm", plus_one),
    "layers.{}.post_attention_layernorm": To("blk.{}.post_attention_norm", plus_one),
    **{name: To(target, plus_one) for name, target in QUERY_KEY_NORMS.items()},
    "layers.{}.linear_attn.in_proj_qkv": To(
        "blk.{}.attn_qkv", tiled(size="linear_value_head_dim", after_keys=True)
    ),
    "layers.{}.linear_attn.in_proj_z": To("blk.{}.attn_gate", tiled(size="linear_value_head_dim")),
    "layers.{}.linear_attn.in_proj_a": To("blk.{}.ssm_alpha", tiled()),
    "layers.{}.linear_attn.in_proj_b": To("blk.{}.ssm_beta", tiled()),
    "layers.{}.linear_attn.conv1d": To(
        "blk.{}.ssm_conv1d", chain(flat, tiled(size="linear_value_head_dim", after_keys=True))
    ),
    "layers.{}.linear_attn.A_log": To("blk.{}.ssm_a", chain(decay, tiled())),
    "layers.{}.linear_attn.dt_bias": To("blk.{}.ssm_dt.bias", tiled()),
    "layers.{}.linear_attn.norm": "blk.{}.ssm_norm",
    "layers.{}.linear_attn.out_proj": To("blk.{}.ssm_out", tiled(size="linear_value_head_dim", axis=1)),
}

STACKED_EXPERTS = {
    "layers.{}.mlp.experts.gate_up_proj": (
        To("blk.{}.ffn_gate_exps.weight", part(0, 2, axis=1)),
        To("blk.{}.ffn_up_exps.weight", part(1, 2, axis=1)),
    ),
    "layers.{}.mlp.experts.down_proj": "blk.{}.ffn_down_exps.weight",
}

MIXTURE = {key: read for key, read in HYBRID.items() if key != "feed_forward_length"} | {
    "expert_count": integer("num_experts", "num_local_experts"),
    "expert_used_count": integer("num_experts_per_tok"),
    "expert_feed_forward_length": integer("moe_intermediate_size"),
    "expert_shared_feed_forward_length": integer("shared_expert_intermediate_size"),
}

ARCHITECTURES = (
    Architecture(
        name="qwen35",
        classes=("Qwen3_5ForCausalLM", "Qwen3_5ForConditionalGeneration"),
        parameters=HYBRID,
        tensors=LAYERS,
        expects=SILU,
    ),
    Architecture(
        name="qwen35moe",
        classes=("Qwen3_5MoeForCausalLM", "Qwen3_5MoeForConditionalGeneration"),
        parameters=MIXTURE,
        tensors=LAYERS | EXPERTS | SHARED_EXPERT | STACKED_EXPERTS,
        expects=SILU,
    ),
    Architecture(
        name="qwen3next",
        classes=("Qwen3NextForCausalLM",),
        parameters={key: read for key, read in MIXTURE.items() if key != "rope.dimension_sections"},
        tensors=LAYERS
        | EXPERTS
        | SHARED_EXPERT
        | STACKED_EXPERTS
        | {
            "layers.{}.linear_attn.in_proj_qkvz": (
                To("blk.{}.attn_qkv", by_kind("query", "key", "value")),
                To("blk.{}.attn_gate", by_kind("gate")),
            ),
            "layers.{}.linear_attn.in_proj_ba": "blk.{}.ssm_ba",
            "layers.{}.linear_attn.conv1d": To("blk.{}.ssm_conv1d", flat),
            "layers.{}.linear_attn.A_log": To("blk.{}.ssm_a", decay),
            "layers.{}.linear_attn.dt_bias": "blk.{}.ssm_dt.bias",
            "layers.{}.linear_attn.out_proj": "blk.{}.ssm_out",
        },
        expects=SILU | {"norm_topk_prob": (True,), "decoder_sparse_step": (1,), "mlp_only_layers": ([],)},
    ),
)
