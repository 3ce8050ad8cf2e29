"""Small models to calibrate, unquantized, as transformers directories."""

import json

import pytest


@pytest.fixture(scope="session")
def words():
    """English text from the standard library."""
    from terazi.calibrate import calibration_corpus

    return calibration_corpus().text


@pytest.fixture(scope="session")
def experts(tmp_path_factory, words):
    """A random mixture of 8 experts, 2 used, with a tokenizer of its own."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([words[:60_000]], trainer)
    config = Qwen3MoeConfig(
        vocab_size=320,
        hidden_size=64,
        intermediate_size=128,
        moe_intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        num_experts=8,
        num_experts_per_tok=2,
        max_position_embeddings=512,
        decoder_sparse_step=1,
        norm_topk_prob=True,
    )
    torch.manual_seed(0)
    model = Qwen3MoeForCausalLM(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    directory = tmp_path_factory.mktemp("experts") / "hf"
    model.save_pretrained(directory)
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    return directory


@pytest.fixture(scope="session")
def as_gguf(tmp_path_factory):
    """Convert a directory to GGUF without changing weights."""
    from terazi.convert.gguf import to_gguf
    from terazi.formats import gguf, open_model

    def convert(directory):
        made = to_gguf(open_model(directory))
        return gguf.write(
            tmp_path_factory.mktemp("gguf") / "model.gguf", made.metadata, list(made.tensors.values())
        )

    return convert
