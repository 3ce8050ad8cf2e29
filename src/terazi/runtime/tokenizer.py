"""Text to tokens and back for engines that know only tokens: a directory's tokenizer and chat template."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from terazi.errors import EngineError, UnsupportedError, UsageError
from terazi.runtime.chat import render

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np

__all__ = ["Text", "Tokenizer"]

_LARGEST = 1 << 28  # bytes of a tokenizer's file
_HALF = "\ufffd"  # what half of a character decodes to


class Tokenizer:
    """A directory's tokenizer.json. Raises `UnsupportedError` without one, `EngineError` for a damaged one.

    ``begin`` is the token it puts before every text, if any; ``end`` the one that ends an answer, if named.
    ``template`` replaces the directory's own chat template.
    """

    def __init__(self, directory: Path, *, template: str = "") -> None:
        import tokenizers

        file = directory / "tokenizer.json"
        if not file.is_file():
            raise UnsupportedError(f"{directory}: no tokenizer.json, so it takes no texts")
        try:
            self._tokenizer: Any = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the package raises nothing narrower
            raise EngineError(f"{file}: {str(error)[:200]}") from None
        padding = self._tokenizer.padding or {}
        self._padding = {key: value for key, value in padding.items() if key.startswith("pad_")}
        self._settings = _object(directory / "tokenizer_config.json")
        self._template = template or _template(directory, self._settings)
        first = self._tokenizer.encode("").ids[:1]
        begin = self._tokenizer.token_to_id(self._word("bos"))
        self.begin: int | None = begin if first == [begin] else None
        self.end: int | None = self._tokenizer.token_to_id(self._word("eos"))

    def encode(self, text: str, *, add_special: bool = True) -> list[int]:
        """Return token ids; special tokens written in ``text`` stay text."""
        return self._whole(special=False).encode(text, add_special_tokens=add_special).ids

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids, special tokens left out."""
        return self._tokenizer.decode([int(token) for token in tokens])

    def batch(self, texts: Sequence[str], *, longest: int) -> dict[str, np.ndarray]:
        """Return ``input_ids``, ``attention_mask`` and ``token_type_ids`` of texts, int64[len(texts), n].

        Texts are cut at ``longest`` tokens and padded to the longest of them.
        """
        import numpy as np

        found = self._encoded(texts, longest)
        columns = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
        return {
            name: np.array([getattr(encoding, column) for encoding in found], np.int64)
            for name, column in columns.items()
        }

    def count(self, texts: Sequence[str], *, longest: int) -> int:
        """Return the number of tokens of all texts. Raises `UsageError` for one longer than ``longest``."""
        found = self._encoded(texts, longest)
        for number, encoding in enumerate(found):
            if encoding.overflowing:
                raise UsageError(f"text {number} has more than {longest} tokens, the context size")
        return sum(sum(encoding.attention_mask) for encoding in found)

    def _encoded(self, texts: Sequence[str], longest: int) -> Any:
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.enable_truncation(longest)
        self._tokenizer.enable_padding(**self._padding)
        return self._tokenizer.encode_batch(list(texts))

    def prompt(
        self, prompt: str | Sequence[Mapping[str, Any]], values: Mapping[str, Any] | None = None
    ) -> list[int]:
        """Return the token ids of a text, or of chat messages by the template; written special tokens count.

        ``values`` are further variables of the template. Raises `UnsupportedError` for messages when there is
        no template.
        """
        tokenizer = self._whole(special=True)
        if isinstance(prompt, str):
            return tokenizer.encode(prompt).ids
        if not self._template:
            raise UnsupportedError("this model has no chat template", hint="give a text instead of messages")
        bos = self._word("bos")
        text = render(self._template, prompt, bos=bos, eos=self._word("eos"), values=values)
        return tokenizer.encode(text, add_special_tokens=not (bos and text.startswith(bos))).ids

    def text(self) -> Text:
        """Return what turns the tokens of one answer into text as they come."""
        return Text(self)

    def _whole(self, *, special: bool) -> Any:
        """Return the tokenizer, cutting and padding nothing, whatever the file says."""
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = not special
        return self._tokenizer

    def _word(self, role: str) -> str:
        word = self._settings.get(f"{role}_token")
        word = word.get("content") if isinstance(word, dict) else word
        return word if isinstance(word, str) else ""


class Text:
    """The text of one answer, token by token; half a character waits for the rest.

    A token's text depends on the one before, so the last two pieces are decoded together each time: the
    method of Hugging Face's text-generation-inference.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._decode = tokenizer.decode
        self._tokens: list[int] = []
        self._start = self._told = 0

    def add(self, token: int) -> str:
        """Return what the next token adds, which may be nothing."""
        self._tokens.append(token)
        piece = self._rest()
        if not piece or piece.endswith(_HALF):
            return ""
        self._start, self._told = self._told, len(self._tokens)
        return piece

    def finish(self) -> str:
        """Return what still waited."""
        return self._rest()

    def _rest(self) -> str:
        told = self._decode(self._tokens[self._start : self._told])
        return self._decode(self._tokens[self._start :])[len(told) :]


def _template(directory: Path, settings: Mapping[str, Any]) -> str:
    file = directory / "chat_template.jinja"
    if file.is_file() and file.stat().st_size < _LARGEST:
        return file.read_text("utf-8", errors="replace")
    found = settings.get("chat_template")
    if isinstance(found, list):  # several, by name
        named = [entry for entry in found if isinstance(entry, dict) and entry.get("name") == "default"]
        found = named[0].get("template") if named else None
    return found if isinstance(found, str) else ""


def _object(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text("utf-8")) if file.stat().st_size < _LARGEST else {}
    except (OSError, ValueError, RecursionError):
        found = {}
    return found if isinstance(found, dict) else {}
