"""A directory's tokenizer: texts survive, piece by piece too."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Raw

from terazi import api
from terazi.errors import EngineError, UnsupportedError
from terazi.runtime.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def directory(two_layers, tmp_path_factory):
    """SmolLM2's tokenizer: byte-level, so that characters fall apart into tokens."""
    output = tmp_path_factory.mktemp("tokenizer") / "smollm2"
    api.convert(two_layers, "safetensors", output=output)
    return output


@pytest.fixture(scope="module")
def tokenizer(directory):
    return Tokenizer(directory)


def pieces(tokenizer, tokens):
    text = tokenizer.text()
    return [*(text.add(token) for token in tokens), text.finish()]


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_pieces_are_the_text(tokenizer, text):
    tokens = tokenizer.encode(text)
    assert "".join(pieces(tokenizer, tokens)) == tokenizer.decode(tokens)


@pytest.mark.parametrize("text", ["The king — 你好 🙂\n\tünïcode", "  two  spaces ", ""])
def test_texts_survive(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(st.lists(st.integers(0, 49151), max_size=30))
def test_pieces_of_any_tokens_are_their_text(tokenizer, tokens):
    assert "".join(pieces(tokenizer, tokens)) == tokenizer.decode(tokens)


def test_half_a_character_waits(tokenizer):
    tokens = tokenizer.encode("🙂")
    assert len(tokens) > 1
    assert pieces(tokenizer, tokens) == [""] * (len(tokens) - 1) + ["🙂", ""]


def test_special_tokens_count_in_prompts_only(tokenizer):
    assert len(tokenizer.prompt("<|im_end|>")) == 1
    assert len(tokenizer.encode("<|im_end|>")) > 1
    assert tokenizer.decode(tokenizer.encode("<|im_end|>")) == "<|im_end|>"
    asked = tokenizer.prompt([{"role": "user", "content": "Hi"}])
    assert tokenizer.decode(asked).rstrip().endswith("assistant")


def test_what_the_file_cuts_is_whole(directory, tmp_path):
    raw = Raw.from_file(str(directory / "tokenizer.json"))
    raw.enable_truncation(4)
    raw.enable_padding(length=8)
    raw.save(str(tmp_path / "tokenizer.json"))
    text = "one two three four five six"
    cutting = Tokenizer(tmp_path)
    assert cutting.batch([text], longest=3)["input_ids"].shape == (1, 3)
    assert cutting.decode(cutting.encode(text)) == text
    assert cutting.decode(cutting.prompt(text)) == text


def test_batches(minilm):
    batch = Tokenizer(minilm).batch(["a cat", "a much longer sentence about it"], longest=6)
    assert {values.shape for values in batch.values()} == {(2, 6)}
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 0, 0], [1] * 6]
    assert batch["input_ids"][0].tolist() == [101, 1037, 4937, 102, 0, 0]


def test_directories_without_or_with_damage(directory, tmp_path):
    with pytest.raises(UnsupportedError, match=r"no tokenizer\.json"):
        Tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": 7}')
    with pytest.raises(EngineError, match=r"tokenizer\.json"):
        Tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((directory / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text("[")
    found = Tokenizer(tmp_path)
    assert found.end is None
    with pytest.raises(UnsupportedError, match="no chat template"):
        found.prompt([{"role": "user", "content": "Hi"}])
    named = [{"name": "other", "template": "x"}, {"name": "default", "template": "cat"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    cat = Tokenizer(tmp_path)
    assert cat.decode(cat.prompt([])) == "cat"
