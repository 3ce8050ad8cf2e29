"""The child process of the onnxruntime engine: ``python -m terazi.runtime.onnxruntime.worker``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from terazi.runtime.child import Message, memory, serve
from terazi.runtime.onnxruntime.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Emit = Callable[[Message], None]

__all__: list[str] = []


class Worker:
    """The operations of one engine; ``open`` comes first."""

    session: Session

    def __init__(self) -> None:
        self._before = memory()[0]

    def open(self, call: Message, emit: Emit) -> Message:
        """Load a model, or a graph that uses its weights."""
        values = call.values
        self.session = session = Session(
            Path(values["path"]),
            threads=values["threads"],
            context=values["context"],
            graph=call.arrays[0].tobytes() if call.arrays else None,
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

    def rows(self, call: Message, emit: Emit) -> Message:
        """The first rows of every output."""
        most = call.values["at_most"]
        observed = self._observed(call, self.session.outputs)
        pieces = [[values[:most] for values in states] for states in observed]
        return Message(arrays=[np.concatenate(found)[:most] for found in zip(*pieces, strict=True)])

    def grams(self, call: Message, emit: Emit) -> Message:
        """Sum over all rows of x xT, per output asked for."""
        sums: list[Any] = [0] * len(call.values["outputs"])
        for states in self._observed(call, call.values["outputs"]):
            for number, values in enumerate(states):
                sums[number] = sums[number] + values.T @ values
        return Message(arrays=sums)

    def _observed(self, call: Message, outputs: Sequence[str]) -> Iterator[list[np.ndarray]]:
        """Run batch after batch; rows of padding are left out where the inputs have an attention mask."""
        names = call.values["names"]
        for start in range(0, len(call.arrays), len(names)):
            feeds = dict(zip(names, call.arrays[start : start + len(names)], strict=True))
            mask = feeds.get("attention_mask")
            found = []
            for states in self.session.run(feeds, outputs):
                kept = states
                if mask is not None and states.shape[:2] == mask.shape:
                    kept = states[mask.astype(bool)]
                found.append(kept.reshape(-1, kept.shape[-1]).astype(np.float32, copy=False))
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
    names = ("open", "run", "embed", "rows", "grams", "time", "memory")
    serve({name: getattr(worker, name) for name in names})
