"""Gemma 1, 2 and 3 (text)."""

from __future__ import annotations

from collections.abc import Callable

from terazi.model.arch.change import plus_one
from terazi.model.arch.decoder import PARAMETERS, TENSORS
from terazi.model.arch.qwen import QUERY_KEY_NORMS
from terazi.model.arch.rope import rope_value
from terazi.model.arch.table import Architecture, Back, Settings, To, integer, layers_of_kind, real

__all__ = ["ARCHITECTURES", "GELU", "WINDOWED"]

GELU = {"hidden_activation": ("gelu_pytorch_tanh",)}

NORMS = {
    "norm": To("output_norm", plus_one),
    "layers.{}.input_layernorm": To("blk.{}.attn_norm", plus_one),
    "layers.{}.post_attention_layernorm": To("blk.{}.ffn_norm", plus_one),
}

SANDWICH = NORMS | {
    "layers.{}.post_attention_layernorm": To("blk.{}.post_attention_norm", plus_one),
    "layers.{}.pre_feedforward_layernorm": To("blk.{}.ffn_norm", plus_one),
    "layers.{}.post_feedforward_layernorm": To("blk.{}.post_ffw_norm", plus_one),
}
"""Norms before and after attention and feed-forward."""

WINDOWED = PARAMETERS | {
    "attention.head_count": integer("num_attention_heads", default=8),
    "attention.head_count_kv": integer("num_key_value_heads", default=4),
    "attention.key_length": integer("head_dim", default=256),
    "attention.value_length": integer("head_dim", default=256),
    "rope.dimension_count": integer("head_dim", default=256),
    "context_length": integer("max_position_embeddings", default=131072),
    "vocab_size": integer("vocab_size", default=262208),
    "attention.sliding_window": integer("sliding_window", default=4096),
    "attention.sliding_window_pattern": layers_of_kind("sliding_attention"),
    "final_logit_softcapping": real("final_logit_softcapping", default=0.0),
}
"""Gemma's config.json leaves out what is transformers' default."""


def _query_scale(largest: int) -> Callable[[Settings], Settings]:
    """llama.cpp scales queries by the head size but for the 27B model, which it knows by its layers."""

    def settings(found: Settings) -> Settings:
        whole = found["num_hidden_layers"] == largest
        size = found["hidden_size"] // found["num_attention_heads"] if whole else found["head_dim"]
        return {"query_pre_attn_scalar": size}

    return settings


ARCHITECTURES = (
    Architecture(
        name="gemma",
        classes=("GemmaForCausalLM",),
        back=Back("gemma"),
        parameters=PARAMETERS,
        tensors=TENSORS | NORMS | {"lm_head": None},
        expects=GELU,
    ),
    Architecture(
        name="gemma2",
        classes=("Gemma2ForCausalLM",),
        back=Back("gemma2", settings=_query_scale(46)),
        parameters=WINDOWED | {"attn_logit_softcapping": real("attn_logit_softcapping")},
        tensors=TENSORS | SANDWICH | {"lm_head": None},
        expects=GELU,
    ),
    Architecture(
        name="gemma3",
        classes=("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"),
        back=Back("gemma3_text", settings=_query_scale(62)),
        parameters=WINDOWED
        | {
            "rope.freq_base": rope_value("rope_theta", default=1e6),
            "rope.freq_base_swa": rope_value("rope_theta", "sliding_attention", default=1e4),
        },
        tensors=TENSORS | SANDWICH | {name: To(target, plus_one) for name, target in QUERY_KEY_NORMS.items()},
        expects=GELU | {"attn_logit_softcapping": ()},
    ),
)
