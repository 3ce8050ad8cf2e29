"""MLX models behind OpenAI's protocol: ``python -m terazi.runtime.mlx.server``.

mlx-lm's own server generates: it joins running answers in batches and remembers conversations. Its HTTP part
is not used: it has no password, answers errors in a form of its own, leaves out silently what it cannot do,
and writes on for a client that has left.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from terazi.errors import EngineError, MissingExtraError
from terazi.runtime.openai.answer import Piece, Writing
from terazi.runtime.openai.server import Server
from terazi.runtime.openai.turns import Embedding, Turns
from terazi.runtime.server import ServerOptions, serve

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from terazi.runtime.mlx.generation import Generation
    from terazi.runtime.openai.request import Ask

__all__ = ["ServerOptions"]


class _Language:
    """A `Writer` over mlx-lm."""

    can = frozenset({"top_k", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty"})

    def __init__(self, generation: Generation) -> None:
        self._generation = generation

    def begin(self, ask: Ask) -> Writing:
        context, responses = self._asked(ask)
        return Writing(len(context.prompt), max(context.prompt_cache_count, 0), _pieces(context, responses))

    def _asked(self, ask: Ask) -> tuple[Any, Any]:
        try:
            return self._generation.ask(ask)
        except RuntimeError as error:
            if not self._generation.is_healthy:
                os._exit(1)  # the log says why its thread died; the gateway starts another process
            raise EngineError(f"mlx-lm: {error}") from None


def _pieces(context: Any, responses: Iterator[Any]) -> Generator[Piece]:
    """Turn mlx-lm's responses, one per token, into pieces, thoughts apart from the rest."""
    machine = context.text_sm
    state = machine.make_state(context.initial_state)
    try:
        for response in responses:
            ending = response.finish_reason
            if ending == "stop":
                yield Piece(ending="stop")
                return
            state, segments = machine.split(state, response.text)
            if ending:
                state, rest, name = machine.flush(state)
                segments.append((name, rest))
            *first, last = segments
            for name, text in first:
                if text:
                    yield Piece(text, token=False, thought=name == "reasoning")
            yield Piece(last[1], ending=ending, thought=last[0] == "reasoning")
    finally:
        context.stop()


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
    return Server(_Language(Generation(options)), options)


if __name__ == "__main__":
    serve(ServerOptions, _start)
