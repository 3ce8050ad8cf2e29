"""Tokens, their kinds, scores and merges in the four forms that llama.cpp tokenizes with."""

from __future__ import annotations

import ast
import base64
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from terazi.convert import pretokenizer, sentencepiece
from terazi.errors import FormatError, UnsupportedError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["Vocabulary", "from_json", "from_rwkv", "from_sentencepiece"]

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
_SPACE = "▁"
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_LOOKS_SPECIAL = re.compile(r"<\|.*\|>|<｜.*｜>|<unused\d+>|<pad>|<mask>", re.DOTALL)
# Gemma 4's marks around thoughts and calls, which llama.cpp's chat parser wants to see in the text.
_RENDERED = {"<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<|tool_response>"}
_RENDERED |= {"<tool_response|>", '<|"|>'}
_LITERAL = re.compile(r"b?['\"]")
_MAX_LITERAL = 1000
_ADDED_SCORE, _UNUSED_SCORE = -1000.0, -10000.0


@dataclass(slots=True)
class Vocabulary:
    """``tokens`` by id, with kinds and scores; ``keys`` are further ``tokenizer.*`` metadata."""

    tokens: dict[int, str]
    kinds: dict[int, int]
    scores: dict[int, float] = field(default_factory=dict)
    keys: dict[str, Any] = field(default_factory=dict)

    def add(self, added: Iterator[tuple[int, str, bool]], text: Callable[[str], str] = str) -> None:
        """Put added tokens (id, content, special) over what the model has; ``text`` spells plain ones."""
        for id, content, special in added:
            control = (special or bool(_LOOKS_SPECIAL.fullmatch(content))) and content not in _RENDERED
            unknown = self.kinds.get(id) == UNKNOWN
            self.tokens[id] = content if control else text(content)
            self.kinds[id] = UNKNOWN if unknown else CONTROL if control else USER_DEFINED
            self.scores[id] = _ADDED_SCORE

    def metadata(self, rows: int) -> dict[str, Any]:
        """Return ``tokenizer.ggml.*`` for ``rows`` embeddings; ids without a token get a filler."""
        if self.tokens and max(self.tokens) >= rows:
            raise FormatError(
                "tokenizer.json", f"has token {max(self.tokens)}, but the embedding ends at {rows - 1}"
            )
        result = dict(self.keys)
        texts = [self.tokens.get(id, f"[PAD{id}]") for id in range(rows)]
        if len(set(texts)) < rows:
            twice = next(text for text, count in Counter(texts).items() if count > 1)
            raise FormatError(
                "tokenizer.json", f"has token {twice[:40]!r} twice, which llama.cpp cannot load"
            )
        result["tokenizer.ggml.tokens"] = texts
        if self.scores:
            scores = [
                self.scores.get(id, _UNUSED_SCORE if id not in self.tokens else 0.0) for id in range(rows)
            ]
            result["tokenizer.ggml.scores"] = np.array(scores, np.float32)
        result["tokenizer.ggml.token_type"] = np.array(
            [self.kinds.get(id, UNUSED) for id in range(rows)], np.int32
        )
        return result


def from_json(description: Mapping[str, Any], tokenizer: Tokenizer, pre: str | None) -> Vocabulary:
    """Read a tokenizer.json. Raises `UnsupportedError` for kinds that llama.cpp does not know."""
    model = description["model"]
    kind = model.get("type") or ("Unigram" if isinstance(model.get("vocab"), list) else "BPE")
    if kind == "Unigram":
        vocabulary = _unigram(description, tokenizer)
    elif kind == "WordPiece":
        vocabulary = _wordpiece(description)
    elif kind == "BPE" and model.get("byte_fallback"):
        vocabulary = _pieces(description, tokenizer)
    elif kind == "BPE" and _has_step(description, "ByteLevel"):
        vocabulary = _byte_level(description, tokenizer, pre)
    else:
        raise UnsupportedError(
            f"llama.cpp has no tokenizer for a {kind} model without bytes (tokenizer.json)"
        )
    return vocabulary


def from_sentencepiece(path: Path, added: Iterator[tuple[int, str, bool]]) -> Vocabulary:
    """Read a ``tokenizer.model`` of the kind that Llama 2 and Gemma use (BPE with bytes) or a Unigram one."""
    pieces = sentencepiece.read(path)
    ids = range(len(pieces.tokens))
    vocabulary = Vocabulary(
        tokens=dict(zip(ids, pieces.tokens, strict=True)),
        kinds=dict(zip(ids, pieces.kinds, strict=True)),
        scores=dict(zip(ids, pieces.scores, strict=True)),
    )
    vocabulary.keys = {
        "tokenizer.ggml.model": "llama" if pieces.model_type == sentencepiece.BPE else "t5",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.add_space_prefix": pieces.add_prefix,
    }
    if pieces.model_type != sentencepiece.BPE:
        vocabulary.keys["tokenizer.ggml.remove_extra_whitespaces"] = pieces.remove_extra_spaces
        _add_charsmap(vocabulary, pieces.charsmap)
    vocabulary.add(added, _spaced)
    return vocabulary


def from_rwkv(path: Path) -> Vocabulary:
    """Read RWKV's ``rwkv_vocab_*.txt``: lines of an id, a Python literal of text or bytes, and its length."""
    tokens, kinds = {0: "<s>"}, {0: CONTROL}
    for line in path.read_text("utf-8").splitlines():
        id, _, rest = line.partition(" ")
        literal, _, length = rest.rpartition(" ")
        if len(literal) > _MAX_LITERAL or not _LITERAL.match(literal):
            raise FormatError(path, f"token {id[:20]} is neither text nor bytes: {literal[:40]}")
        token = ast.literal_eval(literal)
        token = token.encode() if isinstance(token, str) else token
        if len(token) != int(length):
            raise FormatError(path, f"token {id[:20]} has {len(token)} bytes, not {length[:20]}")
        tokens[int(id)] = repr(token)[2:-1]  # llama.cpp undoes the escapes
        kinds[int(id)] = NORMAL
    keys: dict[str, Any] = {"tokenizer.ggml.model": "rwkv"}
    keys |= {f"tokenizer.ggml.{name}_token_id": np.uint32(0) for name in ("bos", "eos")}
    turn = next((id for id, token in tokens.items() if token == r"\n\n"), None)  # ends what one says
    if turn is not None:
        keys["tokenizer.ggml.eot_token_id"] = np.uint32(turn)
    return Vocabulary(tokens=tokens, kinds=kinds, keys=keys)


def added_tokens(description: Mapping[str, Any]) -> Iterator[tuple[int, str, bool]]:
    """Yield id, content and whether it is special of each added token. Raises `FormatError`."""
    for entry in description.get("added_tokens") or []:
        if not isinstance(entry, dict) or type(entry.get("id")) is not int or not entry.get("content"):
            raise FormatError("tokenizer.json", "has an added token without id or content")
        yield entry["id"], str(entry["content"]), bool(entry.get("special"))


def steps(section: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the steps of a normalizer, pre-tokenizer or post-processor, sequences opened."""
    if not isinstance(section, dict):
        return
    for name in ("normalizers", "pretokenizers", "processors", "decoders"):
        if section.get("type") == "Sequence" and isinstance(section.get(name), list):
            for step in section[name]:
                yield from steps(step)
            return
    yield section


def _has_step(description: Mapping[str, Any], kind: str) -> bool:
    sections = (description.get("pre_tokenizer"), description.get("decoder"))
    return any(step.get("type") == kind for section in sections for step in steps(section))


def _spaced(token: str) -> str:
    return token.replace(_SPACE, " ")


def _by_id(model: Mapping[str, Any]) -> dict[int, str]:
    return {id: token for token, id in model["vocab"].items()}


def _byte_level(description: Mapping[str, Any], tokenizer: Tokenizer, pre: str | None) -> Vocabulary:
    model = description["model"]
    tokens = _by_id(model)
    whole_words = bool(model.get("ignore_merges"))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    vocabulary = Vocabulary(tokens=tokens, kinds=dict.fromkeys(tokens, NORMAL))
    vocabulary.keys = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre or pretokenizer.find(tokenizer.pre_tokenizer, whole_words=whole_words),
        "tokenizer.ggml.merges": merges,
    }
    vocabulary.add(added_tokens(description))
    vocabulary.scores = {}
    return vocabulary


def _wordpiece(description: Mapping[str, Any]) -> Vocabulary:
    """Words start with ``▁`` for llama.cpp and their continuations do not; BERT marks the latter ``##``."""
    model = description["model"]
    prefix = model.get("continuing_subword_prefix") or "##"
    special = {id for id, _, special in added_tokens(description) if special}
    tokens = {}
    for id, token in _by_id(model).items():
        plain = id in special
        tokens[id] = token if plain else token[len(prefix) :] if token.startswith(prefix) else _SPACE + token
    vocabulary = Vocabulary(tokens=tokens, kinds=dict.fromkeys(tokens, NORMAL))
    lowercase, strip = False, None
    for step in steps(description.get("normalizer")):
        if step.get("type") == "BertNormalizer":
            lowercase, strip = bool(step.get("lowercase")), step.get("strip_accents")
        lowercase |= step.get("type") == "Lowercase"
        strip = True if step.get("type") == "StripAccents" else strip
    vocabulary.keys = {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.normalizer.lowercase": lowercase,
        "tokenizer.ggml.normalizer.strip_accents": lowercase if strip is None else bool(strip),
    }
    vocabulary.add(added_tokens(description))
    vocabulary.scores = {}
    return vocabulary


def _pieces(description: Mapping[str, Any], tokenizer: Tokenizer) -> Vocabulary:
    """SentencePiece BPE as merges: a token's score is the rank of the first merge that makes it."""
    model = description["model"]
    tokens = _by_id(model)
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(model["merges"]):
        left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
        ranks.setdefault(left + right, rank)
    vocabulary = Vocabulary(
        tokens=tokens,
        kinds={id: BYTE if _BYTE.fullmatch(token) else NORMAL for id, token in tokens.items()},
        scores={id: -float(ranks.get(token, len(ranks))) for id, token in tokens.items()},
    )
    unknown = model["vocab"].get(model.get("unk_token"))
    if unknown is not None:
        vocabulary.kinds[unknown] = UNKNOWN
    vocabulary.keys = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.add_space_prefix": _adds_prefix(tokenizer),
    }
    vocabulary.add(added_tokens(description), _spaced)
    return vocabulary


def _unigram(description: Mapping[str, Any], tokenizer: Tokenizer) -> Vocabulary:
    model = description["model"]
    tokens = {id: str(token) for id, (token, _) in enumerate(model["vocab"])}
    vocabulary = Vocabulary(
        tokens=tokens,
        kinds=dict.fromkeys(tokens, NORMAL),
        scores={id: float(score) for id, (_, score) in enumerate(model["vocab"])},
    )
    if type(model.get("unk_id")) is int:
        vocabulary.kinds[model["unk_id"]] = UNKNOWN
    kept = dict(vocabulary.scores)
    vocabulary.add(added_tokens(description), _spaced)
    vocabulary.scores.update(kept)
    vocabulary.keys = {
        "tokenizer.ggml.model": "t5",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.add_space_prefix": _adds_prefix(tokenizer),
        "tokenizer.ggml.remove_extra_whitespaces": _removes_spaces(tokenizer),
    }
    for step in steps(description.get("normalizer")):
        if step.get("type") == "Precompiled" and step.get("precompiled_charsmap"):
            _add_charsmap(vocabulary, base64.b64decode(step["precompiled_charsmap"]))
    return vocabulary


def _add_charsmap(vocabulary: Vocabulary, charsmap: bytes) -> None:
    if charsmap:
        vocabulary.keys["tokenizer.ggml.precompiled_charsmap"] = np.frombuffer(charsmap, np.uint8)


def _adds_prefix(tokenizer: Tokenizer) -> bool:
    """Whether text that begins with a letter is tokenized as if a space stood before it."""
    return tokenizer.encode("a", add_special_tokens=False).tokens[:1] != ["a"]


def _removes_spaces(tokenizer: Tokenizer) -> bool:
    plain = tokenizer.encode("a b", add_special_tokens=False).ids
    return tokenizer.encode("a   b", add_special_tokens=False).ids == plain
