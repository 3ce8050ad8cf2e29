"""ONNX models behind OpenAI's protocol: ``python -m terazi.runtime.onnxruntime.server``.

onnxruntime-genai joins running answers only on graphs with PagedAttention, which has no kernel for
processors; its static batches make a newcomer wait until all before it have ended. So answers take turns
here, token by token, and none waits for the end of another.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from terazi.errors import UsageError
from terazi.runtime.openai.answer import Piece, Writing
from terazi.runtime.openai.server import Server
from terazi.runtime.openai.turns import Embedding, Turns
from terazi.runtime.server import ServerOptions, serve

if TYPE_CHECKING:
    from collections.abc import Generator

    from terazi.runtime.openai.request import Ask

__all__ = ["ServerOptions"]


class _Language:
    """A `Writer` over onnxruntime-genai."""

    can = frozenset({"top_k", "repeat_penalty", "response_format"})

    def __init__(self, directory: Path, options: ServerOptions) -> None:
        from terazi.runtime.onnxruntime.decoder import Decoder

        self._decoder = Decoder(
            directory, threads=options.threads, context=options.context, template=options.template
        )
        self._turns = Turns()

    def begin(self, ask: Ask) -> Writing:
        decoder, sampling = self._decoder, ask.sampling
        tokens = decoder.tokenizer.prompt(ask.prompt, ask.template_values)
        room = decoder.context - len(tokens)
        if not tokens or room < 1:
            raise UsageError(f"the prompt has {len(tokens)} tokens, the context size is {decoder.context}")
        generator = self._turns.take(
            decoder.generator,
            len(tokens) + min(ask.max_tokens or room, room),
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            repeat_penalty=sampling.repeat_penalty,
            seed=secrets.randbelow(1 << 31) if sampling.seed is None else sampling.seed,
            schema=ask.schema,
        )
        return Writing(len(tokens), 0, self._pieces(generator, tokens, min(ask.max_tokens or room, room)))

    def _pieces(self, generator: Any, tokens: list[int], limit: int) -> Generator[Piece]:
        from terazi.runtime.onnxruntime.decoder import parts

        for part in parts(tokens):
            self._turns.take(generator.append_tokens, part)
        text = self._decoder.tokenizer.text()
        for left in range(limit - 1, -1, -1):
            token = self._turns.take(_next, generator)
            if token in self._decoder.ends:
                yield Piece(text.finish(), ending="stop")
                return
            piece = text.add(token)
            yield Piece(piece) if left else Piece(piece + text.finish(), ending="length")


def _next(generator: Any) -> int:
    generator.generate_next_token()
    return int(generator.get_next_tokens()[0])


def _start(options: ServerOptions) -> Server:
    path = Path(options.model)
    if (path / "genai_config.json").is_file():
        return Server(_Language(path, options), options)
    from terazi.runtime.onnxruntime.session import Session

    file = path / "model.onnx" if path.is_dir() else path
    session = Session(file, threads=options.threads, context=options.context)
    engine = Embedding(Turns(), session.tokenizer, session.embed, longest=options.context)
    return Server(engine, options)


if __name__ == "__main__":
    serve(ServerOptions, _start)
