"""A PEFT adapter in llama.cpp changes a model as merging it into the weights does."""

import json

import numpy as np
import pytest

from terazi.convert.gguf import to_gguf
from terazi.convert.lora import convert_adapter, is_peft
from terazi.errors import FormatError, TeraziError, UnsupportedError
from terazi.formats import gguf, open_model

RANK, ALPHA = 4, 6.0
LAYER = "base_model.model.model.layers.0"


def ones(rows, columns):
    return np.ones((rows, columns), np.float32)


@pytest.fixture
def base(save):
    """A random Llama whose queries and keys are reordered in GGUF."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=320, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=True,
    )  # fmt: skip
    return save(LlamaForCausalLM(config))


def write_adapter(directory, tensors, **settings):
    from safetensors.numpy import save_file

    directory.mkdir(exist_ok=True)
    save_file(tensors, directory / "adapter_model.safetensors")
    values = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA} | settings
    (directory / "adapter_config.json").write_text(json.dumps(values))
    return directory


def random_pairs(base):
    dice = np.random.default_rng(0)
    pairs = {}
    for name, tensor in open_model(base).tensors.items():
        if name.endswith("_proj.weight"):
            rows, columns = tensor.shape
            a, b = (
                dice.standard_normal((RANK, columns)) / columns**0.5,
                dice.standard_normal((rows, RANK)) / 2,
            )
            pairs[name.removesuffix(".weight")] = (a.astype(np.float32), b.astype(np.float32))
    return pairs


def named(pairs):
    return {
        f"base_model.model.{name}.lora_{half}.weight": matrix
        for name, pair in pairs.items()
        for half, matrix in zip("AB", pair, strict=True)
    }


def as_gguf(directory, path):
    model = to_gguf(open_model(directory))
    return gguf.write(path, model.metadata, list(model.tensors.values()), force=True)


def logprobs(path, adapters=()):
    """The likeliest tokens after a prompt and their log probabilities, by llama.cpp's server."""
    import asyncio

    from terazi.serve.engine import Engine

    async def ask():
        options = {"alias": "m", "context": 64, "parallel": 1, "threads": 1}
        engine = await Engine.start("gguf", model=str(path), adapters=tuple(map(str, adapters)), **options)
        try:
            body = {
                "prompt": "The sea is",
                "n_predict": 1,
                "n_probs": 320,
                "temperature": 0,
                "cache_prompt": False,
            }
            async with engine.ask("/completion", body) as response:
                answer = json.loads(await response.body())
        finally:
            await engine.close()
        return {
            entry["id"]: entry["logprob"] for entry in answer["completion_probabilities"][0]["top_logprobs"]
        }

    return asyncio.run(ask())


def distance(a, b):
    assert a.keys() == b.keys()
    return max(abs(a[token] - b[token]) for token in a)


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}])
def test_an_adapter_is_as_good_as_merged_weights(base, tmp_path, settings):
    from transformers import AutoModelForCausalLM

    pairs = random_pairs(base)
    adapter = write_adapter(tmp_path / "adapter", named(pairs), **settings)
    plain = as_gguf(base, tmp_path / "plain.gguf")
    made = convert_adapter(adapter, open_model(plain).config, tmp_path / "adapter.gguf")
    assert is_peft(adapter)
    scale = ALPHA / (RANK**0.5 if settings else RANK)
    import torch

    model = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        for name, (a, b) in pairs.items():
            model.get_parameter(f"{name}.weight").add_(torch.from_numpy(scale * (b @ a)))
    model.save_pretrained(base)
    merged = as_gguf(base, tmp_path / "merged.gguf")
    with_adapter, wanted, without = logprobs(plain, [made]), logprobs(merged), logprobs(plain)
    assert distance(with_adapter, wanted) < 2e-3
    assert distance(without, wanted) > 0.5


@pytest.mark.parametrize(
    ("change", "settings", "problem"),
    [
        ({}, {"peft_type": "IA3"}, "IA3 do not run"),
        ({}, {"use_dora": True}, "DoRA do not run"),
        ({}, {"modules_to_save": ["lm_head"]}, "whole saved modules"),
        ({}, {"rank_pattern": {"q_proj": 8}}, "different ranks"),
        ({}, {"r": 0}, "make no sense"),
        ({}, {"lora_alpha": "x"}, "make no sense"),
        ({f"{LAYER}.self_attn.v_proj.lora_A.weight": None}, {}, "do not fit together"),
        ({"base_model.model.model.embed_tokens.lora_embedding_A": ones(4, 4)}, {}, "no part of"),
        ({f"{LAYER}.odd.lora_A.weight": ones(4, 8), f"{LAYER}.odd.lora_B.weight": ones(8, 4)}, {}, "not na"),
        ({"base_model.model.lm_head.lora_A.weight": ones(4, 64),
          "base_model.model.lm_head.lora_B.weight": ones(320, 4)}, {}, "no adapter can follow"),
    ],
)  # fmt: skip
def test_other_adapters_are_refused(base, tmp_path, change, settings, problem):
    tensors = {
        name: value for name, value in (named(random_pairs(base)) | change).items() if value is not None
    }
    adapter = write_adapter(tmp_path / "adapter", tensors, **settings)
    config = to_gguf(open_model(base)).config
    with pytest.raises(TeraziError, match=problem):
        convert_adapter(adapter, config, tmp_path / "adapter.gguf")
    assert not (tmp_path / "adapter.gguf").exists()


def test_pickled_and_damaged_adapters_are_refused(base, tmp_path):
    config = to_gguf(open_model(base)).config
    adapter = write_adapter(tmp_path / "adapter", named(random_pairs(base)))
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(FormatError, match=r"no adapter_model\.safetensors"):
        convert_adapter(adapter, config, tmp_path / "a.gguf")
    (adapter / "adapter_model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(FormatError):
        convert_adapter(adapter, config, tmp_path / "a.gguf")
    (adapter / "adapter_config.json").write_text("{")
    with pytest.raises((FormatError, UnsupportedError)):
        convert_adapter(adapter, config, tmp_path / "a.gguf")
