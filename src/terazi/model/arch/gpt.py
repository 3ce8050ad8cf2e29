"""GPT-2 and GPT-NeoX (Pythia)."""

from __future__ import annotations

import numpy as np

from terazi.model.arch.change import regrouped, swapped
from terazi.model.arch.rope import rope, rope_value
from terazi.model.arch.table import Architecture, Back, Settings, To, flag, head_size, integer, real

__all__ = ["ARCHITECTURES"]


def _inner(settings: Settings) -> np.uint32:
    stated = settings.get("n_inner")
    return integer("n_inner")(settings) if stated else np.uint32(4 * int(integer("n_embd")(settings)))


def _rotary(settings: Settings) -> np.uint32:
    fraction = rope(settings)["partial_rotary_factor"] or settings.get("rotary_pct") or 0.25
    return np.uint32(int(head_size(settings)) * fraction)


ARCHITECTURES = (
    Architecture(
        name="gpt2",
        classes=("GPT2LMHeadModel", "GPT2Model"),
        back=Back("gpt2", wrapper="transformer."),
        parameters={
            "block_count": integer("n_layer"),
            "context_length": integer("n_positions", "n_ctx"),
            "embedding_length": integer("n_embd"),
            "feed_forward_length": _inner,
            "attention.head_count": integer("n_head"),
            "attention.layer_norm_epsilon": real("layer_norm_epsilon", default=1e-5),
        },
        tensors={
            "wte": "token_embd",
            "wpe": "position_embd",
            "h.{}.ln_1": "blk.{}.attn_norm",
            "h.{}.attn.c_attn": To("blk.{}.attn_qkv", swapped),
            "h.{}.attn.c_proj": To("blk.{}.attn_output", swapped),
            "h.{}.attn.bias": None,
            "h.{}.attn.masked_bias": None,
            "h.{}.ln_2": "blk.{}.ffn_norm",
            "h.{}.mlp.c_fc": To("blk.{}.ffn_up", swapped),
            "h.{}.mlp.c_proj": To("blk.{}.ffn_down", swapped),
            "ln_f": "output_norm",
            "lm_head": "output",
        },
        expects={"activation_function": ("gelu_new",), "scale_attn_by_inverse_layer_idx": (False,)},
    ),
    Architecture(
        name="gptneox",
        classes=("GPTNeoXForCausalLM",),
        back=Back("gpt_neox", wrapper="gpt_neox."),
        parameters={
            "block_count": integer("num_hidden_layers"),
            "context_length": integer("max_position_embeddings"),
            "embedding_length": integer("hidden_size"),
            "feed_forward_length": integer("intermediate_size"),
            "attention.head_count": integer("num_attention_heads"),
            "attention.layer_norm_epsilon": real("layer_norm_eps", default=1e-5),
            "use_parallel_residual": flag("use_parallel_residual"),
            "rope.dimension_count": _rotary,
            "rope.freq_base": rope_value("rope_theta"),
        },
        tensors={
            "embed_in": "token_embd",
            "layers.{}.input_layernorm": "blk.{}.attn_norm",
            "layers.{}.post_attention_layernorm": "blk.{}.ffn_norm",
            "layers.{}.attention.query_key_value": To("blk.{}.attn_qkv", regrouped("num_attention_heads", 3)),
            "layers.{}.attention.dense": "blk.{}.attn_output",
            "layers.{}.attention.bias": None,
            "layers.{}.attention.masked_bias": None,
            "layers.{}.attention.rotary_emb.inv_freq": None,
            "layers.{}.mlp.dense_h_to_4h": "blk.{}.ffn_up",
            "layers.{}.mlp.dense_4h_to_h": "blk.{}.ffn_down",
            "final_layer_norm": "output_norm",
            "embed_out": "output",
        },
        expects={"hidden_act": ("gelu", "gelu_new", "gelu_fast")},
    ),
)
