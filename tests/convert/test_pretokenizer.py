"""Finding llama.cpp's pre-tokenizer from how a tokenizer.json splits text."""

import pytest
from tokenizers import Regex, pre_tokenizers

from terazi.convert.pretokenizer import PROBE, TABLE, build, find, split
from terazi.errors import UnsupportedError

# As they stand in published tokenizer.json files.
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
GPT4O = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"
    r" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_level(**options):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, **options)


def spelled(*expressions, behavior="isolated"):
    steps = [pre_tokenizers.Split(Regex(expression), behavior) for expression in expressions]
    return pre_tokenizers.Sequence([*steps, byte_level(use_regex=False)])


@pytest.mark.parametrize(
    ("name", "pre_tokenizer", "whole_words"),
    [
        ("gpt-2", byte_level(), False),
        ("smollm", pre_tokenizers.Sequence([pre_tokenizers.Digits(True), byte_level()]), False),
        ("llama-bpe", spelled(LLAMA3), True),
        ("smaug-bpe", spelled(LLAMA3), False),
        ("qwen2", spelled(QWEN2), False),
        ("gpt-4o", spelled(GPT4O), False),
        ("tekken", spelled(TEKKEN), True),
        ("deepseek-v3", spelled(r"\p{N}{1,3}", "[一-龥\u3040-ゟ゠-ヿ]+", DEEPSEEK3), False),
    ],
)
def test_published_tokenizers(name, pre_tokenizer, whole_words):
    assert find(pre_tokenizer, whole_words=whole_words) == name


@pytest.mark.parametrize("splitter", TABLE, ids=lambda splitter: splitter.name)
def test_every_entry_finds_itself(splitter):
    assert find(build(splitter), whole_words=splitter.whole_words) == splitter.name


def test_the_probe_tells_all_entries_apart():
    seen = {}
    for splitter in TABLE:
        key = (tuple(split(build(splitter))[0]), splitter.whole_words)
        assert key not in seen, f"{splitter.name} splits like {seen.get(key)}"
        seen[key] = splitter.name


def test_pieces_cover_the_probe():
    for splitter in TABLE:
        pieces = build(splitter).pre_tokenize_str(PROBE)
        assert [end for _, (_, end) in pieces[:-1]] == [start for _, (start, _) in pieces[1:]]


@pytest.mark.parametrize(
    ("pre_tokenizer", "nearest"),
    [
        (spelled(QWEN2.replace(r"\p{N}", r"\p{N}{1,2}")), "llama-bpe|smaug-bpe|qwen2"),
        (pre_tokenizers.Sequence([pre_tokenizers.ByteLevel(add_prefix_space=True)]), "gpt-2"),
        (pre_tokenizers.Whitespace(), ""),
        (None, ""),
    ],
)
def test_an_unknown_splitting_names_the_nearest(pre_tokenizer, nearest):
    with pytest.raises(UnsupportedError, match=f"closest, ({nearest or '.*'}), agrees on") as caught:
        find(pre_tokenizer, whole_words=False)
    assert "--pre-tokenizer" in caught.value.hint
