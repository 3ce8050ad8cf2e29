"""Answers in OpenAI's words, made from the pieces that an engine writes."""

from __future__ import annotations

import json
import time
import uuid
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator

    from terazi.runtime.openai.request import Ask

__all__ = ["Answer", "Piece", "Writing", "dumps"]


@dataclass(frozen=True, slots=True)
class Piece:
    """What one token adds: text, maybe none. ``ending`` (``stop`` or ``length``) marks the last piece.

    The token that ends an answer is counted when ``token`` says so. ``thought`` is text of a model that
    thinks aloud before it answers.
    """

    text: str = ""
    ending: str | None = None
    token: bool = True
    thought: bool = False


@dataclass(frozen=True, slots=True)
class Writing:
    """An answer under way: tokens of the prompt, how many of them were remembered, and the pieces to come."""

    prompt_tokens: int
    cached_tokens: int
    pieces: Generator[Piece]


def dumps(value: Any) -> bytes:
    """Return JSON without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


class _Stops:
    """Holds back what may be the beginning of a stop text until it is known."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops, self._held = stops, ""
        self.reached = False

    def take(self, text: str) -> str:
        """Take what was written; returns what can be told of it."""
        self._held += text
        found = [start for stop in self._stops if (start := self._held.find(stop)) >= 0]
        if found:
            self.reached = True
            return self._held[: min(found)]
        kept = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        told, self._held = self._held[: len(self._held) - kept], self._held[len(self._held) - kept :]
        return told

    def rest(self) -> str:
        """Return what is held at the end."""
        return self._held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that begins ``stop``."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-n:])), 0)


class Answer:
    """One answer: `events` for a stream, `whole` for one object."""

    def __init__(self, writing: Writing, ask: Ask, model: str) -> None:
        self.writing, self.ask = writing, ask
        self.chat = not isinstance(ask.prompt, str)
        kind = "chat.completion" if self.chat else "text_completion"
        self.head = {
            "id": f"{'chatcmpl' if self.chat else 'cmpl'}-{uuid.uuid4().hex}",
            "object": f"{kind}.chunk" if self.chat and ask.stream else kind,
            "created": int(time.time()),
            "model": model,
        }
        self._tokens = 0
        self._ending = "length"
        self._started = time.perf_counter()
        self._first = self._last = 0.0

    def events(self) -> Generator[bytes]:
        """Yield server-sent events; leaving ends the engine's work."""
        role: dict[str, Any] = {"role": "assistant"} if self.chat else {}
        for text, thought in self.texts():
            if text:
                yield self._event(choices=[self._choice(text, thought, role, None)])
                role = {}
        usage = {"usage": self._usage()} if self.ask.include_usage else {}
        last = {"choices": [self._choice("", False, role, self._ending)]}
        yield self._event(**last, timings=self._timings())
        if usage:
            yield self._event(choices=[], **usage, timings=self._timings())
        yield b"data: [DONE]\n\n"

    def texts(self) -> Generator[tuple[str, bool]]:
        """Yield (text, whether it is a thought) for each token, as far as the stop texts allow."""
        stops = _Stops(self.ask.stop)
        with closing(self.writing.pieces) as pieces:
            for piece in pieces:
                self._count(piece)
                told = piece.text if piece.thought else stops.take(piece.text)
                yield told, piece.thought
                if stops.reached:
                    self._ending = "stop"
                    return
                if piece.ending:
                    self._ending = piece.ending
        if rest := stops.rest():
            yield rest, False

    def whole(self, pieces: list[tuple[str, bool]]) -> bytes:
        """Return the answer as one object, from all that `texts` gave."""
        text = "".join(text for text, thought in pieces if not thought)
        thoughts = "".join(text for text, thought in pieces if thought)
        choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": self._ending}
        if self.chat:
            choice["message"] = {"role": "assistant", "content": text}
            if thoughts:
                choice["message"]["reasoning_content"] = thoughts
        else:
            choice["text"] = text
        return dumps(self.head | {"choices": [choice], "usage": self._usage(), "timings": self._timings()})

    def _count(self, piece: Piece) -> None:
        self._last = time.perf_counter()
        self._first = self._first or self._last
        self._tokens += piece.token

    def _event(self, **fields: Any) -> bytes:
        return b"data: " + dumps(self.head | fields) + b"\n\n"

    def _choice(self, text: str, thought: bool, role: dict[str, Any], ending: str | None) -> dict[str, Any]:
        said: dict[str, Any] = {"text": text}
        if self.chat:
            content = {"reasoning_content" if thought else "content": text} if text or role else {}
            said = {"delta": role | content}
        return {"index": 0, "finish_reason": ending, **said}

    def _usage(self) -> dict[str, Any]:
        prompt = self.writing.prompt_tokens
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self._tokens,
            "total_tokens": prompt + self._tokens,
            "prompt_tokens_details": {"cached_tokens": self.writing.cached_tokens},
        }

    def _timings(self) -> dict[str, Any]:
        """Numbers in llama.cpp's form."""
        decoding = (self._last - self._first) * 1000
        return {
            "cache_n": self.writing.cached_tokens,
            "prompt_n": self.writing.prompt_tokens - self.writing.cached_tokens,
            "prompt_ms": (self._first - self._started) * 1000 if self._first else 0.0,
            "predicted_n": self._tokens,
            "predicted_ms": decoding,
            "predicted_per_token_ms": decoding / max(self._tokens - 1, 1),
        }
