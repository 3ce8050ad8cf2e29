"""Gemma 3n (text): alternating updates of four streams, learned residuals, embeddings per layer."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from terazi.errors import FormatError
from terazi.model.arch.change import padded_rows
from terazi.model.arch.decoder import TENSORS
from terazi.model.arch.gemma import GELU, PER_LAYER, THIRD, WINDOWED
from terazi.model.arch.qwen import QUERY_KEY_NORMS
from terazi.model.arch.table import Architecture, Settings, To, integer
from terazi.model.tensor import Tensor

__all__ = ["ARCHITECTURES"]


def _feed_forward(settings: Settings) -> np.uint32:
    """The width, which config.json repeats for every layer; llama.cpp has one."""
    widths = settings.get("intermediate_size")
    if isinstance(widths, list) and len(set(map(str, widths))) == 1:
        return integer("intermediate_size")({"intermediate_size": widths[0]})
    return integer("intermediate_size")(settings)


def _sparsity(settings: Settings) -> np.ndarray:
    """Standard deviations above the mean at which an activation is kept, per layer."""
    from statistics import NormalDist

    shares = settings.get("activation_sparsity_pattern")
    if not isinstance(shares, list) or not all(isinstance(s, int | float) and 0 <= s < 1 for s in shares):
        raise FormatError("config.json", "activation_sparsity_pattern is not a list of shares")
    return np.array([NormalDist().inv_cdf(s) if s > 0 else -np.inf for s in shares], np.float32)


def _unused_keys(settings: Settings) -> Iterator[Tensor]:
    """Yield zeros for the layers that take keys and values from an earlier one.

    llama.cpp does not use them but wants them there; newer checkpoints leave them out.
    """
    layers = int(integer("num_hidden_layers")(settings))
    shared = int(integer("num_kv_shared_layers", default=15)(settings))
    size, heads = (int(WINDOWED[f"attention.{key}"](settings)) for key in ("key_length", "head_count_kv"))
    width = int(integer("hidden_size")(settings))
    for layer in range(max(layers - shared, 0), layers):
        yield Tensor.from_array(f"blk.{layer}.attn_k_norm.weight", np.zeros(size, np.float32))
        for part in "kv":
            rows = np.broadcast_to(np.float16(0), (heads * size, width))
            yield Tensor.from_array(f"blk.{layer}.attn_{part}.weight", rows)


ARCHITECTURES = (
    Architecture(
        name="gemma3n",
        classes=("Gemma3nForCausalLM", "Gemma3nForConditionalGeneration"),
        parameters=THIRD
        | {
            "feed_forward_length": _feed_forward,
            "activation_sparsity_scale": _sparsity,
            "altup.active_idx": integer("altup_active_idx", default=0),
            "altup.num_inputs": integer("altup_num_inputs", default=4),
            "attention.shared_kv_layers": integer("num_kv_shared_layers", default=15),
            "embedding_length_per_layer_input": integer("hidden_size_per_layer_input", default=256),
        },
        tensors=TENSORS
        | QUERY_KEY_NORMS
        | PER_LAYER
        | {
            "embed_tokens": To("token_embd", padded_rows("vocab_size")),
            "altup_projections.{}": "altup_proj",
            "altup_unembed_projections.{}": "altup_unembd_proj",
            "layers.{}.altup.correct_output_scale": "blk.{}.altup_correct_scale.weight",
            "layers.{}.altup.correction_coefs": "blk.{}.altup_correct_coef",
            "layers.{}.altup.prediction_coefs": "blk.{}.altup_predict_coef",
            "layers.{}.altup.modality_router": "blk.{}.altup_router",
            "layers.{}.altup.router_norm": "blk.{}.altup_router_norm",
            "layers.{}.laurel.linear_left": "blk.{}.laurel_l",
            "layers.{}.laurel.linear_right": "blk.{}.laurel_r",
            "layers.{}.laurel.post_laurel_norm": "blk.{}.laurel_post_norm",
        },
        extra=_unused_keys,
        full_precision=("altup_correct_coef", "altup_predict_coef", "altup_router"),
        expects=GELU
        | {
            "altup_num_inputs": (4,),
            "final_logit_softcapping": (30.0,),
            "hidden_size_per_layer_input": (256,),
            "laurel_rank": (64,),
        },
    ),
)
