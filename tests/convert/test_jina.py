"""Jina 2, whose code is not in transformers: against the equations of its paper (arXiv:2310.19923)."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
save_file = pytest.importorskip("safetensors.torch").save_file

LAYERS, WIDTH, INNER, VOCABULARY = 2, 48, 64, 320
CONFIG = {
    "architectures": ["JinaBertForMaskedLM"],
    "model_type": "bert",
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "max_position_embeddings": 8192,
    "vocab_size": VOCABULARY,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
    "position_embedding_type": "alibi",
    "feed_forward_type": "geglu",
}
TOKENS = np.random.default_rng(7).integers(3, VOCABULARY, 40)


def weights():
    torch.manual_seed(0)
    made = {}

    def linear(name, rows, columns, bias=True):
        made[f"{name}.weight"] = torch.randn(rows, columns) * 1.5 / columns**0.5
        if bias:
            made[f"{name}.bias"] = torch.randn(rows) * 0.2

    def norm(name):
        made[f"{name}.weight"] = 1 + torch.randn(WIDTH) * 0.2
        made[f"{name}.bias"] = torch.randn(WIDTH) * 0.2

    made["embeddings.word_embeddings.weight"] = torch.randn(VOCABULARY, WIDTH)
    made["embeddings.token_type_embeddings.weight"] = torch.randn(2, WIDTH)
    norm("embeddings.LayerNorm")
    for layer in range(LAYERS):
        base = f"encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            linear(f"{base}.attention.self.{part}", WIDTH, WIDTH)
        linear(f"{base}.attention.output.dense", WIDTH, WIDTH)
        norm(f"{base}.attention.output.LayerNorm")
        linear(f"{base}.mlp.gated_layers", 2 * INNER, WIDTH, bias=False)
        linear(f"{base}.mlp.wo", WIDTH, INNER)
        norm(f"{base}.mlp.layernorm")
    return made


def slopes(heads):
    """ALiBi (arXiv:2108.12409): powers of 2^(-8/n), then every other one between them for other numbers."""
    whole = 1 << (heads.bit_length() - 1)
    first = [2 ** (-8 * (head + 1) / whole) for head in range(whole)]
    return torch.tensor(
        (first + [2 ** (-4 * (2 * head + 1) / whole) for head in range(heads - whole)])[:heads]
    )


def forward(weights, tokens, heads):
    """Return float32[tokens, width]: distances weaken attention both ways, GEGLU, norms after each part."""
    functional = torch.nn.functional

    def linear(name, x):
        return functional.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    def norm(name, x):
        return functional.layer_norm(x, (WIDTH,), weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-12)

    x = weights["embeddings.word_embeddings.weight"][torch.tensor(tokens)]
    x = norm("embeddings.LayerNorm", x + weights["embeddings.token_type_embeddings.weight"][0])
    place = torch.arange(len(tokens))
    distance = (place[:, None] - place).abs() * -slopes(heads)[:, None, None]
    for layer in range(LAYERS):
        base = f"encoder.layer.{layer}"
        query, key, value = (
            linear(f"{base}.attention.self.{part}", x).view(len(tokens), heads, -1).transpose(0, 1)
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5 + distance
        mixed = (scores.softmax(-1) @ value).transpose(0, 1).reshape(len(tokens), WIDTH)
        x = norm(f"{base}.attention.output.LayerNorm", x + linear(f"{base}.attention.output.dense", mixed))
        gate, up = linear(f"{base}.mlp.gated_layers", x).chunk(2, dim=-1)
        x = norm(f"{base}.mlp.layernorm", x + linear(f"{base}.mlp.wo", functional.gelu(gate) * up))
    return x


@pytest.mark.parametrize("heads", [4, 6])
def test_embeddings_match_the_equations(heads, tmp_path, byte_level, convert, llama_cpp):
    made = weights()
    save_file(made, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"num_attention_heads": heads}))
    (tmp_path / "tokenizer.json").write_text(byte_level, "utf-8")
    expected = forward(made, TOKENS, heads).mean(0)
    vector = llama_cpp(convert(tmp_path), TOKENS, embed=True)[0]
    assert np.abs(vector - (expected / expected.norm()).numpy()).max() < 1e-3
    plain = forward(made, TOKENS, heads * 2).mean(0)  # other slopes are noticed
    assert np.abs(vector - (plain / plain.norm()).numpy()).max() > 1e-2
