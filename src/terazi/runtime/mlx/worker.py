"""The child process of the MLX engine: ``python -m terazi.runtime.mlx.worker``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from terazi.errors import EngineError, UnsupportedError
from terazi.runtime.child import Message, memory, serve

if TYPE_CHECKING:
    from collections.abc import Callable

    from terazi.runtime.mlx.encoder import Encoder
    from terazi.runtime.mlx.session import Session

    Emit = Callable[[Message], None]

__all__: list[str] = []


class Worker:
    """The operations of one engine; ``open`` comes first."""

    model: Session | Encoder

    def __init__(self) -> None:
        self._before = 0

    @property
    def encoder(self) -> Encoder:
        """The open embedding model."""
        from terazi.runtime.mlx.encoder import Encoder

        if not isinstance(self.model, Encoder):
            raise UnsupportedError("this language model makes no embeddings in MLX")
        return self.model

    @property
    def session(self) -> Session:
        """The open language model."""
        from terazi.runtime.mlx.session import Session

        if not isinstance(self.model, Session):
            raise UnsupportedError("an embedding model turns text into vectors and writes none")
        return self.model

    def open(self, call: Message, emit: Emit) -> Message:
        """Load a model."""
        values = call.values
        # transformers, of which mlx-lm uses nothing here, would import it: a second and 190 MB.
        sys.modules["torch"] = None  # pyright: ignore[reportArgumentType]
        try:
            if values["embedding"]:
                from terazi.runtime.mlx.encoder import Encoder as Model
            else:
                from terazi.runtime.mlx.session import Session as Model
        except ImportError as error:
            raise EngineError(f"MLX cannot start: {error}", hint="pip install 'terazi[mlx]'") from None
        self._before = memory()[0]
        self.model = model = Model(Path(values["path"]), context=values["context"])
        return Message(
            {
                "load_time": model.load_time,
                "vocabulary": model.vocabulary,
                "trained_context": model.trained_context,
                "begin_token": model.begin_token,
            }
        )

    def embed(self, call: Message, emit: Emit) -> Message:
        """Texts to unit vectors."""
        return Message(arrays=[self.encoder.embed(call.values["texts"])])

    def tokenize(self, call: Message, emit: Emit) -> Message:
        """Text to token ids."""
        found = self.model.tokenizer.encode(call.values["text"], add_special=call.values["add_special"])
        return Message(arrays=[np.array(found, np.int32)])

    def detokenize(self, call: Message, emit: Emit) -> Message:
        """Token ids to text."""
        return Message({"text": self.model.tokenizer.decode(call.arrays[0].tolist())})

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
        length, prompts, decodes, share = self.model.time(
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
    names = ("open", "tokenize", "detokenize", "logits", "embed", "generate", "time", "memory")
    serve({name: getattr(worker, name) for name in names})
