"""The child process of the onnxruntime engine: ``python -m terazi.runtime.onnxruntime.worker``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from terazi.runtime.child import Message, memory, serve
from terazi.runtime.onnxruntime.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Emit = Callable[[Message], None]

__all__: list[str] = []


class Worker:
    """The operations of one engine; ``open`` comes first."""

    session: Session

    def __init__(self) -> None:
        self._before = memory()[0]

    def open(self, call: Message, emit: Emit) -> Message:
        """Load a model."""
        values = call.values
        self.session = session = Session(
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

    def feeds(self, call: Message, emit: Emit) -> Message:
        """Texts to the model's inputs, padded to one length."""
        feeds = self.session.feeds(call.values["texts"])
        return Message({"names": list(feeds)}, list(feeds.values()))

    def activations(self, call: Message, emit: Emit) -> Message:
        """Every output's rows over all batches, as float32[rows, n]."""
        pieces: dict[str, list[np.ndarray]] = {name: [] for name in self.session.outputs}
        for states in self._observed(call):
            for name, rows in states.items():
                pieces[name].append(rows)
        return Message(arrays=[np.concatenate(pieces[name]) for name in self.session.outputs])

    def gram(self, call: Message, emit: Emit) -> Message:
        """Sum over all rows of x xT, per output of the model."""
        sums: dict[str, Any] = dict.fromkeys(self.session.outputs, 0)
        for states in self._observed(call):
            for name, rows in states.items():
                sums[name] = sums[name] + rows.T @ rows
        return Message(arrays=[sums[name] for name in self.session.outputs])

    def _observed(self, call: Message) -> Iterator[dict[str, np.ndarray]]:
        """Run batch after batch; rows of padding are left out where the inputs have an attention mask."""
        names = call.values["names"]
        for start in range(0, len(call.arrays), len(names)):
            feeds = dict(zip(names, call.arrays[start : start + len(names)], strict=True))
            mask = feeds.get("attention_mask")
            found = {}
            for name, states in zip(self.session.outputs, self.session.run(feeds), strict=True):
                if mask is not None and states.shape[:2] == mask.shape:
                    states = states[mask.astype(bool)]
                found[name] = states.reshape(-1, states.shape[-1]).astype(np.float32)
            yield found

    def time(self, call: Message, emit: Emit) -> Message:
        """Seconds per repeat."""
        values = call.values
        seconds = self.session.time(batch=values["batch"], tokens=values["tokens"], repeats=values["repeats"])
        return Message({"seconds": seconds})

    def memory(self, call: Message, emit: Emit) -> Message:
        """Resident bytes at the highest and before the model was loaded; seconds of processor time."""
        return Message({"peak": memory()[1], "before": self._before, "processor_time": time.process_time()})


if __name__ == "__main__":
    worker = Worker()
    names = ("open", "run", "embed", "feeds", "activations", "gram", "time", "memory")
    serve({name: getattr(worker, name) for name in names})
