"""The tables most decoders share: Llama's hyperparameters and tensor names under their usual words."""

from __future__ import annotations

from terazi.model.arch.rope import ROPE
from terazi.model.arch.table import Reader, To, head_size, integer, real

__all__ = ["ATTENTION", "EXPERTS", "GATED", "HEAD", "LAYER_NORMED", "PARAMETERS", "SHARED_EXPERT", "TENSORS"]

Names = dict[str, str | To | tuple[str | To, ...] | None]

PARAMETERS: dict[str, Reader] = {
    "block_count": integer("num_hidden_layers"),
    "context_length": integer("max_position_embeddings"),
    "embedding_length": integer("hidden_size"),
    "feed_forward_length": integer("intermediate_size"),
    "vocab_size": integer("vocab_size"),
    "attention.head_count": integer("num_attention_heads"),
    "attention.head_count_kv": integer("num_key_value_heads", "num_attention_heads"),
    "attention.key_length": head_size,
    "attention.value_length": head_size,
    "attention.layer_norm_rms_epsilon": real("rms_norm_eps", default=1e-6),
    **ROPE,
}

LAYER_NORMED = {key: read for key, read in PARAMETERS.items() if not key.endswith("rms_epsilon")}
"""The same for models with LayerNorm, which say ``attention.layer_norm_epsilon`` themselves."""

ATTENTION: Names = {
    "layers.{}.input_layernorm": "blk.{}.attn_norm",
    "layers.{}.self_attn.q_proj": "blk.{}.attn_q",
    "layers.{}.self_attn.k_proj": "blk.{}.attn_k",
    "layers.{}.self_attn.v_proj": "blk.{}.attn_v",
    "layers.{}.self_attn.o_proj": "blk.{}.attn_output",
    "layers.{}.self_attn.rotary_emb.inv_freq": None,
}

GATED: Names = {
    "layers.{}.post_attention_layernorm": "blk.{}.ffn_norm",
    "layers.{}.mlp.gate_proj": "blk.{}.ffn_gate",
    "layers.{}.mlp.up_proj": "blk.{}.ffn_up",
    "layers.{}.mlp.down_proj": "blk.{}.ffn_down",
}

HEAD: Names = {
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "lm_head": "output",
    "rotary_emb.inv_freq": None,
}

EXPERTS: Names = {
    "layers.{}.mlp.gate": "blk.{}.ffn_gate_inp",
    "layers.{}.mlp.experts.{}.gate_proj": "blk.{}.ffn_gate_exps",
    "layers.{}.mlp.experts.{}.up_proj": "blk.{}.ffn_up_exps",
    "layers.{}.mlp.experts.{}.down_proj": "blk.{}.ffn_down_exps",
}

SHARED_EXPERT: Names = {
    "layers.{}.mlp.shared_expert.gate_proj": "blk.{}.ffn_gate_shexp",
    "layers.{}.mlp.shared_expert.up_proj": "blk.{}.ffn_up_shexp",
    "layers.{}.mlp.shared_expert.down_proj": "blk.{}.ffn_down_shexp",
    "layers.{}.mlp.shared_expert_gate": "blk.{}.ffn_gate_inp_shexp",
}

TENSORS: Names = {**HEAD, **ATTENTION, **GATED}
