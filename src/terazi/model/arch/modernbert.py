"""ModernBERT and EuroBERT encoders."""

from __future__ import annotations

from terazi.model.arch.bert import ENCODER
from terazi.model.arch.decoder import PARAMETERS, TENSORS
from terazi.model.arch.rope import rope_value
from terazi.model.arch.table import Architecture, Back, Settings, constant, integer, real, text

__all__ = ["ARCHITECTURES"]


def _theta(name: str, layers: str, default: float):
    """Rotary base of one kind of layers: by kind in transformers 5, under a name of its own before."""

    def read(settings: Settings):
        return rope_value("rope_theta", layers)(settings) or real(name, default=default)(settings)

    return read


ARCHITECTURES = (
    Architecture(
        name="modern-bert",
        classes=("ModernBertModel", "ModernBertForMaskedLM"),
        back=Back("modernbert", "", lambda found: {"sliding_window": found["local_attention"] // 2}),
        parameters=ENCODER
        | {
            "attention.layer_norm_epsilon": real("norm_eps", default=1e-5),
            "attention.sliding_window": integer("local_attention", "sliding_window"),
            "attention.sliding_window_pattern": integer("global_attn_every_n_layers", default=3),
            "hidden_activation": text("hidden_activation"),
            "rope.freq_base": _theta("global_rope_theta", "full_attention", 160000.0),
            "rope.freq_base_swa": _theta("local_rope_theta", "sliding_attention", 10000.0),
            "vocab_size": integer("vocab_size"),
        },
        tensors={
            "embeddings.tok_embeddings": "token_embd",
            "embeddings.norm": "token_embd_norm",
            "layers.{}.attn_norm": "blk.{}.attn_norm",
            "layers.{}.attn.Wqkv": "blk.{}.attn_qkv",
            "layers.{}.attn.Wo": "blk.{}.attn_output",
            "layers.{}.mlp_norm": "blk.{}.ffn_norm",
            "layers.{}.mlp.Wi": "blk.{}.ffn_up",
            "layers.{}.mlp.Wo": "blk.{}.ffn_down",
            "final_norm": "output_norm",
        },
        ignored=("head.", "decoder."),
        expects={
            "hidden_activation": ("gelu", "silu"),
            "norm_bias": (False,),
            "attention_bias": (False,),
            "mlp_bias": (False,),
        },
    ),
    Architecture(
        name="eurobert",
        classes=("EuroBertModel", "EuroBertForMaskedLM"),
        back=Back("eurobert", wrapper=""),
        parameters=PARAMETERS | {"attention.causal": constant(False)},
        tensors=TENSORS,
        ignored=("lm_head.",),
        expects={"hidden_act": ("silu",)},
    ),
)
