"""A checkpoint's tokenizer as GGUF metadata: vocabulary, special tokens, what surrounds a text, template."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from terazi.convert.vocabulary import UNKNOWN, Vocabulary, from_json, from_rwkv, from_sentencepiece
from terazi.errors import FormatError, TeraziError, UnsupportedError
from terazi.formats.huggingface.reader import read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["tokenizer_metadata"]

# Hugging Face's name of a special token -> GGUF's key. GGUF has no class token: it is the first one, so bos.
_SPECIAL = {
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "unk": "unknown_token_id",
    "sep": "seperator_token_id",
    "pad": "padding_token_id",
    "mask": "mask_token_id",
}
_STAND_INS = {"bos": "cls", "eos": "sep"}


def tokenizer_metadata(
    directory: Path, rows: int, config: Mapping[str, Any], template: str | None, pre: str | None = None
) -> dict[str, Any]:
    """Return the ``tokenizer.*`` keys for the tokenizer files in ``directory``.

    ``rows`` is the height of the token embedding; ids that the tokenizer leaves out are filled. ``pre``
    forces the name of the pre-tokenizer. Raises `FormatError`, or `UnsupportedError` when llama.cpp cannot
    tokenize like this.
    """
    description = _description(directory)
    stated = _optional(directory / "tokenizer_config.json")
    if description is not None:
        with _guarded(directory / "tokenizer.json"):
            tokenizer = _load(description)
            vocabulary = from_json(description, tokenizer, pre)
    elif (directory / "tokenizer.model").is_file():
        tokenizer = None
        vocabulary = from_sentencepiece(directory / "tokenizer.model", _stated_tokens(directory, stated))
        if isinstance(stated.get("add_prefix_space"), bool):
            vocabulary.keys["tokenizer.ggml.add_space_prefix"] = stated["add_prefix_space"]
    elif worlds := sorted(directory.glob("rwkv_vocab_*.txt")):
        tokenizer = None
        with _guarded(worlds[0]):
            vocabulary = from_rwkv(worlds[0])
        config = {}  # names other tokens than the text file has
    else:
        raise UnsupportedError(
            f"{directory}: has no tokenizer.json, tokenizer.model, vocab.txt or vocab.json with merges.txt",
            hint="copy the model's tokenizer files beside its weights",
        )
    result = vocabulary.metadata(rows)
    special = _special_tokens(directory, stated, config, vocabulary)
    around = {"add_bos_token": vocabulary.keys["tokenizer.ggml.model"] != "rwkv", "add_eos_token": False}
    if tokenizer is not None:
        with _guarded(directory / "tokenizer.json"):
            around = _around(tokenizer, special)
    for name in ("add_bos_token", "add_eos_token"):
        if isinstance(stated.get(name), bool):
            around[name] = stated[name]
    ids = {
        f"tokenizer.ggml.{_SPECIAL[name]}": np.uint32(id) for name, id in special.items() if name in _SPECIAL
    }
    ids |= {f"tokenizer.ggml.{name}": value for name, value in around.items()}
    turn = _end_of_turn(directory, special.get("eos"), rows)
    if turn is not None:
        ids["tokenizer.ggml.eot_token_id"] = np.uint32(turn)
    return result | ids | ({"tokenizer.chat_template": template} if template else {})


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _description(directory: Path) -> dict[str, Any] | None:
    """Return tokenizer.json, or what it would say for the older files with words or words and merges."""
    if (directory / "tokenizer.json").is_file():
        found = read_json(directory / "tokenizer.json")
        if not isinstance(found.get("model"), dict):
            raise FormatError(directory / "tokenizer.json", "describes no model")
        return found
    if (directory / "tokenizer.model").is_file():
        return None
    if (directory / "vocab.txt").is_file():
        return _from_words(directory)
    if (directory / "vocab.json").is_file() and (directory / "merges.txt").is_file():
        return _from_merges(directory)
    return None


def _from_words(directory: Path) -> dict[str, Any]:
    """BERT's ``vocab.txt``: one word per line."""
    lines = (directory / "vocab.txt").read_text("utf-8").split("\n")
    words = {word.rstrip("\r"): id for id, word in enumerate(lines) if word}
    stated = _optional(directory / "tokenizer_config.json")
    lowercase = bool(stated.get("do_lower_case", True))
    special = [word for word in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if word in words]
    around = {"cls": ["[CLS]", words.get("[CLS]", 0)], "sep": ["[SEP]", words.get("[SEP]", 0)]}
    return {
        "version": "1.0",
        "added_tokens": [_added(words[word], word) for word in special],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": stated.get("strip_accents"),
            "lowercase": lowercase,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", **around},
        "decoder": None,
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": words,
        },
    }


def _from_merges(directory: Path) -> dict[str, Any]:
    """GPT-2's ``vocab.json`` and ``merges.txt``; other classes split text differently and say so nowhere."""
    name = str(_optional(directory / "tokenizer_config.json").get("tokenizer_class", "GPT2Tokenizer"))
    if name.removesuffix("Fast") not in ("GPT2Tokenizer", "RobertaTokenizer"):
        raise UnsupportedError(
            f"{directory}: {name} without tokenizer.json does not say how it splits text",
            hint="open it with transformers.AutoTokenizer and save_pretrained() to get a tokenizer.json",
        )
    lines = (directory / "merges.txt").read_text("utf-8").split("\n")
    options = {"use_regex": True, "trim_offsets": True}
    return {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, **options},
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, **options},
        "model": {
            "type": "BPE",
            "vocab": read_json(directory / "vocab.json"),
            "merges": [line for line in lines if line and not line.startswith("#version")],
        },
    }


def _added(id: int, content: str) -> dict[str, Any]:
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": id, "content": content, "special": True, **plain}


@contextmanager
def _guarded(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file makes the code that reads it raise into a `FormatError`."""
    try:
        with _quiet():
            yield
    except (TeraziError, KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # the tokenizers library raises bare Exception, and panics are none
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise FormatError(path, f"cannot be read: {reason}") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what is written to stderr, and drop it when it ends in an error.

    The tokenizers library reports a panic there, with its stack, before Python hears of it.
    """
    try:
        kept = os.dup(2)
    except OSError:  # there is no stderr
        yield
        return
    with tempfile.TemporaryFile() as held:
        if sys.stderr is not None:
            sys.stderr.flush()
        os.dup2(held.fileno(), 2)
        try:
            yield
            held.seek(0)
            os.write(kept, held.read())
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _load(description: Mapping[str, Any]) -> Tokenizer:
    from tokenizers import Tokenizer

    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        # llama.cpp's BPE has no such thing, and the library aborts on some values.
        if description["model"].get("type") != "WordPiece" and description["model"].get(name):
            raise UnsupportedError(f"llama.cpp has no tokenizer for BPE with {name} (tokenizer.json)")
    tokenizer = Tokenizer.from_str(json.dumps(description))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _stated_tokens(directory: Path, stated: Mapping[str, Any]) -> Iterator[tuple[int, str, bool]]:
    """Yield added tokens that stand beside a tokenizer.model."""
    for content, id in _optional(directory / "added_tokens.json").items():
        if type(id) is int:
            yield id, content, False
    decoder = stated.get("added_tokens_decoder")
    for id, entry in (decoder if isinstance(decoder, dict) else {}).items():
        if id.isdecimal() and isinstance(entry, dict) and entry.get("content"):
            yield int(id), str(entry["content"]), bool(entry.get("special"))


def _special_tokens(
    directory: Path, stated: Mapping[str, Any], config: Mapping[str, Any], vocabulary: Vocabulary
) -> dict[str, int]:
    """Return id by name (``bos``, ``cls``, ...): what the tokenizer's files say, otherwise config.json."""
    ids = {token: id for id, token in vocabulary.tokens.items()}
    named = _optional(directory / "special_tokens_map.json") | {
        k: v for k, v in stated.items() if v is not None
    }
    found: dict[str, int] = {}
    for name in (*_SPECIAL, "cls"):
        token = named.get(f"{name}_token")
        token = token.get("content") if isinstance(token, dict) else token
        id = ids.get(token) if isinstance(token, str) else config.get(f"{name}_token_id")
        id = id[0] if isinstance(id, list) and id else id
        if type(id) is int and id in vocabulary.tokens:
            found[name] = id
    unknown = next((id for id, kind in vocabulary.kinds.items() if kind == UNKNOWN), None)
    if unknown is not None:
        found.setdefault("unk", unknown)
    for name, other in _STAND_INS.items():
        if name not in found and other in found:
            found[name] = found[other]
    return found


def _around(tokenizer: Tokenizer, special: dict[str, int]) -> dict[str, bool]:
    """See what the tokenizer puts before and after a text; names those tokens where nothing else did."""
    plain = tokenizer.encode("a", add_special_tokens=False).ids
    whole = tokenizer.encode("a", add_special_tokens=True).ids
    start = next((i for i in range(len(whole)) if whole[i : i + len(plain)] == plain), 0)
    before, after = whole[:start], whole[start + len(plain) :]
    if len(before) > 1 or len(after) > 1:
        raise UnsupportedError(
            f"the tokenizer adds {len(before)} tokens before a text and {len(after)} after it; "
            "llama.cpp adds one at most"
        )
    if before:
        special["bos"] = before[0]
    if after:
        special["eos"] = after[0]
    return {"add_bos_token": bool(before), "add_eos_token": bool(after)}


def _end_of_turn(directory: Path, eos: int | None, rows: int) -> int | None:
    """Return the other token that ends an answer, when generation_config.json lists two."""
    listed = _optional(directory / "generation_config.json").get("eos_token_id")
    others = [id for id in listed if id != eos] if isinstance(listed, list) else []
    return next((id for id in others if type(id) is int and 0 <= id < rows), None)
