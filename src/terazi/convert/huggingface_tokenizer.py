"""The vocabulary of a GGUF file as tokenizer.json: byte-level BPE, SentencePiece, WordPiece, Unigram."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from terazi.convert import pretokenizer
from terazi.convert.vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED
from terazi.errors import FormatError, UnsupportedError

__all__ = ["tokenizer_files"]

_SPACE = "▁"
_PREFIX = "tokenizer.ggml."
_NAMES = {
    "bos_token_id": "bos_token",
    "eos_token_id": "eos_token",
    "unknown_token_id": "unk_token",
    "seperator_token_id": "sep_token",
    "padding_token_id": "pad_token",
    "mask_token_id": "mask_token",
}


def tokenizer_files(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return tokenizer.json and tokenizer_config.json (and the chat template) for GGUF ``metadata``.

    Raises `UnsupportedError` for kinds of tokenizers without a counterpart, `FormatError` for a damaged
    vocabulary.
    """
    keys = {key.removeprefix(_PREFIX): value for key, value in metadata.items() if key.startswith(_PREFIX)}
    tokens = keys.get("tokens")
    if not isinstance(tokens, list) or not tokens:
        raise FormatError("tokenizer.ggml.tokens", "the file has no vocabulary")
    if not all(isinstance(token, str) for token in tokens):
        raise FormatError("tokenizer.ggml.tokens", "not all are text")
    kinds = keys.get("token_type", np.full(len(tokens), NORMAL))
    if not isinstance(kinds, np.ndarray) or kinds.shape != (len(tokens),):
        raise FormatError("tokenizer.ggml.token_type", f"does not fit {len(tokens)} tokens")
    makers = {"gpt2": _byte_level, "llama": _pieces, "bert": _wordpiece, "t5": _unigram}
    if not isinstance(keys.get("model"), str) or keys["model"] not in makers:
        raise UnsupportedError(
            f"a {str(keys.get('model'))[:40]!r} tokenizer has no counterpart in tokenizer.json"
        )
    description = {"version": "1.0", "truncation": None, "padding": None}
    stated: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
    }
    try:
        description["added_tokens"] = list(_added(tokens, kinds))
        description |= makers[keys["model"]](keys, tokens, kinds)
        description["post_processor"] = _around(keys, tokens)
        for key, name in _NAMES.items():
            if key in keys and 0 <= int(keys[key]) < len(tokens):
                stated[name] = tokens[int(keys[key])]
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError) as error:
        raise FormatError("tokenizer.ggml", f"the vocabulary is damaged: {str(error)[:200]}") from None
    files = {
        "tokenizer.json": json.dumps(description, ensure_ascii=False),
        "tokenizer_config.json": json.dumps(stated, ensure_ascii=False, indent=2),
    }
    template = metadata.get("tokenizer.chat_template")
    return files | ({"chat_template.jinja": template} if isinstance(template, str) else {})


def _added(tokens: Sequence[str], kinds: np.ndarray) -> Iterator[dict[str, Any]]:
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    for id in np.flatnonzero(np.isin(kinds, (CONTROL, USER_DEFINED))).tolist():
        yield {"id": id, "content": tokens[id], "special": bool(kinds[id] == CONTROL), **plain}


def _words(tokens: Sequence[str], kinds: np.ndarray) -> dict[str, int]:
    return {token: id for id, (token, kind) in enumerate(zip(tokens, kinds, strict=True)) if kind != UNUSED}


def _byte_level(keys: Mapping[str, Any], tokens: Sequence[str], kinds: np.ndarray) -> dict[str, Any]:
    name = str(keys.get("pre", "default"))
    splitter = pretokenizer.splitter(name)
    if splitter is None:
        raise UnsupportedError(f"the pre-tokenizer {name!r} has no counterpart in tokenizer.json")
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    steps = [
        {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}
        for expression in splitter.expressions
    ]
    return {
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*steps, byte_level]},
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "ignore_merges": splitter.whole_words,
            "vocab": _words(tokens, kinds),
            "merges": [merge.split(" ", 1) for merge in keys.get("merges", [])],
        },
    }


def _pieces(keys: Mapping[str, Any], tokens: Sequence[str], kinds: np.ndarray) -> dict[str, Any]:
    words = _words(tokens, kinds)
    prefix = bool(keys.get("add_space_prefix", True))
    start = [{"type": "Prepend", "prepend": _SPACE}] if prefix else []
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    back = {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "}
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    unknown = np.flatnonzero(kinds == UNKNOWN)
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*start, replace]},
        "pre_tokenizer": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip],
        },
        "model": {
            "type": "BPE",
            "unk_token": tokens[unknown[0]] if len(unknown) else None,
            "fuse_unk": True,
            "byte_fallback": bool((kinds == BYTE).any()),
            "ignore_merges": False,
            "vocab": words,
            "merges": _merges(tokens, kinds, np.asarray(keys["scores"])),
        },
    }


def _merges(tokens: Sequence[str], kinds: np.ndarray, scores: np.ndarray) -> list[tuple[str, str]]:
    """SentencePiece joins the pair whose result scores highest: all ways to make each piece, best first."""
    words = {token: id for id, token in enumerate(tokens) if kinds[id] == NORMAL}
    found = []
    for token, id in words.items():
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in words and right in words:
                found.append((-float(scores[id]), id, words[left], words[right], left, right))
    return [(left, right) for *_, left, right in sorted(found)]


def _wordpiece(keys: Mapping[str, Any], tokens: Sequence[str], kinds: np.ndarray) -> dict[str, Any]:
    words = {}
    for token, id in _words(tokens, kinds).items():
        whole = kinds[id] != NORMAL
        words[token if whole else token[1:] if token.startswith(_SPACE) else "##" + token] = id
    lowercase = bool(keys.get("normalizer.lowercase", True))
    return {
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": bool(keys.get("normalizer.strip_accents", lowercase)),
            "lowercase": lowercase,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": tokens[int(keys.get("unknown_token_id", 100))],
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": words,
        },
    }


def _unigram(keys: Mapping[str, Any], tokens: Sequence[str], kinds: np.ndarray) -> dict[str, Any]:
    steps: list[dict[str, Any]] = []
    if "precompiled_charsmap" in keys:
        charsmap = np.asarray(keys["precompiled_charsmap"]).astype(np.uint8).tobytes()
        steps.append({"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap).decode()})
    if keys.get("remove_extra_whitespaces"):
        steps.append({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})
    scheme = "always" if keys.get("add_space_prefix", True) else "never"
    metaspace = {"type": "Metaspace", "replacement": _SPACE, "prepend_scheme": scheme, "split": True}
    unknown = np.flatnonzero(kinds == UNKNOWN)
    scores = np.asarray(keys["scores"], np.float64).tolist()
    return {
        "normalizer": {"type": "Sequence", "normalizers": steps} if steps else None,
        "pre_tokenizer": metaspace,
        "decoder": metaspace,
        "model": {
            "type": "Unigram",
            "unk_id": int(unknown[0]) if len(unknown) else None,
            "vocab": [[token, score] for token, score in zip(tokens, scores, strict=True)],
            "byte_fallback": False,
        },
    }


def _around(keys: Mapping[str, Any], tokens: Sequence[str]) -> dict[str, Any] | None:
    """Return the post-processor that puts the begin and end tokens around a text."""
    bert = keys["model"] == "bert"
    ends = []
    for flag, key, default in (
        ("add_bos_token", "bos_token_id", bert or keys["model"] == "llama"),
        ("add_eos_token", "seperator_token_id" if bert else "eos_token_id", bert or keys["model"] == "t5"),
    ):
        wanted = bool(keys.get(flag, default)) and key in keys and int(keys[key]) < len(tokens)
        ends.append(int(keys[key]) if wanted else None)
    if ends == [None, None]:
        return None
    special = [{"SpecialToken": {"id": tokens[id], "type_id": 0}} if id is not None else None for id in ends]
    single = [part for part in (special[0], {"Sequence": {"id": "A", "type_id": 0}}, special[1]) if part]
    second = [part for part in ({"Sequence": {"id": "B", "type_id": 1}}, special[1]) if part]
    used = {
        tokens[id]: {"id": tokens[id], "ids": [id], "tokens": [tokens[id]]} for id in ends if id is not None
    }
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, *second],
        "special_tokens": used,
    }
