"""Tokenizers of every kind: llama.cpp gives the ids that the Hugging Face library gives."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from terazi.convert.pretokenizer import TABLE, build
from terazi.convert.tokenizer import tokenizer_metadata
from terazi.errors import FormatError, UnsupportedError
from terazi.formats import gguf
from terazi.model import Tensor

SPECIAL = ["<unk>", "<s>", "</s>"]
TRICKY = [
    "Hello world",
    " leading, trailing ",
    "It's what I'd said: WE'LL see. don'T",
    "tabs\t\tand\n\nnewlines\r\n  indented\n",
    "x = 12345 + 3.14; y[i] -> z != 0 // done",
    "123 1234567 ٣٤٥ ½",
    "naïve café Straße İstanbul ǅungla",
    "日本語のテキスト、中文。 한국어",
    "हिन्दी العربيّة עברית",
    "🚀 🦙🦙 ✅!",
    "camelCase HTTPServer snake_case",
    "   ",
    "a",
    "...!!! --- (paren) [x] {y} <z> `q` \"r\" 's'",
    "<s>not special</s> <unk> <|user|> text",
]


@pytest.fixture
def tokenize(tmp_path):
    """Write a GGUF file of nothing but a vocabulary and tokenize texts with it in llama.cpp."""

    def run(directory, rows, config=None, add_special=True, **options):
        metadata = {"general.architecture": "llama", "llama.context_length": np.uint32(8)}
        metadata |= tokenizer_metadata(directory, rows, config or {}, None, **options)
        weights = Tensor.from_array("token_embd.weight", np.zeros((rows, 32), np.float32))
        path = gguf.write(tmp_path / "vocabulary.gguf", metadata, [weights], force=True)
        script = Path(__file__).with_name("vocabulary.py")
        done = subprocess.run(
            [sys.executable, script, path, str(int(add_special))],
            input=json.dumps(TRICKY),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout)

    return run


@pytest.fixture
def files(tmp_path):
    """Save a tokenizer and what else its directory holds."""

    def write(tokenizer, **others):
        directory = tmp_path / "tokenizer"
        directory.mkdir()
        if tokenizer is not None:
            tokenizer.save(str(directory / "tokenizer.json"))
        for name, content in others.items():
            target = directory / name.replace("__", ".")
            if isinstance(content, bytes):
                target.write_bytes(content)
            else:
                target.write_text(content if isinstance(content, str) else json.dumps(content))
        return directory

    return write


def expected(tokenizer, add_special=True):
    return [tokenizer.encode(text, add_special_tokens=add_special).ids for text in TRICKY]


def trained(tokenizer, trainer, words):
    tokenizer.train_from_iterator([words, *TRICKY], trainer)
    return tokenizer


def byte_pairs(words, pre_tokenizer, size=500, **options):
    tokenizer = Tokenizer(models.BPE(**options))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>", "</s>"],
        show_progress=False,
    )
    return trained(tokenizer, trainer, words)


@pytest.mark.parametrize("splitter", TABLE, ids=lambda splitter: splitter.name)
def test_byte_level(splitter, words, files, tokenize):
    """Every pre-tokenizer: the built-in expressions of llama.cpp split as the table says they do."""
    tokenizer = byte_pairs(words, build(splitter), ignore_merges=splitter.whole_words)
    plain = [text for text in TRICKY if "<" not in text]
    ids = tokenize(files(tokenizer), 512)
    differing = [
        text
        for text, got in zip(TRICKY, ids, strict=True)
        if text in plain and got != tokenizer.encode(text).ids
    ]
    allowed = KNOWN_DIFFERENCES.get(splitter.name, set())
    assert set(differing) == allowed


# llama.cpp's own expressions differ here from those in the published tokenizer.json.
KNOWN_DIFFERENCES: dict[str, set[str]] = {}


def test_added_tokens_and_template(words, files, tokenize):
    tokenizer = byte_pairs(words, pre_tokenizers.ByteLevel(add_prefix_space=False))
    tokenizer.add_special_tokens(["<|end|>"])
    tokenizer.add_tokens(["<think>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    directory = files(
        tokenizer,
        tokenizer_config__json={"bos_token": {"content": "<s>"}, "eos_token": "</s>"},
        generation_config__json={"eos_token_id": [1, tokenizer.token_to_id("<|end|>")]},
    )
    metadata = tokenizer_metadata(directory, 512, {}, "{{ messages }}")
    assert metadata["tokenizer.ggml.bos_token_id"] == 0
    assert metadata["tokenizer.ggml.eos_token_id"] == 1
    assert metadata["tokenizer.ggml.eot_token_id"] == tokenizer.token_to_id("<|end|>")
    assert metadata["tokenizer.ggml.add_bos_token"] is True
    assert metadata["tokenizer.ggml.add_eos_token"] is False
    assert metadata["tokenizer.chat_template"] == "{{ messages }}"
    kinds = metadata["tokenizer.ggml.token_type"]
    assert kinds[tokenizer.token_to_id("<|end|>")] == 3
    assert kinds[tokenizer.token_to_id("<think>")] == 4
    assert kinds[510] == 5
    assert metadata["tokenizer.ggml.tokens"][510] == "[PAD510]"
    plain = [text for text in TRICKY if "<" not in text]
    ids = tokenize(directory, 512)
    for text, got in zip(TRICKY, ids, strict=True):
        if text in plain:
            assert got == tokenizer.encode(text).ids


def sentencepiece_like(words):
    """Llama 2's kind: BPE over ▁ instead of spaces, unknown letters as bytes."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=[*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))],
        limit_alphabet=60,
        show_progress=False,
    )
    tokenizer.train_from_iterator([*words.replace("▁", " ").split("\n")], trainer)
    description = json.loads(tokenizer.to_str())
    description["added_tokens"] = [
        entry for entry in description["added_tokens"] if not entry["content"].startswith("<0x")
    ]
    return Tokenizer.from_str(json.dumps(description))


def test_byte_fallback(words, files, tokenize):
    tokenizer = sentencepiece_like(words)
    directory = files(tokenizer, tokenizer_config__json={"bos_token": "<s>", "add_bos_token": False})
    metadata = tokenizer_metadata(directory, 600, {}, None)
    assert metadata["tokenizer.ggml.model"] == "llama"
    assert metadata["tokenizer.ggml.add_space_prefix"] is True
    assert metadata["tokenizer.ggml.token_type"][3:259].tolist() == [6] * 256
    plain = [text for text in TRICKY if "<" not in text]
    ids = tokenize(directory, 600, add_special=False)
    differing = [
        text
        for text, got in zip(TRICKY, ids, strict=True)
        if text in plain and got != tokenizer.encode(text, add_special_tokens=False).ids
    ]
    assert differing == []


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_sentencepiece_files(kind, words, files, tokenize, tmp_path):
    """A real tokenizer.model, read without the sentencepiece library, tokenizes as that library does."""
    sentencepiece = pytest.importorskip("sentencepiece")
    (tmp_path / "text.txt").write_text(words)
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text.txt"),
        model_prefix=str(tmp_path / kind),
        vocab_size=700,
        model_type=kind,
        byte_fallback=kind == "bpe",
        character_coverage=0.999,
        remove_extra_whitespaces=kind == "unigram",
        normalization_rule_name="identity" if kind == "bpe" else "nmt_nfkc",
        minloglevel=2,
    )
    model = tmp_path / f"{kind}.model"
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    directory = files(None, tokenizer__model=model.read_bytes())
    metadata = tokenizer_metadata(directory, 700, {"bos_token_id": 1, "eos_token_id": 2}, None)
    assert metadata["tokenizer.ggml.model"] == {"bpe": "llama", "unigram": "t5"}[kind]
    assert metadata["tokenizer.ggml.scores"][400] == np.float32(processor.get_score(400))
    ids = tokenize(directory, 700, add_special=False)
    plain = [text for text in TRICKY if "<" not in text]
    differing = [
        text for text, got in zip(TRICKY, ids, strict=True) if text in plain and got != processor.encode(text)
    ]
    assert differing == []
    assert metadata["tokenizer.ggml.add_space_prefix"] is True
    (directory / "tokenizer_config.json").write_text('{"add_prefix_space": false}')  # as ERNIE 4.5 says
    assert tokenizer_metadata(directory, 700, {}, None)["tokenizer.ggml.add_space_prefix"] is False


@pytest.mark.parametrize("lowercase", [True, False])
def test_wordpiece(lowercase, words, files, tokenize):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trained(
        tokenizer,
        trainers.WordPieceTrainer(vocab_size=900, special_tokens=special, show_progress=False),
        words,
    )
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    stated = {"cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]", "do_lower_case": lowercase}
    directory = files(tokenizer, tokenizer_config__json=stated)

    def differing():
        pairs = zip(TRICKY, tokenize(directory, 900), expected(tokenizer), strict=True)
        return {text for text, got, wanted in pairs if got != wanted}

    # Stripping accents, llama.cpp leaves Hangul whole and drops Devanagari vowels; transformers does neither.
    allowed = {text for text in TRICKY if "한국어" in text or "हिन्दी" in text} if lowercase else set()
    assert differing() == allowed
    (directory / "tokenizer.json").unlink()
    words_by_id = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    (directory / "vocab.txt").write_text("\n".join(words_by_id) + "\n")
    assert differing() == allowed


def test_unigram(words, files, tokenize):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Replace(Regex(" {2,}"), " ")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=700,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    trained(tokenizer, trainer, words)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    metadata = tokenizer_metadata(files(tokenizer), 700, {}, None)
    assert metadata["tokenizer.ggml.model"] == "t5"
    assert metadata["tokenizer.ggml.add_bos_token"] is True
    assert metadata["tokenizer.ggml.bos_token_id"] == 0
    assert metadata["tokenizer.ggml.eos_token_id"] == 2


def test_merges_and_vocabulary_files(words, files):
    tokenizer = byte_pairs(words, pre_tokenizers.ByteLevel(add_prefix_space=False))
    description = json.loads(tokenizer.to_str())
    merges = "\n".join(["#version: 0.2", *(" ".join(merge) for merge in description["model"]["merges"])])
    directory = files(None, vocab__json=description["model"]["vocab"], merges__txt=merges)
    metadata = tokenizer_metadata(directory, 500, {"eos_token_id": 1}, None)
    assert metadata["tokenizer.ggml.pre"] == "gpt-2"
    assert metadata["tokenizer.ggml.merges"] == merges.split("\n")[1:]
    (directory / "tokenizer_config.json").write_text('{"tokenizer_class": "QuadTokenizer"}')
    with pytest.raises(UnsupportedError, match="QuadTokenizer"):
        tokenizer_metadata(directory, 500, {}, None)


def test_forced_pre_tokenizer(words, files):
    tokenizer = byte_pairs(words, pre_tokenizers.ByteLevel(add_prefix_space=True))
    directory = files(tokenizer)
    with pytest.raises(UnsupportedError, match="gpt-2"):
        tokenizer_metadata(directory, 512, {}, None)
    assert tokenizer_metadata(directory, 512, {}, None, "gpt-2")["tokenizer.ggml.pre"] == "gpt-2"


def test_two_tokens_around_a_text_are_refused(words, files):
    tokenizer = byte_pairs(words, pre_tokenizers.ByteLevel(add_prefix_space=False))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> </s> $A", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    with pytest.raises(UnsupportedError, match="adds 2 tokens before"):
        tokenizer_metadata(files(tokenizer), 512, {}, None)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{}", "describes no model"),
        ("[]", "object"),
        ('{"model": {"type": "BPE"}}', "cannot be read"),
        (
            '{"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}',
            "no tokenizer for a WordLevel",
        ),
    ],
)
def test_damaged_files(content, problem, files):
    with pytest.raises((FormatError, UnsupportedError), match=problem):
        tokenizer_metadata(files(None, tokenizer__json=content), 8, {}, None)


def test_more_tokens_than_embeddings(words, files):
    tokenizer = byte_pairs(words, pre_tokenizers.ByteLevel(add_prefix_space=False))
    with pytest.raises(FormatError, match="the embedding ends at 299"):
        tokenizer_metadata(files(tokenizer), 300, {}, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
        {"normalizer": {"type": "Replace", "pattern": {"String": ""}, "content": "x"}},
        {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
        {
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "x", "type_id": 0}}],
                "pair": [],
                "special_tokens": {},
            }
        },
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_panics_of_the_library_are_one_error(changes, words, files, capfd):
    """Rust writes a report and a stack to stderr before Python sees the panic."""
    description = json.loads(byte_pairs(words, pre_tokenizers.ByteLevel(add_prefix_space=False)).to_str())
    directory = files(None, tokenizer__json=description | changes)
    with pytest.raises(FormatError, match="cannot be read: PanicException") as caught:
        tokenizer_metadata(directory, 512, {}, None)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_what_others_write_meanwhile_is_kept(capfd):
    from terazi.convert.tokenizer import _quiet

    with _quiet():
        print("still here", file=sys.stderr, flush=True)
    assert "still here" in capfd.readouterr().err


def test_marks_that_a_chat_parser_reads_are_rendered(words, files):
    tokenizer = byte_pairs(words, pre_tokenizers.ByteLevel(add_prefix_space=False))
    tokenizer.add_special_tokens(["<|tool_call>", "<|other>"])
    metadata = tokenizer_metadata(files(tokenizer), 512, {}, None)
    kinds = dict(zip(metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"], strict=True))
    assert (kinds["<|tool_call>"], kinds["<|other>"]) == (4, 3)
