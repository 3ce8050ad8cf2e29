"""Every architecture: random weights from transformers, converted, give llama.cpp the same logits."""

import numpy as np
import pytest

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

TOKENS = np.random.default_rng(7).integers(1, VOCABULARY, 48)


def build(name, extra):
    config = getattr(transformers, f"{name}Config")(**(SMALL | extra))
    config._attn_implementation = "eager"
    return getattr(transformers, f"{name}ForCausalLM")(config).eval()


@pytest.mark.parametrize("family", DECODERS)
def test_logits_match_transformers(family, save, convert, llama_cpp):
    """Largest difference below 2e-4 of the logits' spread: both compute in float32, in different orders."""
    model = build(*DECODERS[family])
    path = convert(save(model))
    with torch.no_grad():
        expected = model(torch.tensor(TOKENS[None])).logits[0].numpy()
    logits = llama_cpp(path, TOKENS)
    assert np.abs(logits - expected).max() < 2e-4 * expected.std()
    assert expected.argmax(1).tolist() == logits.argmax(1).tolist()
