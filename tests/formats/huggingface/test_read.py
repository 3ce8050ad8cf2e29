"""Hugging Face directories: the same weights as the safetensors library reads, and what the files say."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from terazi.errors import NotFoundError, UnsupportedError
from terazi.formats import open_model


def test_a_real_encoder(minilm):
    model = open_model(minilm)
    assert (model.format, model.license, model.variant) == ("huggingface", "apache-2.0", "embedding")
    assert model.config.architecture == "bert"
    assert (model.config.block_count, model.config.head_count, model.config.key_length) == (6, 12, 32)
    assert model.tokenizer
    assert (model.tokenizer.kind, model.tokenizer.vocabulary_size) == ("bert", 30522)
    assert model.tokenizer.special["cls"] == 101
    assert {"model.safetensors", "tokenizer.json", "vocab.txt"} <= {file.name for file in model.files}
    with safe_open(minilm / "model.safetensors", "np") as reference:
        assert set(reference.keys()) == set(model.tensors)
        for name, tensor in model.tensors.items():
            expected = reference.get_tensor(name)
            assert expected.shape == tensor.shape
            assert expected.tobytes() == tensor.encoded().tobytes()


def test_a_safetensors_file_stands_for_its_directory(minilm):
    model = open_model(minilm / "model.safetensors")
    assert model.path == minilm
    assert len(model.tensors) == 104


@pytest.fixture
def sharded(tmp_path):
    """A tiny Llama in two parts with every type of weight."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path / "bf16", max_shard_size="4KB")
    return tmp_path / "bf16"


def test_parts_and_bfloat16(sharded):
    model = open_model(sharded)
    assert len([file for file in model.files if file.suffix == ".safetensors"]) > 1
    assert model.config.head_counts_kv == (2, 2, 2)
    assert model.config.context_length == 64
    assert model.variant == "base"
    index = json.loads((sharded / "model.safetensors.index.json").read_text())["weight_map"]
    assert set(index) == set(model.tensors)
    for name, part in index.items():
        tensor = model.tensors[name]
        with safe_open(sharded / part, "pt") as reference:
            expected = reference.get_tensor(name)
        assert tensor.type == "BF16"
        assert np.array_equal(
            tensor.encoded().view(np.uint16), expected.view(torch.uint16).reshape(tensor.row_count, -1)
        )
    assert "tokenizer.json" not in {file.name for file in model.files}
    assert model.tokenizer is None


def test_a_part_is_missing(sharded):
    next(sharded.glob("model-00002*")).unlink()
    with pytest.raises(NotFoundError, match="part of the model is missing"):
        open_model(sharded)


def test_rows_are_read_lazily(minilm):
    tensor = open_model(minilm).tensors["embeddings.word_embeddings.weight"]
    with safe_open(minilm / "model.safetensors", "np") as reference:
        expected = reference.get_slice(tensor.name)[1000:1003]
    assert np.array_equal(tensor.encoded(1000, 1003).view(np.float32), expected)


def copied(minilm, tmp_path, names=("config.json", "tokenizer.json", "tokenizer_config.json")):
    for name in names:
        shutil.copy(minilm / name, tmp_path / name)
    save_file({"x": torch.zeros(4)}, tmp_path / "model.safetensors")
    return tmp_path


@pytest.mark.parametrize(
    ("card", "license"),
    [
        ("---\nlicense: MIT\n---\n", "mit"),
        ('---\ntags:\n- a\nlicense: "apache-2.0"\n---\ntext', "apache-2.0"),
        ("---\nlicense: other\nlicense_name: my-terms\n---\n", "my-terms"),
        ("no front matter\nlicense: mit\n", None),
        ("---\nlicense:\n- mit\n---\n", None),
    ],
)
def test_the_licence_of_a_model_card(card, license, minilm, tmp_path):
    (copied(minilm, tmp_path) / "README.md").write_text(card)
    assert open_model(tmp_path).license == license


@pytest.mark.parametrize(
    ("text", "license"),
    [
        ("\n   Apache License\n   Version 2.0, January 2004", "apache-2.0"),
        ("MIT License\n\nCopyright", "mit"),
        ("LLAMA 3.2 COMMUNITY LICENSE AGREEMENT", "llama3.2"),
        ("All rights reserved", None),
    ],
)
def test_the_licence_of_a_licence_file(text, license, minilm, tmp_path):
    (copied(minilm, tmp_path) / "LICENSE").write_text(text)
    assert open_model(tmp_path).license == license


def test_templates_make_an_instruct_variant(minilm, tmp_path):
    directory = copied(minilm, tmp_path)
    assert open_model(directory).variant == "unknown"
    settings = json.loads((directory / "tokenizer_config.json").read_text())
    templates = [{"name": "tools", "template": "no"}, {"name": "default", "template": "{{ messages }}"}]
    (directory / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": templates}))
    model = open_model(directory)
    assert model.variant == "instruct"
    assert model.tokenizer
    assert model.tokenizer.chat_template == "{{ messages }}"
    (directory / "chat_template.jinja").write_text("{{ other }}")
    assert open_model(directory).tokenizer.chat_template == "{{ other }}"


def test_quantized_checkpoints_are_named(minilm, tmp_path):
    directory = copied(minilm, tmp_path)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(
        json.dumps(config | {"quantization_config": {"quant_method": "quanto"}})
    )
    with pytest.raises(UnsupportedError, match="quantized"):
        open_model(directory)
