"""ONNX models behind OpenAI's protocol: ``python -m terazi.runtime.onnxruntime.server``.

onnxruntime-genai joins running answers only on graphs with PagedAttention, which has no kernel for
processors; its static batches make a newcomer wait until all before it have ended. So answers take turns
here, token by token, and none waits for the end of another.
"""

from __future__ import annotations

import secrets
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from terazi.errors import EngineError, MissingExtraError, UsageError
from terazi.runtime.openai.answer import Piece, Writing
from terazi.runtime.openai.server import Server
from terazi.runtime.openai.turns import Embedding, Turns
from terazi.runtime.server import ServerOptions, serve

if TYPE_CHECKING:
    from collections.abc import Generator

    from terazi.runtime.openai.request import Ask

__all__ = ["ServerOptions"]


@dataclass(slots=True, eq=False)
class _Conversation:
    """A generator, how it samples, and the tokens that it has read and written.

    One with a seed or a JSON schema, ``once``, cannot be continued.
    """

    generator: Any
    sampling: dict[str, float]
    once: bool
    tokens: list[int] = field(default_factory=list)


class _Language:
    """A `Writer` over onnxruntime-genai. As many ended conversations as may run are kept, to be continued."""

    can = frozenset({"top_k", "repeat_penalty", "response_format"})

    def __init__(self, directory: Path, options: ServerOptions) -> None:
        from terazi.runtime.onnxruntime.decoder import Decoder

        self._decoder = Decoder(
            directory, threads=options.threads, context=options.context, template=options.template
        )
        self._turns = Turns()
        self._ended: deque[_Conversation] = deque(maxlen=options.parallel)

    def begin(self, ask: Ask) -> Writing:
        context = self._decoder.context
        tokens = self._decoder.tokenizer.prompt(ask.prompt, ask.template_values)
        room = context - len(tokens)
        if not tokens or room < 1:
            raise UsageError(f"the prompt has {len(tokens)} tokens, the context size is {context}")
        conversation = self._turns.take(self._conversation, ask, tokens)
        known = len(conversation.tokens)
        limit = min(ask.max_tokens or room, room)
        return Writing(len(tokens), known, self._pieces(conversation, tokens[known:], limit))

    def _conversation(self, ask: Ask, tokens: list[int]) -> _Conversation:
        """Continue the ended conversation that begins most like this one, or begin another."""
        asked = ask.sampling
        names = ("temperature", "top_k", "top_p", "repeat_penalty")
        sampling = {name: getattr(asked, name) for name in names}
        once = asked.seed is not None or ask.schema is not None
        fitting = [ended for ended in self._ended if ended.sampling == sampling and not once]
        found = max(fitting, key=lambda ended: _common(ended.tokens, tokens), default=None)
        if found and (known := _common(found.tokens, tokens)):
            self._ended.remove(found)
            found.generator.rewind_to(known)
            del found.tokens[known:]
            return found
        seed = secrets.randbelow(1 << 31) if asked.seed is None else asked.seed
        generator = self._decoder.generator(self._decoder.context, **sampling, seed=seed, schema=ask.schema)
        return _Conversation(generator, sampling, once)

    def _pieces(self, conversation: _Conversation, tokens: list[int], limit: int) -> Generator[Piece]:
        from terazi.runtime.onnxruntime.decoder import parts

        generator, text = conversation.generator, self._decoder.tokenizer.text()
        try:
            for part in parts(tokens):
                self._turns.take(generator.append_tokens, part)
                conversation.tokens += part.tolist()
            for left in range(limit - 1, -1, -1):
                token = self._turns.take(_next, generator)
                conversation.tokens.append(token)
                if token in self._decoder.ends:
                    yield Piece(text.finish(), ending="stop")
                    return
                piece = text.add(token)
                yield Piece(piece) if left else Piece(piece + text.finish(), ending="length")
        except EngineError:
            conversation.once = True  # nobody knows what state it is in
            raise
        finally:
            if not conversation.once:
                self._turns.take(self._ended.append, conversation)


def _common(known: list[int], tokens: list[int]) -> int:
    """How many tokens both begin with, at most all but the last of each.

    Of the one, the last may have been written and never read, which the generator forgets when nothing is
    rewound; of the other, something must be left to read.
    """
    shortest = min(len(known), len(tokens)) - 1
    return next((n for n in range(shortest) if known[n] != tokens[n]), max(shortest, 0))


def _next(generator: Any) -> int:
    generator.generate_next_token()
    return int(generator.get_next_tokens()[0])


def _start(options: ServerOptions) -> Server:
    path = Path(options.model)
    writes = (path / "genai_config.json").is_file()
    try:
        return Server((_Language if writes else _encoder)(path, options), options)
    except ImportError:
        raise MissingExtraError("running ONNX models", "genai" if writes else "onnx") from None


def _encoder(path: Path, options: ServerOptions) -> Embedding:
    from terazi.formats.onnx import graph_file
    from terazi.runtime.onnxruntime.session import Session

    session = Session(graph_file(path), threads=options.threads, context=options.context)
    return Embedding(Turns(), session.tokenizer, session.embed, longest=options.context)


if __name__ == "__main__":
    serve(ServerOptions, _start)
