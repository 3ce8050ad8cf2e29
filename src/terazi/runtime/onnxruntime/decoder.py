"""A language model open in onnxruntime-genai, inside this process."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime_genai

from terazi.errors import EngineError, UnsupportedError, UsageError
from terazi.runtime.tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["Decoder", "parts"]

_genai: Any = onnxruntime_genai  # its names come from a native module
_PART = 512  # tokens of a prompt that are read at once


class Decoder:
    """A directory with genai_config.json and the tokenizer beside it.

    ``context`` is the longest sequence in tokens, ``ends`` the tokens that end an answer. ``template``
    replaces the model's own chat template. Raises `EngineError` with the reason when it cannot be loaded.
    """

    def __init__(self, directory: Path, *, threads: int, context: int, template: str = "") -> None:
        self._directory = directory
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
        self._tokenizer: Tokenizer | None = None
        if (directory / "tokenizer.json").is_file():
            self._tokenizer = Tokenizer(directory, template=template)
        ends = settings.get("eos_token_id", [])
        self.ends = frozenset(ends if isinstance(ends, list) else [ends])

    @property
    def tokenizer(self) -> Tokenizer:
        """The directory's tokenizer; raises `UnsupportedError` without one."""
        if self._tokenizer is None:
            raise UnsupportedError(f"{self._directory}: no tokenizer.json, so it takes no texts")
        return self._tokenizer

    @property
    def begin_token(self) -> int | None:
        """What the tokenizer puts before every text."""
        return self._tokenizer.begin if self._tokenizer is not None else None

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


def parts(tokens: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield a prompt in pieces, between which others may have a turn."""
    for start in range(0, len(tokens), _PART):
        yield np.array(tokens[start : start + _PART], np.int32)


def _compact(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Allow no free white space, of which small models write nothing else until the limit."""
    return {**schema, "x-guidance": {"whitespace_flexible": False}}


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
