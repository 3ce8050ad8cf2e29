"""A language model open in onnxruntime-genai, inside this process: prompts to tokens, tokens to text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime_genai

from terazi.errors import EngineError, UnsupportedError, UsageError
from terazi.runtime.chat import render

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Decoder", "Text", "parts"]

_genai: Any = onnxruntime_genai  # its names come from a native module
_PART = 512  # tokens of a prompt that are read at once


class Decoder:
    """A directory with genai_config.json and the tokenizer beside it.

    ``context`` is the longest sequence in tokens, ``ends`` the tokens that end an answer. ``template``
    replaces the model's own chat template. Raises `EngineError` with the reason when it cannot be loaded.
    """

    def __init__(self, directory: Path, *, threads: int, context: int, template: str = "") -> None:
        from tokenizers import Tokenizer

        self._directory, self._template = directory, template
        try:
            settings = json.loads((directory / "genai_config.json").read_text("utf-8"))["model"]
            config = _genai.Config(str(directory))
            options = {"session_options": {"intra_op_num_threads": threads}}
            config.overlay(json.dumps({"model": {"decoder": options}}))
            self._model = _genai.Model(config)
            self.context = min(context, int(settings["context_length"]))
            self.vocabulary = int(settings["vocab_size"])
        except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
            raise EngineError(f"onnxruntime-genai cannot load {directory}: {_first_line(error)}") from None
        file = directory / "tokenizer.json"
        self._tokenizer = Tokenizer.from_file(str(file)) if file.is_file() else None
        ends = settings.get("eos_token_id", [])
        self.ends = frozenset(ends if isinstance(ends, list) else [ends])
        begin = settings.get("bos_token_id")
        adds = self._tokenizer is not None and self._tokenizer.encode("").ids[:1] == [begin]
        self.begin_token: int | None = begin if adds else None

    @property
    def tokenizer(self) -> Any:
        """The `tokenizers.Tokenizer`. Raises `UnsupportedError` when there is none."""
        if self._tokenizer is None:
            raise UnsupportedError(f"{self._directory}: no tokenizer.json, so it takes no text")
        return self._tokenizer

    def generator(
        self,
        length: int,
        *,
        temperature: float = 0.0,
        top_k: int = 40,
        top_p: float = 0.95,
        repeat_penalty: float = 1.0,
        seed: int = 0,
        schema: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return an `onnxruntime_genai.Generator` for up to ``length`` tokens; temperature 0 is greedy.

        Raises `UsageError` when they do not fit the context, or for a JSON ``schema`` that is none.
        """
        if length > self.context + 1:
            raise UsageError(f"{length - 1} tokens do not fit a context of {self.context}")
        parameters = _genai.GeneratorParams(self._model)
        options: dict[str, Any] = {
            "max_length": length,
            "do_sample": temperature > 0,
            "repetition_penalty": repeat_penalty,
        }
        if temperature > 0:
            options |= {"temperature": temperature, "top_k": top_k, "top_p": top_p, "random_seed": seed}
        parameters.set_search_options(**options)
        if schema is None:
            return _genai.Generator(self._model, parameters)
        try:
            parameters.set_guidance("json_schema", json.dumps(_compact(schema)))
            return _genai.Generator(self._model, parameters)
        except RuntimeError as error:
            raise UsageError(f"the JSON schema cannot be followed: {_first_line(error)}"[:300]) from None

    def prompt(
        self, prompt: str | Sequence[Mapping[str, Any]], values: Mapping[str, Any] | None = None
    ) -> list[int]:
        """Return the token ids of a text, or of chat messages by the template, given further ``values``."""
        if isinstance(prompt, str):
            return self.tokenizer.encode(prompt).ids
        settings = self._settings()
        file = self._directory / "chat_template.jinja"
        template = self._template or (
            file.read_text("utf-8") if file.is_file() else settings.get("chat_template")
        )
        if not isinstance(template, str):
            raise UnsupportedError("this model has no chat template", hint="give a text instead of messages")
        words = {}
        for name in ("bos", "eos"):
            word = settings.get(f"{name}_token")
            words[name] = word.get("content", "") if isinstance(word, dict) else word or ""
        text = render(template, prompt, values=values, **words)
        begins = text.startswith(words["bos"] or "\0")
        return self.tokenizer.encode(text, add_special_tokens=not begins).ids

    def text(self) -> Text:
        """Return what turns the tokens of one answer into text as they come."""
        return Text(self.tokenizer)

    def _settings(self) -> dict[str, Any]:
        file = self._directory / "tokenizer_config.json"
        try:
            found = json.loads(file.read_text("utf-8")) if file.is_file() else {}
        except ValueError:
            found = {}
        return found if isinstance(found, dict) else {}


class Text:
    """The text of one answer, token by token; half a character waits for the rest."""

    def __init__(self, tokenizer: Any) -> None:
        from tokenizers.decoders import DecodeStream

        self._tokenizer, self._stream = tokenizer, DecodeStream(skip_special_tokens=True)

    def add(self, token: int) -> str:
        """Return what the next token adds, which may be nothing."""
        return self._stream.step(self._tokenizer, token) or ""


def parts(tokens: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield a prompt in pieces, between which others may have a turn."""
    for start in range(0, len(tokens), _PART):
        yield np.array(tokens[start : start + _PART], np.int32)


def _compact(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Allow no free white space, of which small models write nothing else until the limit."""
    return {**schema, "x-guidance": {"whitespace_flexible": False}}


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
