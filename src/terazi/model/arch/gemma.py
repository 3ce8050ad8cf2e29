"""Gemma 1, 2 and 3 (text) and EmbeddingGemma."""

from __future__ import annotations

from collections.abc import Callable

from terazi.model.arch.change import padded_rows, plus_one
from terazi.model.arch.decoder import PARAMETERS, TENSORS
from terazi.model.arch.qwen import QUERY_KEY_NORMS
from terazi.model.arch.rope import rope_value
from terazi.model.arch.table import Architecture, Back, Settings, To, integer, layers_of_kind, real

__all__ = ["ARCHITECTURES", "GELU", "PER_LAYER", "THIRD", "WINDOWED"]

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

THIRD = WINDOWED | {
    "rope.freq_base": rope_value("rope_theta", default=1e6),
    "rope.freq_base_swa": rope_value("rope_theta", "sliding_attention", default=1e4),
}
"""The same with a rotary base for each kind of layers."""

NORMED_QUERIES = {name: To(target, plus_one) for name, target in QUERY_KEY_NORMS.items()}


PER_LAYER = {
    "lm_head": None,
    "embed_tokens_per_layer": To("per_layer_token_embd", padded_rows("vocab_size")),
    "per_layer_model_projection": "per_layer_model_proj",
    "per_layer_projection_norm": "per_layer_proj_norm",
    "layers.{}.per_layer_input_gate": "blk.{}.inp_gate",
    "layers.{}.per_layer_projection": "blk.{}.proj",
    "layers.{}.post_per_layer_input_norm": "blk.{}.post_norm",
    "layers.{}.post_attention_layernorm": "blk.{}.post_attention_norm",
    "layers.{}.pre_feedforward_layernorm": "blk.{}.ffn_norm",
    "layers.{}.post_feedforward_layernorm": "blk.{}.post_ffw_norm",
}
"""Embeddings per layer, and norms as they are (Gemma 3n and 4)."""


NO_CAP = 2.0**20
"""llama.cpp always limits Gemma 2's logits: so high a limit changes none."""


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
        parameters=WINDOWED
        | {
            "attn_logit_softcapping": real("attn_logit_softcapping", default=50.0, null=NO_CAP),
            "final_logit_softcapping": real("final_logit_softcapping", default=30.0, null=NO_CAP),
        },
        tensors=TENSORS | SANDWICH | {"lm_head": None},
        expects=GELU,
    ),
    Architecture(
        name="gemma3",
        classes=("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"),
        back=Back("gemma3_text", settings=_query_scale(62)),
        parameters=THIRD,
        tensors=TENSORS | SANDWICH | NORMED_QUERIES,
        expects=GELU | {"attn_logit_softcapping": (), "use_bidirectional_attention": (False,)},
    ),
    Architecture(
        name="gemma-embedding",
        classes=("Gemma3TextModel",),
        parameters=THIRD,
        tensors=TENSORS | SANDWICH | NORMED_QUERIES,
        when=lambda settings: settings.get("use_bidirectional_attention") is True,
        expects=GELU | {"attn_logit_softcapping": ()},
        dense=("dense_2", "dense_3"),
    ),
)
