"""Nomic, Jina 2 and Jina 3 embedding models: BERT with other positions and feed-forward layers."""

from __future__ import annotations

from terazi.model.arch.bert import EMBEDDINGS, ENCODER, GELU, LAYERS, TOKEN_TYPES, UNUSED_HEADS
from terazi.model.arch.rope import rope_value
from terazi.model.arch.table import Architecture, Back, Settings, integer, real

__all__ = ["ARCHITECTURES"]

TENSORS = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.token_type_embeddings": "token_types",
    "emb_ln": "token_embd_norm",
    "encoder.layers.{}.norm1": "blk.{}.attn_output_norm",
    "encoder.layers.{}.mlp.fc2": "blk.{}.ffn_down",
    "encoder.layers.{}.norm2": "blk.{}.layer_output_norm",
}


def _theta(settings: Settings):
    return rope_value("rope_theta")(settings) or real("rotary_emb_base")(settings)


ARCHITECTURES = (
    Architecture(
        name="nomic-bert",
        classes=("NomicBertModel",),
        back=Back("nomic_bert", wrapper=""),
        parameters=ENCODER
        | {
            "block_count": integer("num_hidden_layers", "n_layer"),
            "context_length": integer("max_trained_positions", "max_position_embeddings", "n_positions"),
            "embedding_length": integer("hidden_size", "n_embd"),
            "feed_forward_length": integer("intermediate_size", "n_inner"),
            "attention.head_count": integer("num_attention_heads", "n_head"),
            "attention.layer_norm_epsilon": real("layer_norm_eps", "layer_norm_epsilon", default=1e-12),
            "rope.freq_base": _theta,
        },
        tensors=TENSORS
        | {
            "encoder.layers.{}.attn.Wqkv": "blk.{}.attn_qkv",
            "encoder.layers.{}.attn.out_proj": "blk.{}.attn_output",
            "encoder.layers.{}.mlp.fc11": "blk.{}.ffn_up",
            "encoder.layers.{}.mlp.fc12": "blk.{}.ffn_gate",
        },
        tokenizer=TOKEN_TYPES,
        ignored=UNUSED_HEADS,
        when=lambda settings: not settings.get("moe_every_n_layers"),
        expects={
            "hidden_act": ("silu",),
            "activation_function": ("swiglu",),
            "prenorm": (False,),
            "qkv_proj_bias": (False,),
            "rotary_emb_fraction": (1.0,),
            "rotary_emb_interleaved": (False,),
        },
    ),
    Architecture(
        name="jina-bert-v2",
        classes=("JinaBertModel", "JinaBertForMaskedLM"),
        parameters=ENCODER,
        tensors=EMBEDDINGS
        | LAYERS
        | {
            "encoder.layer.{}.mlp.gated_layers": "blk.{}.ffn_up",
            "encoder.layer.{}.mlp.wo": "blk.{}.ffn_down",
            "encoder.layer.{}.mlp.layernorm": "blk.{}.layer_output_norm",
        },
        tokenizer=TOKEN_TYPES,
        ignored=UNUSED_HEADS,
        expects={
            "hidden_act": ("gelu",),
            "position_embedding_type": ("alibi",),
            "feed_forward_type": ("geglu",),
        },
    ),
    Architecture(
        name="jina-bert-v3",
        classes=("JinaEmbeddingsV3Model",),
        back=Back("jina_embeddings_v3", wrapper=""),
        parameters=ENCODER | {"rope.freq_base": _theta},
        tensors=TENSORS
        | {
            "encoder.layers.{}.mixer.Wqkv": "blk.{}.attn_qkv",
            "encoder.layers.{}.mixer.out_proj": "blk.{}.attn_output",
            "encoder.layers.{}.mlp.fc1": "blk.{}.ffn_up",
        },
        tokenizer=TOKEN_TYPES,
        ignored=UNUSED_HEADS,
        expects=GELU,
    ),
)
