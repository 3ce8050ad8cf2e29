"""Which type each tensor gets: the mixture rules of llama.cpp's presets, as tables.

A row is ``presets, type, condition...``; the first row of a role's table that names the preset and whose
conditions all hold decides, else the preset's default type stays. The rules are those of llama.cpp
(``src/llama-quant.cpp``, as in llama-cpp-python 0.3.36), so that a file made here has the same types.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from terazi.dtypes import dtype

if TYPE_CHECKING:
    from collections.abc import Iterable

    from terazi.model import Config, Tensor
    from terazi.quantize.presets import Preset

__all__ = ["Facts", "Mixture", "is_quantizable", "loader_order", "role", "row_fallback"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the rules know of a model besides its tensors' names and shapes.

    ``query_groups`` is query heads per key/value head in the first layer; ``value_tensors`` counts tensors in
    the attention-value role; ``tied`` says that the file has no output matrix of its own; ``importance`` says
    that calibration is given; ``seventy_billion`` is llama.cpp's 70B model class.
    """

    architecture: str
    layers: int
    query_groups: int
    experts: int
    value_tensors: int
    tied: bool
    importance: bool
    seventy_billion: bool

    @staticmethod
    def of(config: Config, names: Iterable[str], *, importance: bool) -> Facts:
        """Collect the facts from a configuration and the tensor names of a GGUF model."""
        roles = Counter(role(name) for name in names)
        heads = int(np.ravel(config.values.get("attention.head_count", config.head_count))[0])
        heads_kv = config.head_counts_kv[0] if config.head_counts_kv else 0
        return Facts(
            architecture=config.architecture,
            layers=config.block_count,
            query_groups=heads // heads_kv if heads_kv else 0,
            experts=config.expert_count,
            value_tensors=roles["value"],
            tied=not roles["output"],
            importance=importance,
            seventy_billion=_is_70b(config, heads == heads_kv),
        )


def _is_70b(config: Config, every_head_has_its_own: bool) -> bool:
    layers = config.block_count - int(config.values.get("nextn_predict_layers", 0))
    if config.architecture in ("llama", "llama-embed"):
        return layers == 80 and config.expert_count != 8 and not every_head_has_its_own
    return layers == {"qwen2": 80, "deci": 80, "olmo": 80, "jais2": 68}.get(config.architecture)


# --- roles ----------------------------------------------------------------------------------------------

# Looked for in this order, anywhere in the name. Fused and latent attention count as values.
_ROLES = (
    ("attn_qkv.weight", "value"),
    ("attn_kv_b.weight", "value"),
    ("attn_v.weight", "value"),
    ("attn_k.weight", "key"),
    ("attn_q.weight", "query"),
    ("attn_output.weight", "attention_output"),
    ("ffn_up", "up"),
    ("ffn_gate", "gate"),
    ("ffn_down", "down"),
)


def role(name: str) -> str:
    """Return what a tensor is for: a key of ``RULES``, or ``other``."""
    if name == "output.weight":
        return "output"
    if name in ("token_embd.weight", "per_layer_token_embd.weight"):
        return "token_embedding"
    return next((found for part, found in _ROLES if part in name), "other")


# --- conditions -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor stands: ``index`` of ``total`` is its layer, or its rank among tensors of its role."""

    facts: Facts
    index: int
    total: int
    odd_rows: bool


def grouped(at: Place) -> bool:
    """Four or more query heads share a key/value head."""
    return at.facts.query_groups >= 4


def grouped_or_experts(at: Place) -> bool:
    """As `grouped`, or at least four experts."""
    return grouped(at) or at.facts.experts >= 4


def eight_experts(at: Place) -> bool:
    """Exactly eight experts, as in Mixtral."""
    return at.facts.experts == 8


def falcon(at: Place) -> bool:
    """The Falcon architecture."""
    return at.facts.architecture == "falcon"


def not_falcon(at: Place) -> bool:
    """Any other architecture."""
    return not falcon(at)


def with_importance(at: Place) -> bool:
    """Calibration is given."""
    return at.facts.importance


def without_importance(at: Place) -> bool:
    """Calibration is not given."""
    return not at.facts.importance


def odd_rows(at: Place) -> bool:
    """Rows are no whole number of the preset's blocks."""
    return at.odd_rows


def first_two(at: Place) -> bool:
    """The first two tensors of the role."""
    return at.index < 2


def first_four(at: Place) -> bool:
    """The first four tensors of the role."""
    return at.index < 4


def first_sixteenth(at: Place) -> bool:
    """The first sixteenth of the layers."""
    return at.index < at.total // 16


def first_eighth(at: Place) -> bool:
    """The first eighth of the layers."""
    return at.index < at.total // 8


def middle(at: Place) -> bool:
    """Neither in the first nor in the last eighth."""
    return at.total // 8 <= at.index < 7 * at.total // 8


def more_bits(at: Place) -> bool:
    """The first and last eighth, and every third between."""
    return not middle(at) or (at.index - at.total // 8) % 3 == 2


# --- rules ----------------------------------------------------------------------------------------------

_LOW = "IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ2_M"
_ANY = "*"
_DEFAULT = ""  # the preset's own type, whatever the rules below would say

# fmt: off
_TABLES: dict[str, tuple[tuple[Any, ...], ...]] = {
    "output": (  # and the token embedding when it is the output matrix too
        ("MXFP4_MOE",              "Q8_0"),
        (_ANY,                     "Q8_0", falcon),
        (_ANY,                     "Q8_0", odd_rows),
        (f"{_LOW} IQ3_XXS",        "Q5_K"),
        ("Q8_0",                   "Q8_0"),
        (_ANY,                     "Q6_K"),
    ),
    "token_embedding": (
        ("IQ1_S IQ1_M IQ2_XXS IQ2_XS", "Q2_K"),
        ("IQ2_S IQ2_M IQ3_XXS",    "IQ3_S"),
        ("TQ1_0 TQ2_0 Q2_0",       "Q4_K"),
    ),
    "value": (
        (_LOW,                     "Q4_K", grouped_or_experts),
        ("IQ2_S IQ2_M",            "IQ3_S"),
        (_LOW,                     "Q2_K"),
        (_ANY,                     "Q8_0", eight_experts),
        ("Q2_K",                   "Q4_K", grouped),
        ("Q2_K",                   "Q3_K"),
        ("Q2_K_S",                 "Q4_K", grouped),
        ("IQ3_XXS IQ3_XS IQ3_S",   "Q4_K", grouped),
        ("IQ3_XXS",                "IQ3_S", without_importance),
        ("IQ3_M",                  "Q4_K"),
        ("Q3_K_M",                 "Q5_K", first_two),
        ("Q3_K_M",                 "Q4_K"),
        ("Q3_K_L",                 "Q5_K"),
        ("IQ4_NL IQ4_XS",          "Q5_K", grouped),
        ("Q4_K_M Q5_K_M",          "Q6_K", more_bits),
        ("Q4_K_S",                 "Q5_K", first_four),
    ),
    "key": (
        (_LOW,                     "Q4_K", eight_experts),
        (_LOW,                     _DEFAULT),
        (_ANY,                     "Q8_0", eight_experts),
        ("IQ3_XS",                 "IQ3_XXS"),
        ("IQ3_XXS",                "IQ2_S"),
    ),
    "query": (
        ("IQ3_XS",                 "IQ3_XXS"),
        ("IQ3_XXS",                "IQ2_S"),
    ),
    "attention_output": (
        (_LOW,                     "Q5_K", eight_experts),
        ("IQ1_S IQ1_M",            "IQ2_XXS"),
        ("IQ2_S IQ2_M",            "IQ3_S"),
        ("Q3_K_L",                 "Q4_K", falcon),
        (_ANY,                     _DEFAULT, falcon),
        ("Q2_K IQ3_XS IQ3_XXS IQ3_S IQ3_M Q3_K_S Q3_K_M IQ4_NL IQ4_XS Q4_K_S Q4_K_M", "Q5_K", eight_experts),
        (_ANY,                     _DEFAULT, eight_experts),
        ("Q2_K",                   "Q3_K"),
        ("IQ3_XXS",                "IQ3_S"),
        ("Q3_K_M IQ3_M",           "Q4_K"),
        ("Q3_K_L",                 "Q5_K"),
    ),
    "down": (
        ("IQ2_S IQ2_M",            "IQ3_S", first_eighth),
        (_LOW,                     "Q2_K", first_eighth),
        ("Q2_K",                   "Q3_K"),
        ("Q2_K_S",                 "Q4_K", first_eighth),
        ("IQ3_XXS",                "Q4_K", without_importance, first_eighth),
        ("IQ3_XXS",                "Q3_K", without_importance),
        ("Q3_K_M",                 "Q5_K", first_sixteenth),
        ("Q3_K_M",                 "Q4_K", not_falcon),
        ("Q3_K_M",                 "Q4_K", more_bits),
        ("Q3_K_M",                 "Q3_K"),
        ("IQ3_M",                  "Q4_K", first_eighth),
        ("IQ3_M",                  "Q4_K", eight_experts, more_bits),
        ("Q3_K_L",                 "Q4_K", falcon),
        ("Q3_K_L",                 "Q5_K"),
        ("Q4_K_M",                 "Q6_K", falcon, first_sixteenth),
        ("Q4_K_M",                 "Q5_K", falcon, more_bits),
        ("Q4_K_M",                 "Q6_K", not_falcon, more_bits),
        ("IQ4_NL IQ4_XS",          "Q5_K", without_importance, first_eighth),
        ("Q5_K_M",                 "Q6_K", more_bits),
        ("Q4_K_S",                 "Q5_K", not_falcon, first_eighth),
        ("Q4_0",                   "Q4_1", with_importance, first_eighth),
        ("Q5_0",                   "Q5_1", with_importance, first_eighth),
    ),
    "gate": (
        ("IQ3_XS",                 "IQ3_XXS", middle),
    ),
    "up": (
        ("IQ3_XS",                 "IQ3_XXS", middle),
    ),
}

# When a row is no whole number of blocks: type -> what takes its place. Those missing have no replacement.
_SMALLER_BLOCKS = {
    "IQ1_S": "IQ4_NL", "IQ1_M": "IQ4_NL", "IQ2_XXS": "IQ4_NL", "IQ2_XS": "IQ4_NL", "IQ2_S": "IQ4_NL",
    "IQ3_XXS": "IQ4_NL", "IQ3_S": "IQ4_NL", "IQ4_XS": "IQ4_NL",
    "Q2_0": "Q4_0", "Q2_K": "Q4_0", "Q3_K": "Q4_0", "TQ1_0": "Q4_0", "TQ2_0": "Q4_0",
    "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0",
}
# fmt: on


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of a table. No presets named: all of them."""

    presets: frozenset[str]
    type: str
    conditions: tuple[Callable[[Place], bool], ...]

    @staticmethod
    def of(presets: str, type: str, *conditions: Callable[[Place], bool]) -> Rule:
        """Read a row: presets as words in one string."""
        return Rule(frozenset(presets.split()) - {_ANY}, type, conditions)

    def decides(self, preset: str, at: Place) -> bool:
        """Whether this rule is about the preset and its conditions hold."""
        return (not self.presets or preset in self.presets) and all(holds(at) for holds in self.conditions)


RULES = {kind: tuple(Rule.of(*row) for row in rows) for kind, rows in _TABLES.items()}
_LOW_PRESETS = frozenset(_LOW.split())


@dataclass(frozen=True, slots=True)
class Mixture:
    """One preset at work on one model.

    Tensors must be asked for in `loader_order`: some rules count what came before.
    """

    preset: Preset
    facts: Facts
    seen: Counter[str] = field(default_factory=Counter)

    def type_for(self, tensor: Tensor, *, output_type: str | None = None) -> str:
        """Return the type that the rules choose for a tensor, before `row_fallback`."""
        kind = role(tensor.name)
        if self.facts.architecture == "glm5-next" and _GLM5_KEPT.search(tensor.name):
            return "Q8_0"
        if kind == "token_embedding" and self.facts.tied:
            kind = "output"
        if kind == "output" and output_type:
            return output_type
        if self.preset.name == "MXFP4_MOE" and kind != "output":
            return "MXFP4" if self._is_expert_stack(tensor, kind) else "Q8_0"
        chosen = self._first_match(kind, tensor)
        if kind == "value" and self.facts.seventy_billion and self.preset.name not in _LOW_PRESETS:
            chosen = {"Q3_K": "Q5_K", "Q4_K": "Q5_K"}.get(chosen, chosen)
        return chosen

    def _first_match(self, kind: str, tensor: Tensor) -> str:
        at = self._place(kind, tensor)
        self.seen[kind] += 1
        rule = next((rule for rule in RULES.get(kind, ()) if rule.decides(self.preset.name, at)), None)
        return (rule and rule.type) or self.preset.type

    def _place(self, kind: str, tensor: Tensor) -> Place:
        total = self.facts.value_tensors if kind == "value" else self.facts.layers
        index = self.seen[kind]
        if self.facts.experts > 1 and kind in ("down", "gate", "up") and self.preset.name not in _LOW_PRESETS:
            layer = _layer(tensor.name)  # expert tensors can be many per layer
            index = layer if layer >= 0 else index
        return Place(self.facts, index, total, tensor.columns % self.preset.default.block_size != 0)

    def _is_expert_stack(self, tensor: Tensor, kind: str) -> bool:
        stacked = len(tensor.shape) > 2 and tensor.shape[-3] > 1
        return stacked and (self.facts.architecture != "bailingmoe3" or kind in ("up", "gate", "down"))


_GLM5_KEPT = re.compile(r"attn_q_a|attn_q_b|nextn\.eh_proj")


def row_fallback(type: str, columns: int) -> str | None:
    """Return ``type``, or what replaces it when rows of ``columns`` are no whole number of its blocks.

    None means that there is no replacement: llama.cpp refuses such a tensor.
    """
    if columns % dtype(type).block_size == 0:
        return type
    smaller = _SMALLER_BLOCKS.get(type, type if dtype(type).block_size <= 32 else None)
    if smaller is None:
        return None
    return smaller if columns % dtype(smaller).block_size == 0 else "F16"


# --- which tensors, in which order ----------------------------------------------------------------------

# Small, or known to suffer: norms, routers, position and type embeddings, convolutions, state mixing.
_KEPT = re.compile(
    r"_norm\.weight|ffn_gate_inp\.weight|ffn_gate_tid2eid\.weight|altup|laurel|per_layer_model_proj"
    r"|^position_embd\.weight$|^token_types\.weight$|ssm_conv1d|shortconv\.conv\.weight"
    r"|indexer\.[kq]_proj\.weight|attn_rel_b\.weight"
    r"|time_mix_(?:first|w[012]|v[012]|a[012]|g[12]|decay_w[12]|lerp_fused)\.weight"
    r"|\.position_embd|sam\.pos_embd|sam\.neck\.|sam\.net_|\.rel_pos|\.patch_embd|\.patch_merger"
    r"|a\.rvq\.codebook|mm\.a\.code_embd"
)
_KEPT_IN_GLM5 = re.compile(
    r"hc_|indexer\.(?:attn_q_b|attn_k|proj)|indexer_compressor_(?:gate|ape)"
    r"|ssm_(?:f_a|f_b|g_a|g_b|beta)\.weight|attn_(?:kv_a_mqa|k_b|v_b)\.weight"
)


def is_quantizable(tensor: Tensor, architecture: str) -> bool:
    """Whether a preset may change this tensor's type; the others keep the type they have."""
    matrix = tensor.row_count > 1
    if not matrix or not tensor.name.endswith("weight") or _KEPT.search(tensor.name):
        return False
    return architecture != "glm5-next" or not _KEPT_IN_GLM5.search(tensor.name)


_LAYER = re.compile(r"blk\.(\d+)\.")


def _layer(name: str) -> int:
    found = _LAYER.match(name)
    return int(found[1]) if found else -1


def loader_order(name: str) -> tuple[int, bytes]:
    """Sort key of llama.cpp's loader: tensors outside blocks, then blocks by number; by name within."""
    return _layer(name), name.encode()
