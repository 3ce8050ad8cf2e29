"""MLX models behind OpenAI's protocol: ``python -m terazi.runtime.mlx.server``.

mlx-lm's own server generates: it joins running answers in batches and remembers conversations. Its HTTP part
is not used: it has no password, answers errors in a form of its own, leaves out silently what it cannot do,
and writes on for a client that has left.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from terazi.errors import EngineError, MissingExtraError
from terazi.runtime.openai.answer import Piece, Writing
from terazi.runtime.openai.server import Server
from terazi.runtime.openai.turns import Embedding, Turns
from terazi.runtime.server import ServerOptions, serve
from terazi.runtime.tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from terazi.runtime.mlx.generation import Generation
    from terazi.runtime.openai.request import Ask

__all__ = ["ServerOptions"]


class _Language:
    """A `Writer` over mlx-lm."""

    can = frozenset({"top_k", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty"})

    def __init__(self, generation: Generation, tokenizer: Tokenizer) -> None:
        self._generation, self._tokenizer = generation, tokenizer

    def begin(self, ask: Ask) -> Writing:
        with self._watched():
            context, responses = self._generation.ask(ask)
        text = isinstance(ask.prompt, str)
        written = _plain(responses, self._tokenizer) if text else _told(context, responses)
        pieces = self._pieces(context, written)
        return Writing(len(context.prompt), max(context.prompt_cache_count, 0), pieces)

    def _pieces(self, context: Any, written: Iterator[Piece]) -> Generator[Piece]:
        try:
            with self._watched():
                yield from written
        finally:
            context.stop()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if not self._generation.is_healthy:
                os._exit(1)  # the log says why its thread died; the gateway starts another process
            raise EngineError(f"mlx-lm: {error}") from None


def _plain(responses: Iterator[Any], tokenizer: Tokenizer) -> Iterator[Piece]:
    """Turn mlx-lm's responses, one per token, into text; its own text has lost a space at the beginning."""
    text = tokenizer.text()
    for response in responses:
        ending = response.finish_reason
        said = "" if ending == "stop" else text.add(response.token)
        yield Piece(said + (text.finish() if ending else ""), ending=ending)


def _told(context: Any, responses: Iterator[Any]) -> Iterator[Piece]:
    """Turn mlx-lm's responses into pieces of an answer, thoughts apart from the rest."""
    machine = context.text_sm
    state = machine.make_state(context.initial_state)
    for response in responses:
        ending = response.finish_reason
        state, segments = machine.split(state, response.text)
        if ending:
            state, rest, name = machine.flush(state)
            segments.append((name, rest))
        *first, last = segments
        for name, text in first:
            if text:
                yield Piece(text, token=False, thought=name == "reasoning")
        yield Piece(last[1], ending=ending, thought=last[0] == "reasoning")


def _start(options: ServerOptions) -> Server:
    sys.modules["torch"] = None  # pyright: ignore[reportArgumentType] - transformers would import it for nothing
    try:
        if options.embedding:
            from terazi.runtime.mlx.encoder import Encoder

            turns, path = Turns(), Path(options.model)
            encoder = turns.take(Encoder, path, context=options.context)
            engine = Embedding(turns, encoder.tokenizer, encoder.embed, longest=options.context)
            return Server(engine, options)
        from terazi.runtime.mlx.generation import Generation
    except ImportError:
        raise MissingExtraError("running MLX models", "mlx") from None
    return Server(_Language(Generation(options), Tokenizer(Path(options.model))), options)


if __name__ == "__main__":
    serve(ServerOptions, _start)
