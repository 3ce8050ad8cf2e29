"""The child process of the onnxruntime engine: ``python -m terazi.runtime.onnxruntime.worker``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from terazi.errors import EngineError
from terazi.runtime.child import Message, memory, serve
from terazi.runtime.onnxruntime.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    Emit = Callable[[Message], None]

__all__: list[str] = []


class Worker:
    """The operations of one engine; ``open`` comes first."""

    def __init__(self) -> None:
        self._session: Session | None = None

    @property
    def session(self) -> Session:
        """The open session."""
        if self._session is None:
            raise EngineError("no model is open")
        return self._session

    def open(self, call: Message, emit: Emit) -> Message:
        """Load a model."""
        values = call.values
        self._session = session = Session(
            Path(values["path"]), threads=values["threads"], context=values["context"]
        )
        return Message(
            {"load_time": session.load_time, "inputs": list(session.inputs), "outputs": session.outputs}
        )

    def run(self, call: Message, emit: Emit) -> Message:
        """Named inputs to all outputs."""
        feeds = dict(zip(call.values["names"], call.arrays, strict=True))
        return Message(arrays=self.session.run(feeds))

    def embed(self, call: Message, emit: Emit) -> Message:
        """Texts to unit vectors."""
        return Message(arrays=[self.session.embed(call.values["texts"])])

    def activations(self, call: Message, emit: Emit) -> Message:
        """The outputs at real tokens of ``texts``, which are run as one batch."""
        feeds = self.session.feeds(call.values["texts"])
        kept = feeds["attention_mask"].astype(bool)
        return Message(arrays=[states[kept].astype(np.float32) for states in self.session.run(feeds)])

    def gram(self, call: Message, emit: Emit) -> Message:
        """Sum over all tokens of ``texts`` of x xT, per output of the model."""
        session, sums = self.session, {}
        for start in range(0, len(call.values["texts"]), 16):
            feeds = session.feeds(call.values["texts"][start : start + 16])
            kept = feeds["attention_mask"].astype(bool)
            for name, states in zip(session.outputs, session.run(feeds), strict=True):
                rows = states[kept].astype(np.float32)
                sums[name] = sums.get(name, 0) + rows.T @ rows
        return Message(arrays=[sums[name] for name in session.outputs])

    def time(self, call: Message, emit: Emit) -> Message:
        """Seconds per repeat."""
        values = call.values
        seconds = self.session.time(batch=values["batch"], tokens=values["tokens"], repeats=values["repeats"])
        return Message({"seconds": seconds})

    def memory(self, call: Message, emit: Emit) -> Message:
        """Resident bytes at the highest."""
        return Message({"peak": memory()[1]})


if __name__ == "__main__":
    worker = Worker()
    names = ("open", "run", "embed", "activations", "gram", "time", "memory")
    serve({name: getattr(worker, name) for name in names})
