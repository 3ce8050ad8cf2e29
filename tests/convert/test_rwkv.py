"""RWKV-7, whose code is not in transformers: against the equations of its paper (arXiv:2503.14456)."""

import json
import math

import numpy as np
import pytest

from terazi.convert.tokenizer import tokenizer_metadata
from terazi.errors import FormatError

torch = pytest.importorskip("torch")
save_file = pytest.importorskip("safetensors.torch").save_file

LAYERS, WIDTH, HEAD, INNER, VOCABULARY = 3, 128, 64, 192, 320
RANKS = {"w": 32, "a": 48, "v": 16, "g": 64}
CONFIG = {
    "architectures": ["RWKV7ForCausalLM"],
    "model_type": "rwkv7",
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "head_dim": HEAD,
    "intermediate_size": INNER,
    "norm_eps": 1e-5,
    "decay_low_rank_dim": RANKS["w"],
    "a_low_rank_dim": RANKS["a"],
    "v_low_rank_dim": RANKS["v"],
    "gate_low_rank_dim": RANKS["g"],
    "hidden_act": "sqrelu",
    "norm_bias": True,
    "norm_first": True,
    "vocab_size": VOCABULARY,
    "tie_word_embeddings": False,
}
TOKENS = np.random.default_rng(7).integers(1, VOCABULARY, 40)
WORDS = [bytes([byte]) for byte in range(256)] + ["the ", " and", "\n\n", "naïve", "日本", "\t\\'"]


def weights(first_layer_values):
    torch.manual_seed(0)
    made = {
        "model.embeddings.weight": torch.randn(VOCABULARY, WIDTH),
        "lm_head.weight": torch.randn(VOCABULARY, WIDTH) / WIDTH**0.5,
    }

    def norm(name):
        made[f"{name}.weight"] = 1 + torch.randn(WIDTH) * 0.2
        made[f"{name}.bias"] = torch.randn(WIDTH) * 0.2

    norm("model.norm")
    norm("model.layers.0.pre_norm")
    for layer in range(LAYERS):
        base = f"model.layers.{layer}"
        for name in ("attn_norm", "ffn_norm", "attn.g_norm"):
            norm(f"{base}.{name}")
        for name in "rkvo":
            made[f"{base}.attn.{name}_proj.weight"] = torch.randn(WIDTH, WIDTH) * 1.5 / WIDTH**0.5
        for name in "rwkvag":
            made[f"{base}.attn.x_{name}"] = torch.rand(1, 1, WIDTH)
        for name, rank in RANKS.items():
            if name == "v" and layer == 0 and not first_layer_values:
                continue
            made[f"{base}.attn.{name}_lora.lora.0.weight"] = torch.randn(rank, WIDTH) / WIDTH**0.5
            made[f"{base}.attn.{name}_lora.lora.2.weight"] = torch.randn(WIDTH, rank) / rank**0.5
            if name != "g":
                made[f"{base}.attn.{name}_lora.lora.2.bias"] = torch.randn(WIDTH)
        made[f"{base}.attn.k_k"] = torch.rand(WIDTH) + 0.5
        made[f"{base}.attn.k_a"] = torch.rand(WIDTH)
        made[f"{base}.attn.r_k"] = torch.randn(WIDTH // HEAD, HEAD) * 0.3
        made[f"{base}.ffn.x_k"] = torch.rand(WIDTH)
        made[f"{base}.ffn.key.weight"] = torch.randn(INNER, WIDTH) * 1.5 / WIDTH**0.5
        made[f"{base}.ffn.value.weight"] = torch.randn(WIDTH, INNER) / INNER**0.5
    return made


class Reference:
    """The paper's recurrence, one token after the other."""

    def __init__(self, weights):
        self.weights = weights

    def norm(self, name, x, groups=1, eps=1e-5):
        plain = torch.nn.functional.layer_norm(
            x.view(*x.shape[:-1], groups, -1), (x.shape[-1] // groups,), eps=eps
        )
        return plain.view(x.shape) * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def low_rank(self, base, name, x, activation=lambda x: x):
        down, up = (self.weights[f"{base}.{name}_lora.lora.{part}.weight"] for part in (0, 2))
        bias = self.weights.get(f"{base}.{name}_lora.lora.2.bias", 0)
        return activation(x @ down.T) @ up.T + bias

    def time_mix(self, base, x, first):
        """Equations 3 to 22: decay, in-context learning rate, value residual, delta rule, bonus, gate."""
        before = torch.cat([torch.zeros(1, WIDTH), x[:-1]]) - x
        mixed = {name: x + before * self.weights[f"{base}.x_{name}"][0, 0] for name in "rwkvag"}
        r, k, v = (mixed[name] @ self.weights[f"{base}.{name}_proj.weight"].T for name in "rkv")
        decay = torch.exp(-math.exp(-0.5) * torch.sigmoid(self.low_rank(base, "w", mixed["w"], torch.tanh)))
        if first is None:
            first = v
        else:
            v = v + (first - v) * torch.sigmoid(self.low_rank(base, "v", mixed["v"]))
        rate = torch.sigmoid(self.low_rank(base, "a", mixed["a"]))
        gate = self.low_rank(base, "g", mixed["g"], torch.sigmoid)
        heads = (len(x), WIDTH // HEAD, HEAD)
        removed = torch.nn.functional.normalize((k * self.weights[f"{base}.k_k"]).view(heads), dim=-1)
        k = k * (1 + (rate - 1) * self.weights[f"{base}.k_a"])
        r, k, v, decay, rate = (part.view(heads) for part in (r, k, v, decay, rate))
        state = torch.zeros(WIDTH // HEAD, HEAD, HEAD)
        rows = []
        for t in range(len(x)):
            old = (state @ removed[t][:, :, None]) * (removed[t] * rate[t])[:, None]
            state = state * decay[t][:, None] - old + v[t][:, :, None] * k[t][:, None]
            rows.append((state @ r[t][:, :, None])[:, :, 0])
        y = self.norm(f"{base}.g_norm", torch.stack(rows).view(len(x), WIDTH), WIDTH // HEAD, eps=HEAD * 1e-5)
        bonus = (r * k * self.weights[f"{base}.r_k"]).sum(-1, keepdim=True) * v
        return ((y + bonus.view(len(x), WIDTH)) * gate) @ self.weights[f"{base}.o_proj.weight"].T, first

    def channel_mix(self, base, x):
        before = torch.cat([torch.zeros(1, WIDTH), x[:-1]]) - x
        hidden = (x + before * self.weights[f"{base}.x_k"]) @ self.weights[f"{base}.key.weight"].T
        return hidden.relu().square() @ self.weights[f"{base}.value.weight"].T

    def logits(self, tokens):
        x = self.norm(
            "model.layers.0.pre_norm", self.weights["model.embeddings.weight"][torch.tensor(tokens)]
        )
        first = None
        for layer in range(LAYERS):
            base = f"model.layers.{layer}"
            mixed, first = self.time_mix(f"{base}.attn", self.norm(f"{base}.attn_norm", x), first)
            x = x + mixed
            x = x + self.channel_mix(f"{base}.ffn", self.norm(f"{base}.ffn_norm", x))
        return self.norm("model.norm", x) @ self.weights["lm_head.weight"].T


def write_words(directory, words=WORDS):
    lines = []
    for id, word in enumerate(words, 1):
        size = len(word.encode() if isinstance(word, str) else word)
        lines.append(f"{id} {word!r} {size}")
    (directory / "rwkv_vocab_v20230424.txt").write_text("\n".join(lines) + "\n", "utf-8")


@pytest.mark.parametrize("first_layer_values", [False, True])
def test_logits_match_the_equations(first_layer_values, tmp_path, convert, llama_cpp):
    made = weights(first_layer_values)
    save_file(made, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    write_words(tmp_path)
    expected = Reference(made).logits(TOKENS).numpy()
    logits = llama_cpp(convert(tmp_path), TOKENS)
    assert np.abs(logits - expected).max() < 1e-3 * expected.std()


def test_words(tmp_path):
    write_words(tmp_path)
    metadata = tokenizer_metadata(tmp_path, VOCABULARY, {"bos_token_id": 1, "eos_token_id": 2}, None)
    assert metadata["tokenizer.ggml.model"] == "rwkv"
    assert metadata["tokenizer.ggml.add_bos_token"] is False
    special = {name: metadata[f"tokenizer.ggml.{name}_token_id"] for name in ("bos", "eos", "eot")}
    assert special == {"bos": 0, "eos": 0, "eot": 259}
    tokens = metadata["tokenizer.ggml.tokens"]
    assert (tokens[0], tokens[66], tokens[259]) == ("<s>", "A", "\\n\\n")
    assert tokens[200] == "\\xc7"


@pytest.mark.parametrize(
    "line",
    [
        "1 [1] 1",
        "1 'a' 2",
        "1 __import__('os') 3",
        "x 'a' 1",
        "1",
        "1 b'\\xzz' 1",
        "1 'a' 1\n2 'a' 1",
        f"1 '{'a' * 2000}' 2000",
    ],
)
def test_damaged_words(line, tmp_path):
    (tmp_path / "rwkv_vocab_v1.txt").write_text(line + "\n")
    with pytest.raises(FormatError):
        tokenizer_metadata(tmp_path, 8, {}, None)
