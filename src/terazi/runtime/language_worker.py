"""What the child processes of language models share: logits, texts, times and memory of one session."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Protocol

from terazi.runtime.child import Message, memory, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np

    from terazi.runtime.engine import Generation, Timings

    Emit = Callable[[Message], None]

__all__ = ["LanguageSession", "LanguageWorker"]


class LanguageSession(Protocol):
    """A loaded language model."""

    def stream(self, tokens: np.ndarray, *, first: int = 0) -> Iterator[np.ndarray]:
        """Run one sequence from its start and yield its logits from ``first`` on, float32[k, vocabulary]."""
        ...

    def generate(
        self,
        prompt: str | Sequence[Mapping[str, str]],
        *,
        max_tokens: int,
        temperature: float,
        seed: int,
        on_text: Callable[[str], object],
    ) -> Generation:
        """Continue a prompt; ``on_text`` receives the text in pieces as it is written."""
        ...

    def time(self, *, prompt_tokens: int, decode_tokens: int, repeats: int, seconds: float) -> Timings:
        """Time prompts of random tokens and runs of single steps."""
        ...


class LanguageWorker:
    """The operations of one engine on its ``session``; a runtime adds ``open``, which comes first."""

    operations: tuple[str, ...] = ("open", "tokenize", "detokenize", "logits", "generate", "time", "memory")

    def __init__(self) -> None:
        self.before = 0  # resident bytes before the model was loaded

    @property
    def session(self) -> LanguageSession:
        """The open model; raises `UnsupportedError` for one that writes no text."""
        raise NotImplementedError

    def logits(self, call: Message, emit: Emit) -> Message:
        """One event per piece of logits, window by window."""
        for window in call.arrays[0]:
            for piece in self.session.stream(window, first=call.values["first"]):
                emit(Message(arrays=[piece]))
        return Message()

    def generate(self, call: Message, emit: Emit) -> Message:
        """One event per piece of text."""
        generation = self.session.generate(**call.values, on_text=lambda text: emit(Message({"text": text})))
        return Message(asdict(generation))

    def time(self, call: Message, emit: Emit) -> Message:
        """The fields of `Timings`."""
        return Message(asdict(self.session.time(**call.values)))

    def memory(self, call: Message, emit: Emit) -> Message:
        """Resident bytes at the highest, and before the model was loaded."""
        return Message({"peak": memory()[1], "before": self.before})

    def serve(self) -> None:
        """Answer until the parent closes the pipe."""
        serve({name: getattr(self, name) for name in self.operations})
