"""The child process of the MLX engine: ``python -m terazi.runtime.mlx.worker``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from terazi.errors import EngineError, UnsupportedError
from terazi.runtime.child import Message, memory
from terazi.runtime.language_worker import LanguageWorker

if TYPE_CHECKING:
    from collections.abc import Callable

    from terazi.runtime.mlx.encoder import Encoder
    from terazi.runtime.mlx.session import Session

    Emit = Callable[[Message], None]

__all__: list[str] = []


class Worker(LanguageWorker):
    """The operations of one engine; ``open`` comes first."""

    operations = (*LanguageWorker.operations, "embed")
    model: Session | Encoder

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
        self.before = memory()[0]
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

    def time(self, call: Message, emit: Emit) -> Message:
        """The fields of `Timings`, of either kind of model."""
        return Message(asdict(self.model.time(**call.values)))


if __name__ == "__main__":
    Worker().serve()
