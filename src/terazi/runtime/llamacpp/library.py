"""The C interface of llama.cpp: struct layouts, signatures and the checks that they are what was pinned.

`xllamacpp` ships llama.cpp as one shared object that exports the C interface beside its Python classes. It is
called through ctypes, so a layout that differs would corrupt memory: `load` compares the version with the one
these declarations were written for, and every default that llama.cpp fills in with what it must be.
Declarations follow ``include/llama.h`` of llama.cpp b11549.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int8, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from functools import cache
from importlib import metadata, util
from pathlib import Path
from typing import Any, ClassVar

from terazi.errors import EngineError

__all__ = [
    "PINNED",
    "POOLING",
    "Batch",
    "ContextParameters",
    "EvaluationCallback",
    "ModelParameters",
    "load",
    "version",
]

PINNED = "2026.10.11549"
POOLING = {"none": 0, "mean": 1, "cls": 2, "last": 3, "rank": 4}

# bool callback(struct ggml_tensor * tensor, bool ask, void * user_data): ggml_backend_sched_eval_callback
EvaluationCallback = ctypes.CFUNCTYPE(c_bool, c_void_p, c_bool, c_void_p)


class ModelParameters(ctypes.Structure):
    """``struct llama_model_params``."""

    _fields_: ClassVar = [
        ("devices", c_void_p),
        ("tensor_buft_overrides", c_void_p),
        ("n_gpu_layers", c_int32),
        ("split_mode", c_int32),
        ("load_mode", c_int32),
        ("lazy_mode", c_int32),
        ("main_gpu", c_int32),
        ("tensor_split", c_void_p),
        ("progress_callback", c_void_p),
        ("progress_callback_user_data", c_void_p),
        ("kv_overrides", c_void_p),
        ("vocab_only", c_bool),
        ("check_tensors", c_bool),
        ("use_extra_bufts", c_bool),
        ("no_host", c_bool),
        ("no_alloc", c_bool),
        ("load_mtp", c_bool),
    ]


class ContextParameters(ctypes.Structure):
    """``struct llama_context_params``.

    The three pointers between the cache types and the booleans hold the abort callback, its data and one
    more; Terazi leaves them alone.
    """

    _fields_: ClassVar = [
        ("n_ctx", c_uint32),
        ("n_batch", c_uint32),
        ("n_ubatch", c_uint32),
        ("n_seq_max", c_uint32),
        ("n_rs_seq", c_uint32),
        ("n_outputs_max", c_uint32),
        ("n_outputs_max_per_seq", c_uint32),
        ("n_threads", c_int32),
        ("n_threads_batch", c_int32),
        ("ctx_type", c_int32),
        ("rope_scaling_type", c_int32),
        ("pooling_type", c_int32),
        ("attention_type", c_int32),
        ("flash_attn_type", c_int32),
        ("rope_freq_base", c_float),
        ("rope_freq_scale", c_float),
        ("yarn_ext_factor", c_float),
        ("yarn_attn_factor", c_float),
        ("yarn_beta_fast", c_float),
        ("yarn_beta_slow", c_float),
        ("yarn_orig_ctx", c_uint32),
        ("defrag_thold", c_float),
        ("cb_eval", EvaluationCallback),
        ("cb_eval_user_data", c_void_p),
        ("type_k", c_int32),
        ("type_v", c_int32),
        ("untouched", c_void_p * 3),
        ("embeddings", c_bool),
        ("offload_kqv", c_bool),
        ("no_perf", c_bool),
        ("op_offload", c_bool),
        ("swa_full", c_bool),
        ("kv_unified", c_bool),
        ("samplers", c_void_p),
        ("n_samplers", c_size_t),
        ("ctx_other", c_void_p),
    ]


class Batch(ctypes.Structure):
    """``struct llama_batch``: parallel arrays of length ``n_tokens``."""

    _fields_: ClassVar = [
        ("n_tokens", c_int32),
        ("token", POINTER(c_int32)),
        ("embd", POINTER(c_float)),
        ("pos", POINTER(c_int32)),
        ("n_seq_id", POINTER(c_int32)),
        ("seq_id", POINTER(POINTER(c_int32))),
        ("logits", POINTER(c_int8)),
    ]


class _SamplerChainParameters(ctypes.Structure):
    """``struct llama_sampler_chain_params``."""

    _fields_: ClassVar = [("no_perf", c_bool)]


_FLOATS = POINTER(c_float)
_TOKENS = POINTER(c_int32)
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "llama_backend_init": (None, []),
    "llama_supports_gpu_offload": (c_bool, []),
    "llama_log_set": (None, [c_void_p, c_void_p]),
    "llama_model_default_params": (ModelParameters, []),
    "llama_context_default_params": (ContextParameters, []),
    "llama_sampler_chain_default_params": (_SamplerChainParameters, []),
    "llama_model_load_from_file": (c_void_p, [c_char_p, ModelParameters]),
    "llama_model_free": (None, [c_void_p]),
    "llama_init_from_model": (c_void_p, [c_void_p, ContextParameters]),
    "llama_free": (None, [c_void_p]),
    "llama_n_ctx": (c_uint32, [c_void_p]),
    "llama_n_ctx_seq": (c_uint32, [c_void_p]),
    "llama_n_batch": (c_uint32, [c_void_p]),
    "llama_n_ubatch": (c_uint32, [c_void_p]),
    "llama_n_seq_max": (c_uint32, [c_void_p]),
    "llama_n_threads": (c_int32, [c_void_p]),
    "llama_n_threads_batch": (c_int32, [c_void_p]),
    "llama_pooling_type": (c_int32, [c_void_p]),
    "llama_get_memory": (c_void_p, [c_void_p]),
    "llama_memory_clear": (None, [c_void_p, c_bool]),
    "llama_model_get_vocab": (c_void_p, [c_void_p]),
    "llama_model_n_ctx_train": (c_int32, [c_void_p]),
    "llama_model_n_embd": (c_int32, [c_void_p]),
    "llama_model_n_embd_out": (c_int32, [c_void_p]),
    "llama_model_n_params": (c_uint64, [c_void_p]),
    "llama_model_size": (c_uint64, [c_void_p]),
    "llama_model_desc": (c_int32, [c_void_p, c_char_p, c_size_t]),
    "llama_model_has_encoder": (c_bool, [c_void_p]),
    "llama_model_has_decoder": (c_bool, [c_void_p]),
    "llama_model_meta_val_str": (c_int32, [c_void_p, c_char_p, c_char_p, c_size_t]),
    "llama_model_chat_template": (c_char_p, [c_void_p, c_char_p]),
    "llama_vocab_n_tokens": (c_int32, [c_void_p]),
    "llama_vocab_bos": (c_int32, [c_void_p]),
    "llama_vocab_eos": (c_int32, [c_void_p]),
    "llama_vocab_get_add_bos": (c_bool, [c_void_p]),
    "llama_vocab_get_add_eos": (c_bool, [c_void_p]),
    "llama_vocab_is_eog": (c_bool, [c_void_p, c_int32]),
    "llama_vocab_get_text": (c_char_p, [c_void_p, c_int32]),
    "llama_tokenize": (c_int32, [c_void_p, c_char_p, c_int32, _TOKENS, c_int32, c_bool, c_bool]),
    "llama_detokenize": (c_int32, [c_void_p, _TOKENS, c_int32, c_char_p, c_int32, c_bool, c_bool]),
    "llama_token_to_piece": (c_int32, [c_void_p, c_int32, c_char_p, c_int32, c_int32, c_bool]),
    "llama_batch_init": (Batch, [c_int32, c_int32, c_int32]),
    "llama_batch_free": (None, [Batch]),
    "llama_encode": (c_int32, [c_void_p, Batch]),
    "llama_decode": (c_int32, [c_void_p, Batch]),
    "llama_synchronize": (None, [c_void_p]),
    "llama_get_logits": (_FLOATS, [c_void_p]),
    "llama_get_embeddings_seq": (_FLOATS, [c_void_p, c_int32]),
    "llama_sampler_chain_init": (c_void_p, [_SamplerChainParameters]),
    "llama_sampler_chain_add": (None, [c_void_p, c_void_p]),
    "llama_sampler_init_greedy": (c_void_p, []),
    "llama_sampler_init_dist": (c_void_p, [c_uint32]),
    "llama_sampler_init_top_k": (c_void_p, [c_int32]),
    "llama_sampler_init_top_p": (c_void_p, [c_float, c_size_t]),
    "llama_sampler_init_min_p": (c_void_p, [c_float, c_size_t]),
    "llama_sampler_init_temp": (c_void_p, [c_float]),
    "llama_sampler_sample": (c_int32, [c_void_p, c_void_p, c_int32]),
    "llama_sampler_free": (None, [c_void_p]),
}

# What llama.cpp b11549 fills in. Chosen so that any shifted, missing or additional field shows.
_MODEL_DEFAULTS = {
    "n_gpu_layers": -1,
    "split_mode": 1,
    "load_mode": -1,
    "lazy_mode": 1,
    "main_gpu": 0,
    "use_extra_bufts": True,
    "vocab_only": False,
    "check_tensors": False,
    "no_host": False,
    "no_alloc": False,
    "load_mtp": False,
}
_CONTEXT_DEFAULTS = {
    "n_ctx": 512,
    "n_batch": 2048,
    "n_ubatch": 512,
    "n_seq_max": 1,
    "n_outputs_max": 0,
    "n_outputs_max_per_seq": 1,
    "n_threads": 4,
    "n_threads_batch": 4,
    "ctx_type": 0,
    "rope_scaling_type": -1,
    "pooling_type": -1,
    "attention_type": -1,
    "flash_attn_type": -1,
    "yarn_ext_factor": -1.0,
    "yarn_attn_factor": -1.0,
    "yarn_beta_fast": -1.0,
    "yarn_beta_slow": -1.0,
    "yarn_orig_ctx": 0,
    "defrag_thold": -1.0,
    "type_k": 1,
    "type_v": 1,
    "embeddings": False,
    "offload_kqv": True,
    "no_perf": True,
    "op_offload": True,
    "swa_full": True,
    "kv_unified": False,
}


def version() -> str:
    """Return the installed xllamacpp version; `EngineError` when it is absent or not the pinned one."""
    try:
        installed = metadata.version("xllamacpp")
    except metadata.PackageNotFoundError:
        raise EngineError("xllamacpp is not installed", hint=f"pip install xllamacpp=={PINNED}") from None
    if installed.partition("+")[0] != PINNED:  # after it builds for GPUs may name what they are for
        raise EngineError(
            f"xllamacpp {installed} is installed, but its C interface was checked only for {PINNED}",
            hint=f"pip install xllamacpp=={PINNED}",
        )
    return installed


@cache
def load() -> ctypes.CDLL:
    """Load the shared object, declare its functions, compare the struct layouts and start the backend.

    Raises `EngineError` when anything differs from what this module declares.
    """
    version()
    spec = util.find_spec("xllamacpp")
    places = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    suffix = "*.pyd" if sys.platform == "win32" else "*.so"
    files = [file for place in places for file in sorted(place.glob(suffix))]
    if not files:
        raise EngineError("xllamacpp is installed without its shared object", hint="reinstall xllamacpp")
    try:
        library = ctypes.CDLL(str(files[0]))
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise EngineError(f"{files[0].name} cannot be used: {error}") from None
    _compare("llama_model_params", library.llama_model_default_params(), _MODEL_DEFAULTS)
    _compare("llama_context_params", library.llama_context_default_params(), _CONTEXT_DEFAULTS)
    library.llama_backend_init()
    return library


def _compare(name: str, defaults: ctypes.Structure, expected: dict[str, Any]) -> None:
    wrong = [field for field, value in expected.items() if getattr(defaults, field) != value]
    pointers = [
        field
        for field, kind, *_ in defaults._fields_
        if kind in (c_void_p, c_size_t, EvaluationCallback) and getattr(defaults, field)
    ]
    if wrong or pointers:
        raise EngineError(
            f"the layout of {name} is not the declared one ({', '.join(wrong + pointers)})",
            hint=f"pip install --force-reinstall xllamacpp=={PINNED}",
        )
