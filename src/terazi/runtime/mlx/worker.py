"""The child process of the MLX engine: ``python -m terazi.runtime.mlx.worker``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from terazi.errors import EngineError
from terazi.runtime.child import Message, memory, serve

if TYPE_CHECKING:
    from collections.abc import Callable

    from terazi.runtime.mlx.session import Session

    Emit = Callable[[Message], None]

__all__: list[str] = []


class Worker:
    """The operations of one engine; ``open`` comes first."""

    session: Session

    def __init__(self) -> None:
        self._before = 0

    def open(self, call: Message, emit: Emit) -> Message:
        """Load a model."""
        try:
            from terazi.runtime.mlx.session import Session
        except ImportError as error:
            raise EngineError(f"mlx-lm cannot start: {error}", hint="pip install 'terazi[mlx]'") from None
        self._before = memory()[0]
        self.session = session = Session(Path(call.values["path"]), context=call.values["context"])
        return Message(
            {
                "load_time": session.load_time,
                "vocabulary": session.vocabulary,
                "trained_context": session.trained_context,
                "begin_token": session.begin_token,
            }
        )

    def tokenize(self, call: Message, emit: Emit) -> Message:
        """Text to token ids."""
        found = self.session.tokenizer.encode(call.values["text"], add_special=call.values["add_special"])
        return Message(arrays=[np.array(found, np.int32)])

    def detokenize(self, call: Message, emit: Emit) -> Message:
        """Token ids to text."""
        return Message({"text": self.session.tokenizer.decode(call.arrays[0].tolist())})

    def logits(self, call: Message, emit: Emit) -> Message:
        """One event per piece of logits, window by window."""
        for window in call.arrays[0]:
            for piece in self.session.stream(window, first=call.values["first"]):
                emit(Message(arrays=[piece]))
        return Message()

    def generate(self, call: Message, emit: Emit) -> Message:
        """One event per piece of text."""
        values = call.values
        generation = self.session.generate(
            values["prompt"],
            max_tokens=values["max_tokens"],
            temperature=values["temperature"],
            seed=values["seed"],
            on_text=lambda text: emit(Message({"text": text})),
        )
        return Message(asdict(generation))

    def time(self, call: Message, emit: Emit) -> Message:
        """Seconds per repeat."""
        values = call.values
        length, prompts, decodes, share = self.session.time(
            prompt_tokens=values["prompt_tokens"],
            decode_tokens=values["decode_tokens"],
            repeats=values["repeats"],
            seconds=values["seconds"],
        )
        return Message(
            {
                "prompt_tokens": length,
                "prompt_seconds": prompts,
                "decode_seconds": decodes,
                "processor_share": share,
            }
        )

    def memory(self, call: Message, emit: Emit) -> Message:
        """Resident bytes at the highest, and before the model was loaded."""
        return Message({"peak": memory()[1], "before": self._before})


if __name__ == "__main__":
    worker = Worker()
    names = ("open", "tokenize", "detokenize", "logits", "generate", "time", "memory")
    serve({name: getattr(worker, name) for name in names})
