"""BERT and RoBERTa encoders: sentence embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from terazi.errors import FormatError
from terazi.model.arch.change import skipping_rows
from terazi.model.arch.table import Architecture, Back, Reader, Settings, Source, To, constant, integer, real
from terazi.model.tensor import Tensor

__all__ = ["ARCHITECTURES", "EMBEDDINGS", "ENCODER", "GELU", "LAYERS", "TOKEN_TYPES", "UNUSED_HEADS"]

ENCODER: dict[str, Reader] = {
    "block_count": integer("num_hidden_layers"),
    "context_length": integer("max_position_embeddings"),
    "embedding_length": integer("hidden_size"),
    "feed_forward_length": integer("intermediate_size"),
    "attention.head_count": integer("num_attention_heads"),
    "attention.layer_norm_epsilon": real("layer_norm_eps", default=1e-12),
    "attention.causal": constant(False),
}

LAYERS = {
    "encoder.layer.{}.attention.self.query": "blk.{}.attn_q",
    "encoder.layer.{}.attention.self.key": "blk.{}.attn_k",
    "encoder.layer.{}.attention.self.value": "blk.{}.attn_v",
    "encoder.layer.{}.attention.output.dense": "blk.{}.attn_output",
    "encoder.layer.{}.attention.output.LayerNorm": "blk.{}.attn_output_norm",
    "encoder.layer.{}.intermediate.dense": "blk.{}.ffn_up",
    "encoder.layer.{}.output.dense": "blk.{}.ffn_down",
    "encoder.layer.{}.output.LayerNorm": "blk.{}.layer_output_norm",
}

EMBEDDINGS = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
    "embeddings.position_ids": None,
    "embeddings.token_type_ids": None,
}

TOKEN_TYPES = {"tokenizer.ggml.token_type_count": integer("type_vocab_size", default=1)}
GELU = {"hidden_act": ("gelu", "gelu_new", "gelu_pytorch_tanh")}
UNUSED_HEADS = ("pooler.", "cls.", "lm_head.")

DISTILBERT = {
    "layer.{}.attention.q_lin": "blk.{}.attn_q",
    "layer.{}.attention.k_lin": "blk.{}.attn_k",
    "layer.{}.attention.v_lin": "blk.{}.attn_v",
    "layer.{}.attention.out_lin": "blk.{}.attn_output",
    "layer.{}.sa_layer_norm": "blk.{}.attn_output_norm",
    "layer.{}.ffn.lin1": "blk.{}.ffn_up",
    "layer.{}.ffn.lin2": "blk.{}.ffn_down",
    "layer.{}.output_layer_norm": "blk.{}.layer_output_norm",
}


def _reserved_positions(source: Source) -> int:
    return int(integer("pad_token_id", default=1)(source.settings)) + 1


def _positions(settings: Mapping) -> np.uint32:
    """Positions that text can use: RoBERTa counts from the padding token's number plus one."""
    reserved = int(integer("pad_token_id", default=1)(settings)) + 1
    total = int(integer("max_position_embeddings")(settings))
    if total <= reserved:
        raise FormatError(
            "config.json", f"max_position_embeddings is {total}, of which {reserved} are reserved"
        )
    return np.uint32(total - reserved)


def _token_types(settings: Settings) -> Iterator[Tensor]:
    """Yield zeros for BERT's embedding of two texts, which DistilBERT does without."""
    shape = (int(integer("type_vocab_size", default=2)(settings)), int(integer("hidden_size")(settings)))
    yield Tensor.from_array("embeddings.token_type_embeddings.weight", np.zeros(shape, np.float32))


ARCHITECTURES = (
    Architecture(
        name="bert",
        classes=("BertModel", "BertForMaskedLM"),
        back=Back("bert", wrapper="", extra=_token_types),
        parameters=ENCODER,
        tensors=EMBEDDINGS | LAYERS,
        tokenizer=TOKEN_TYPES,
        ignored=UNUSED_HEADS,
        expects=GELU | {"position_embedding_type": ("absolute",)},
    ),
    Architecture(
        name="bert",
        classes=(
            "RobertaModel",
            "RobertaForMaskedLM",
            "XLMRobertaModel",
            "XLMRobertaForMaskedLM",
            "CamembertModel",
        ),
        parameters=ENCODER | {"context_length": _positions},
        tensors=EMBEDDINGS
        | LAYERS
        | {"embeddings.position_embeddings": To("position_embd", skipping_rows(_reserved_positions))},
        tokenizer=TOKEN_TYPES,
        ignored=UNUSED_HEADS,
        expects=GELU | {"position_embedding_type": ("absolute",)},
    ),
    Architecture(
        name="bert",
        classes=("DistilBertModel", "DistilBertForMaskedLM"),
        parameters=ENCODER
        | {
            "block_count": integer("n_layers"),
            "embedding_length": integer("dim"),
            "feed_forward_length": integer("hidden_dim"),
            "attention.head_count": integer("n_heads"),
        },
        tensors=EMBEDDINGS | DISTILBERT,
        tokenizer=TOKEN_TYPES,
        ignored=("vocab_",),
        expects={"activation": ("gelu",)},
    ),
)
