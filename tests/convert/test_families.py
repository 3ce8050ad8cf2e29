"""Every architecture: random weights from transformers, converted, give llama.cpp the same logits."""

import json

import numpy as np
import pytest

from terazi.convert import huggingface
from terazi.convert.gguf import to_gguf
from terazi.errors import UnsupportedError
from terazi.formats import gguf, open_model

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

VOCABULARY = 320
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": None,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}


def longrope(original):
    """LongRoPE within the original context (llama.cpp rounds contexts up to 256) or beyond it."""
    factors = {"long_factor": [4.0, 3.0, 2.0, 4.0, 3.0, 2.0], "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5]}
    common = {"rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.75}
    return {
        "original_max_position_embeddings": original,
        "rope_parameters": common | factors | {"original_max_position_embeddings": original},
    }


EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}

# Name -> transformers class and what its configuration has beyond `SMALL`.
DECODERS = {
    "llama": ("Llama", {}),
    "llama-tied": ("Llama", {"tie_word_embeddings": True}),
    "llama-biases": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "llama-llama3": ("Llama", {"rope_parameters": LLAMA3}),
    "llama-linear": (
        "Llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}},
    ),
    "llama-head-size": ("Llama", {"head_dim": 32}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "mixtral": ("Mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None}),
    "qwen2": ("Qwen2", {}),
    "qwen2-yarn": ("Qwen2", {"rope_parameters": YARN}),
    "qwen3": ("Qwen3", {"head_dim": 32}),
    "qwen3-tied": ("Qwen3", {"head_dim": 16, "tie_word_embeddings": True}),
    "qwen2moe": ("Qwen2Moe", EXPERTS | {"num_experts": 4, "shared_expert_intermediate_size": 64}),
    "qwen3moe": ("Qwen3Moe", EXPERTS | {"num_experts": 4, "head_dim": 16, "norm_topk_prob": True}),
}

DECODERS |= {
    "smollm3": ("SmolLM3", {"num_hidden_layers": 5}),
    "ministral3": (
        "Ministral3",
        {
            "head_dim": 16,
            "rope_parameters": YARN
            | {
                "original_max_position_embeddings": 16,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "llama_4_scaling_beta": 0.1,
            },
        },
    ),
    "gemma": ("Gemma", {"head_dim": 16}),
    "gemma2": ("Gemma2", {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 8}),
    "gemma3": (
        "Gemma3",
        {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 8, "num_hidden_layers": 7},
    ),
    "phi2": ("Phi", {"partial_rotary_factor": 0.5}),
    "phi3": ("Phi3", {}),
    "phi3-short-context": ("Phi3", {"max_position_embeddings": 1024} | longrope(256)),
    "phi3-long-context": ("Phi3", longrope(32)),
    "olmo": ("Olmo", {"clip_qkv": 2.0}),
    "olmo2": ("Olmo2", {}),
    "olmo3": ("Olmo3", {"sliding_window": 8, "num_hidden_layers": 4}),
    "olmoe": ("Olmoe", {"num_experts": 4, "num_experts_per_tok": 2, "num_key_value_heads": 4}),
    "granite": (
        "Granite",
        {
            "attention_multiplier": 0.2,
            "embedding_multiplier": 3.0,
            "residual_multiplier": 0.5,
            "logits_scaling": 4.0,
        },
    ),
    "granitemoe": ("GraniteMoe", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "granitemoeshared": (
        "GraniteMoeShared",
        {"num_local_experts": 4, "num_experts_per_tok": 2, "shared_intermediate_size": 64},
    ),
    "starcoder2": ("Starcoder2", {"sliding_window": None}),
    "gpt2": ("GPT2", {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 256}),
    "gptneox": ("GPTNeoX", {"rotary_pct": 0.25}),
    "gptneox-serial": ("GPTNeoX", {"use_parallel_residual": False}),
    "command-r": ("Cohere", {"logit_scale": 0.5}),
    "command-r-norms": (
        "Cohere",
        {"use_qk_norm": True, "num_hidden_layers": 64, "hidden_size": 32, "num_attention_heads": 2},
    ),
    "cohere2": ("Cohere2", {"sliding_window": 8, "num_hidden_layers": 5}),
    "lfm2": ("Lfm2", {"layer_types": ["conv", "full_attention", "conv"], "conv_L_cache": 3}),
    "mamba": ("Mamba", {"state_size": 16, "intermediate_size": 128}),
    "mamba2": (
        "Mamba2",
        {"state_size": 16, "num_heads": 8, "head_dim": 16, "n_groups": 2, "chunk_size": 16},
    ),
}

HYBRID = {
    "layer_types": ["mamba", "attention", "mamba"],
    "mamba_n_heads": 8,
    "mamba_d_head": 16,
    "mamba_n_groups": 2,
    "mamba_d_state": 16,
    "mamba_chunk_size": 16,
    "shared_intermediate_size": 64,
    "attention_multiplier": 0.2,
    "embedding_multiplier": 3.0,
    "logits_scaling": 4.0,
}
DELTA = {
    "head_dim": 32,
    "num_hidden_layers": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
DECODERS |= {
    "granitehybrid": ("GraniteMoeHybrid", HYBRID | {"num_local_experts": 0}),
    "granitehybrid-rope": (
        "GraniteMoeHybrid",
        HYBRID | {"num_local_experts": 0, "position_embedding_type": "rope"},
    ),
    "granitehybrid-experts": ("GraniteMoeHybrid", HYBRID | {"num_local_experts": 4}),
    "qwen35": ("Qwen3_5", DELTA),
    "qwen35-equal-heads": ("Qwen3_5", DELTA | {"linear_num_key_heads": 4}),
    "qwen35moe": (
        "Qwen3_5Moe",
        DELTA | EXPERTS | {"num_experts": 4, "shared_expert_intermediate_size": 64},
    ),
    "gemma3n": (
        "Gemma3n",
        {
            "head_dim": 16,
            "num_hidden_layers": 25,
            "num_kv_shared_layers": 5,
            "vocab_size_per_layer_input": VOCABULARY,
            "sliding_window": 8,
        },
    ),
    "gemma4": (
        "Gemma4",
        {
            "head_dim": 16,
            "global_head_dim": 32,
            "num_hidden_layers": 7,
            "hidden_size_per_layer_input": 32,
            "vocab_size_per_layer_input": VOCABULARY,
            "sliding_window": 8,
            "num_kv_shared_layers": 1,
            "use_double_wide_mlp": True,
        },
    ),
    "gemma4-shared-values": (
        "Gemma4",
        {
            "head_dim": 16,
            "global_head_dim": 32,
            "num_global_key_value_heads": 1,
            "attention_k_eq_v": True,
            "num_hidden_layers": 6,
            "hidden_size_per_layer_input": 0,
            "sliding_window": 8,
            "final_logit_softcapping": 30.0,
        },
    ),
    "llama4": (
        "Llama4",
        {
            "head_dim": 16,
            "num_hidden_layers": 4,
            "intermediate_size_mlp": 128,
            "num_local_experts": 4,
            "interleave_moe_layer_step": 2,
        },
    ),
}

DECODERS |= {
    "gemma2-no-softcaps": (
        "Gemma2",
        {
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "sliding_window": 8,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
        },
    ),
    "gemma4-experts": (
        "Gemma4",
        {
            "head_dim": 16,
            "global_head_dim": 32,
            "num_hidden_layers": 6,
            "hidden_size_per_layer_input": 0,
            "sliding_window": 8,
            "enable_moe_block": True,
            "num_experts": 4,
            "top_k_experts": 2,
            "moe_intermediate_size": 32,
        },
    ),
    "gpt-oss": (
        "GptOss",
        {
            "head_dim": 16,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "sliding_window": 8,
            "num_hidden_layers": 4,
            "rope_parameters": YARN | {"truncate": True},
        },
    ),
    "lfm2moe": (
        "Lfm2Moe",
        EXPERTS
        | {
            "layer_types": ["conv", "full_attention", "conv"],
            "conv_L_cache": 3,
            "num_experts": 4,
            "num_dense_layers": 1,
        },
    ),
    "qwen3next": (
        "Qwen3Next",
        DELTA | EXPERTS | {"num_experts": 4, "shared_expert_intermediate_size": 64},
    ),
    "ernie4_5": ("Ernie4_5", {"head_dim": 16}),
    "ernie4_5-moe": (
        "Ernie4_5_Moe",
        {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 32, "moe_num_shared_experts": 2},
    ),
    "hunyuan-dense": (
        "HunYuanDenseV1",
        {
            "head_dim": 16,
            "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "alpha": 1000.0, "factor": 1.0},
        },
    ),
    "exaone4": ("Exaone4", {"sliding_window": None, "layer_types": ["full_attention"] * 3}),
    "exaone4-window": (
        "Exaone4",
        {"sliding_window": 8, "num_hidden_layers": 64, "hidden_size": 32, "num_attention_heads": 2},
    ),
    "stablelm": ("StableLm", {"partial_rotary_factor": 0.5, "use_qkv_bias": True}),
    "seed_oss": ("SeedOss", {"head_dim": 16, "attention_bias": True, "attention_out_bias": False}),
    "falcon-h1": (
        "FalconH1",
        {
            "mamba_d_ssm": 128,
            "mamba_n_heads": 8,
            "mamba_d_head": 16,
            "mamba_n_groups": 2,
            "mamba_d_state": 16,
            "mamba_chunk_size": 16,
            "mamba_norm_before_gate": False,
            "mamba_rms_norm": True,
            "embedding_multiplier": 2.0,
            "lm_head_multiplier": 0.5,
            "mlp_multipliers": [0.8, 1.3],
            "key_multiplier": 0.7,
            "attention_in_multiplier": 1.2,
            "attention_out_multiplier": 0.9,
            "ssm_multipliers": [0.9, 1.1, 0.8, 1.2, 0.7],
            "ssm_in_multiplier": 1.1,
            "ssm_out_multiplier": 0.6,
        },
    ),
    "glm4": ("Glm4", {"head_dim": 16, "partial_rotary_factor": 0.5}),
    "nemotron": ("Nemotron", {}),
    "arcee": ("Arcee", {}),
}

# Encoders: name -> transformers class and what its configuration has beyond `SMALL`.
ENCODERS = {
    "bert": ("Bert", {}),
    "roberta": ("Roberta", {"pad_token_id": 1}),
    "xlm-roberta": ("XLMRoberta", {"pad_token_id": 1, "type_vocab_size": 1}),
    "distilbert": ("DistilBert", {"dim": 64, "hidden_dim": 96, "n_layers": 3, "n_heads": 4}),
    "modern-bert": (
        "ModernBert",
        {"num_hidden_layers": 5, "local_attention": 16, "norm_eps": 1e-5, "num_key_value_heads": None},
    ),
    "nomic-bert": ("NomicBert", {"pad_token_id": 0}),
    "jina-bert-v3": ("JinaEmbeddingsV3", {"pad_token_id": 1}),
    "eurobert": ("EuroBert", {"pad_token_id": 1, "mask_token_id": 2}),
}

TOKENS = np.random.default_rng(7).integers(1, VOCABULARY, 48)


# llama.cpp computes GELU from a table of half-precision values.
GELU = {"gemma", "gemma2", "gemma3", "gemma4", "gemma4-shared-values", "phi2", "starcoder2", "gpt2"}
GELU |= {"gptneox", "gptneox-serial", "gemma2-no-softcaps", "gemma4-experts"}


def build(name, extra):
    config_class = {
        "Gemma3": "Gemma3TextConfig",
        "Gemma3n": "Gemma3nTextConfig",
        "Gemma4": "Gemma4TextConfig",
        "Llama4": "Llama4TextConfig",
        "Qwen3_5": "Qwen3_5TextConfig",
        "Qwen3_5Moe": "Qwen3_5MoeTextConfig",
    }.get(name, f"{name}Config")
    model_class = {"GPT2": "GPT2LMHeadModel"}.get(name, f"{name}ForCausalLM")
    config = getattr(transformers, config_class)(**(SMALL | extra))
    config._attn_implementation = "eager"
    return getattr(transformers, model_class)(config).eval()


def build_encoder(name, extra):
    config = getattr(transformers, f"{name}Config")(**(SMALL | extra))
    config._attn_implementation = "eager"
    return getattr(transformers, f"{name}Model")(config).eval()


# The largest difference allowed, as a share of the logits' spread (2e-4 where nothing is said): both compute
# in float32, in different orders.
# Gemma 4 has 14 of that GELU, Gemma 3n 25 layers with it.
TOLERANCES = dict.fromkeys(GELU, 3e-3) | {"gemma4": 5e-3, "gemma3n": 5e-2}


@pytest.fixture
def as_llama_cpp_counts(monkeypatch):
    """Gemma 3n's sparse activations: llama.cpp divides by n - 1 where transformers divides by n."""
    deviation = torch.std
    monkeypatch.setattr(torch, "std", lambda x, **options: deviation(x, **(options | {"unbiased": True})))


# Variants of an architecture that is tested anyway, and what takes more than two seconds.
SLOW = {
    "llama-tied",
    "llama-linear",
    "llama-head-size",
    "qwen3-tied",
    "phi3-short-context",
    "granitemoeshared",
    "gptneox-serial",
    "command-r-norms",
    "qwen35-equal-heads",
    "granitehybrid-rope",
}


@pytest.mark.parametrize(
    "family", [pytest.param(f, marks=pytest.mark.slow if f in SLOW else ()) for f in DECODERS]
)
def test_logits_match_transformers(family, save, convert, llama_cpp, as_llama_cpp_counts):
    model = build(*DECODERS[family])
    path = convert(save(model))
    with torch.no_grad():
        expected = model(torch.tensor(TOKENS[None])).logits[0].numpy()
    logits = llama_cpp(path, TOKENS)
    assert np.abs(logits - expected).max() < TOLERANCES.get(family, 2e-4) * expected.std()


def test_minicpm_is_granite_with_other_words(save, convert, llama_cpp):
    """MiniCPM is not in transformers; Granite with the same multipliers computes the same."""
    scales = {
        "embedding_multiplier": 12.0,
        "residual_multiplier": 1.4 / 3**0.5,
        "attention_multiplier": 0.25,
        "logits_scaling": 4.0,
    }
    model = build("Granite", scales)
    directory = save(model)
    config = json.loads((directory / "config.json").read_text())
    config |= {"architectures": ["MiniCPMForCausalLM"], "model_type": "minicpm"}
    config |= {"scale_emb": 12, "scale_depth": 1.4, "dim_model_base": 16}
    (directory / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k not in scales}))
    with torch.no_grad():
        expected = model(torch.tensor(TOKENS[None])).logits[0].numpy()
    assert np.abs(llama_cpp(convert(directory), TOKENS) - expected).max() < 2e-4 * expected.std()


def test_gpt_oss_in_mxfp4(save, convert, llama_cpp, tmp_path):
    """Experts as OpenAI publishes them: kept bit by bit in GGUF, decoded on request and for safetensors."""
    from safetensors.torch import load_file, save_file
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    model = build(*DECODERS["gpt-oss"])
    directory = save(model)
    tensors = load_file(directory / "model.safetensors")
    torch.manual_seed(2)
    for layer in range(4):
        for name, shape in (("gate_up_proj", (4, 192, 2, 16)), ("down_proj", (4, 64, 3, 16))):
            base = f"model.layers.{layer}.mlp.experts.{name}"
            blocks = torch.randint(0, 256, shape, dtype=torch.uint8)
            scales = torch.randint(120, 125, shape[:-1], dtype=torch.uint8)
            weight = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
            assert weight.shape == tensors.pop(base).shape
            tensors |= {f"{base}_blocks": blocks, f"{base}_scales": scales}
            getattr(model.model.layers[layer].mlp.experts, name).data = weight
    save_file(tensors, directory / "model.safetensors")
    config = json.loads((directory / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    (directory / "config.json").write_text(json.dumps(config))
    with torch.no_grad():
        expected = model(torch.tensor(TOKENS[None])).logits[0].numpy()
    made = to_gguf(open_model(directory))
    assert {made.tensors[f"blk.3.ffn_{part}_exps.weight"].type for part in ("gate", "up", "down")} == {
        "MXFP4"
    }
    logits = llama_cpp(convert(directory, type="F32"), TOKENS)
    assert np.abs(logits - expected).max() < 2e-4 * expected.std()
    # In MXFP4 llama.cpp rounds activations to 8 bits.
    logits = llama_cpp(convert(directory), TOKENS)
    assert np.corrcoef(logits.reshape(-1), expected.reshape(-1))[0, 1] > 0.99
    huggingface.convert(open_model(directory), tmp_path / "plain", type="F32")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "plain").eval()
    with torch.no_grad():
        plain = again(torch.tensor(TOKENS[None])).logits[0].numpy()
    assert np.abs(plain - expected).max() < 1e-4 * expected.std()


TINY_EYE = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}


QWEN_EYE = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 64}
SECTIONS = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [3, 3, 2]}


def with_eye(name, eye, text, **others):
    """Build a model of text and images from transformers' classes."""
    config = getattr(transformers, f"{name}Config")(text_config=SMALL | text, vision_config=eye, **others)
    config._attn_implementation = "eager"
    return getattr(transformers, f"{name}ForConditionalGeneration")(config).eval()


@pytest.mark.parametrize(
    "family", ["gemma3", "mistral3", "qwen2vl", "qwen2.5vl", "qwen3vl", "smolvlm", "lfm2vl"]
)
def test_the_text_part_of_a_multimodal_model(family, save, convert, llama_cpp):
    if family == "lfm2vl":
        text = {"model_type": "lfm2"} | DECODERS["lfm2"][1]
        model = with_eye(
            "Lfm2Vl", TINY_EYE | {"model_type": "siglip2_vision_model"}, text, image_token_id=319
        )
    elif family == "smolvlm":
        text = {"model_type": "llama", "head_dim": 16}
        model = with_eye("SmolVLM", TINY_EYE, text, image_token_id=319)
    elif family.startswith("qwen"):
        name = {"qwen2vl": "Qwen2VL", "qwen2.5vl": "Qwen2_5_VL", "qwen3vl": "Qwen3VL"}[family]
        eye = QWEN_EYE | ({"embed_dim": 32, "hidden_size": 64} if family == "qwen2vl" else {})
        eye |= {"deepstack_visual_indexes": [0]} if family == "qwen3vl" else {}
        model = with_eye(name, eye, {"head_dim": 16, "rope_parameters": SECTIONS}, image_token_id=319)
    elif family == "gemma3":
        text = SMALL | DECODERS["gemma3"][1]
        config = transformers.Gemma3Config(
            text_config=text, vision_config=TINY_EYE, mm_tokens_per_image=4, image_token_index=319
        )
        model = transformers.Gemma3ForConditionalGeneration(config).eval()
    else:
        text = SMALL | {"model_type": "mistral", "head_dim": 16, "sliding_window": None}
        vision = TINY_EYE | {"model_type": "pixtral", "head_dim": 16}
        config = transformers.Mistral3Config(text_config=text, vision_config=vision, image_token_index=319)
        model = transformers.Mistral3ForConditionalGeneration(config).eval()
    tokens = np.minimum(TOKENS, 318)
    path = convert(save(model))
    with torch.no_grad():
        expected = model(torch.tensor(tokens[None])).logits[0].numpy()
    assert np.abs(llama_cpp(path, tokens) - expected).max() < 3e-3 * expected.std()


@pytest.mark.parametrize("family", ENCODERS)
def test_embeddings_match_transformers(family, save, convert, llama_cpp):
    """Mean-pooled unit vectors: no component differs by more than 1e-3 (GELU from a table)."""
    model = build_encoder(*ENCODERS[family])
    path = convert(save(model))
    tokens = np.maximum(TOKENS, 3)  # no padding or mask
    with torch.no_grad():
        expected = model(torch.tensor(tokens[None])).last_hidden_state[0].mean(0).numpy()
    vector = llama_cpp(path, tokens, embed=True)[0]
    assert np.abs(vector - expected / np.linalg.norm(expected)).max() < 1e-3


EMBEDDING_GEMMA = {
    "head_dim": 16,
    "query_pre_attn_scalar": 16,
    "sliding_window": 16,
    "num_hidden_layers": 7,
    "use_bidirectional_attention": True,
}


def add_modules(directory, **dense):
    """Write what sentence-transformers does for mean pooling and two dense layers; returns their weights."""
    from safetensors.torch import save_file

    modules = [{"type": "sentence_transformers.models.Transformer", "path": ""}]
    modules += [{"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]
    weights = [torch.randn(96, 64) / 8, torch.randn(64, 96) / 8]
    for number, weight in enumerate(weights, 2):
        part = directory / f"{number}_Dense"
        part.mkdir()
        modules.append({"type": "sentence_transformers.models.Dense", "path": part.name})
        stated = {"bias": False, "activation_function": "torch.nn.modules.linear.Identity"} | dense
        (part / "config.json").write_text(json.dumps(stated))
        save_file({"linear.weight": weight}, part / "model.safetensors")
    (directory / "1_Pooling").mkdir()
    (directory / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    (directory / "modules.json").write_text(json.dumps(modules))
    return weights


@pytest.mark.parametrize("heads", ["without heads", "with heads"])
def test_embedding_gemma(heads, save, convert, llama_cpp):
    """Attention both ways, and the two dense layers that follow the mean."""
    model = build_encoder("Gemma3Text", EMBEDDING_GEMMA)
    directory = save(model)
    torch.manual_seed(1)
    weights = add_modules(directory) if heads == "with heads" else []
    with torch.no_grad():
        expected = model(torch.tensor(TOKENS[None])).last_hidden_state[0].mean(0)
        for weight in weights:
            expected = weight @ expected
    vector = llama_cpp(convert(directory), TOKENS, embed=True)[0]
    assert np.abs(vector - (expected / expected.norm()).numpy()).max() < 1e-3


@pytest.mark.parametrize(
    ("name", "dense", "problem"),
    [
        ("Gemma3Text", {"bias": True}, "no bias or activation"),
        ("Gemma3Text", {"activation_function": "torch.nn.modules.activation.Tanh"}, "no bias or activation"),
        ("Bert", {}, "2 dense layers after its pooling"),
    ],
)
def test_other_dense_layers_are_refused(name, dense, problem, save):
    model = build_encoder(name, EMBEDDING_GEMMA if name == "Gemma3Text" else {})
    directory = save(model)
    add_modules(directory, **dense)
    with pytest.raises(UnsupportedError, match=problem):
        to_gguf(open_model(directory))


MISTAKES = {
    "halves taken for pairs": lambda tensors, keys: tensors.update(
        {"blk.1.attn_q.weight": halves(tensors["blk.1.attn_q.weight"])}
    ),
    "another epsilon": lambda tensors, keys: keys.update(
        {"llama.attention.layer_norm_rms_epsilon": np.float32(1e-3)}
    ),
    "another rotary base": lambda tensors, keys: keys.update({"llama.rope.freq_base": np.float32(1.2e4)}),
    "gate for up": lambda tensors, keys: tensors.update(
        {"blk.0.ffn_up.weight": tensors["blk.0.ffn_gate.weight"].renamed("blk.0.ffn_up.weight")}
    ),
}


def halves(tensor):
    """Undo the rotary interleaving of one tensor."""
    order = np.arange(64).reshape(4, 8, 2).swapaxes(1, 2).reshape(-1)
    return tensor.taking_rows(order)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_comparison_notices(mistake, save, llama_cpp, tmp_path):
    """The tolerance is far below what a small mistake in a table does."""
    model = build(*DECODERS["llama"])
    made = to_gguf(open_model(save(model)))
    tensors, keys = dict(made.tensors), dict(made.metadata)
    MISTAKES[mistake](tensors, keys)
    path = gguf.write(tmp_path / "wrong.gguf", keys, list(tensors.values()))
    with torch.no_grad():
        expected = model(torch.tensor(TOKENS[None])).logits[0].numpy()
    assert np.abs(llama_cpp(path, TOKENS) - expected).max() > 2e-3 * expected.std()
