"""The child process that observes activations: ``python -m terazi.runtime.llamacpp.observing``.

What is summed is what llama-imatrix sums (``tools/imatrix/imatrix.cpp``): for every multiplication of a
weight with at least 16 rows of float32 activations, the squares of each input column and the rows seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from terazi.errors import EngineError
from terazi.runtime.child import Message, serve
from terazi.runtime.llamacpp import library
from terazi.runtime.llamacpp.graph import F32, Node, array, node, operations, weight_name
from terazi.runtime.llamacpp.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    Emit = Callable[[Message], None]

__all__ = ["InputSums", "Worker"]

_FEWEST_ROWS = 16


class InputSums:
    """Running sums of squared inputs: ``squares`` float64[matrices, columns], ``counts`` int64[matrices].

    ``matrices`` is 1 for a plain weight and the number of experts for a stack of them.
    """

    def __init__(self, *, output: bool) -> None:
        self.squares: dict[str, np.ndarray] = {}
        self.counts: dict[str, np.ndarray] = {}
        self.failure: Exception | None = None
        self._names = ("blk.", "output.weight") if output else ("blk.",)
        self._operations = operations(library.load())
        self._latest: tuple[int, np.ndarray] | None = None
        self.callback = library.EvaluationCallback(self._observe)

    def _observe(self, pointer: int, ask: bool, _: object) -> bool:
        """Say which nodes are wanted, and add up those that were computed; False stops the graph."""
        try:
            tensor = node(pointer)
            if ask:
                return self._wanted(tensor)
            if tensor.op == self._operations.multiply_experts:
                self._add_experts(tensor)
            else:
                self._add(tensor)
        except Exception as error:  # llama.cpp cannot pass it on
            self.failure = error
            return False
        return True

    def _wanted(self, tensor: Node) -> bool:
        if tensor.op == self._operations.multiply_experts:
            return True
        if tensor.op != self._operations.multiply:
            return False
        inputs = node(tensor.src[1])
        if inputs.ne[1] < _FEWEST_ROWS or inputs.type != F32:
            return False
        return weight_name(node(tensor.src[0])).startswith(self._names)

    def _add(self, tensor: Node) -> None:
        weight, inputs = node(tensor.src[0]), node(tensor.src[1])
        matrices = weight.ne[2] * weight.ne[3]
        if matrices == 1:
            sums = self._sums_of(tensor.src[1], inputs)
        else:
            # Activations repeat over stacked matrices; llama-imatrix keeps one count for all of them.
            sums = np.zeros((weight.ne[3], weight.ne[2], inputs.ne[0]))
            for high, stack in enumerate(array(inputs)):
                for low, rows in enumerate(stack):
                    sums[high % weight.ne[3], low % weight.ne[2]] += _squares(rows)
            sums = sums.reshape(-1)
        name = weight_name(weight)
        self._accumulate(name, sums[None])
        self.counts[name] += inputs.ne[1] * inputs.ne[2] * inputs.ne[3] // matrices

    def _sums_of(self, pointer: int, inputs: Node) -> np.ndarray:
        """Sum the squares per column; queries, keys and values share one input, as do gate and up."""
        if self._latest is None or self._latest[0] != pointer:
            sums = np.zeros(inputs.ne[0])
            for stack in array(inputs):
                for rows in stack:
                    sums += _squares(rows)
            self._latest = (pointer, sums)
        return self._latest[1]

    def _add_experts(self, tensor: Node) -> None:
        """Add the rows that were routed to each expert; ids are [tokens, experts used]."""
        weight, inputs = node(tensor.src[0]), array(node(tensor.src[1]))[0]
        ids = array(node(tensor.src[2]))[0, 0]
        experts = weight.ne[2]
        tokens, used, columns = len(ids), ids.shape[1], inputs.shape[2]
        if ids.size and not (ids.min() >= 0 and ids.max() < experts):
            raise EngineError(f"{weight_name(weight)}: routed to an expert that does not exist")
        rows = inputs[:, np.arange(used) % inputs.shape[1]].reshape(tokens * used, columns)
        flat = ids.reshape(-1)
        sums = np.zeros((experts, columns))
        for expert in np.unique(flat):
            sums[expert] = _squares(rows[flat == expert])
        name = weight_name(weight)
        self._accumulate(name, sums)
        self.counts[name] += np.bincount(flat, minlength=experts)
        self._latest = None

    def _accumulate(self, name: str, sums: np.ndarray) -> None:
        if not np.isfinite(sums).all():
            raise EngineError(f"the inputs of {name} are not finite: the model or its conversion is broken")
        if name not in self.squares:
            self.squares[name] = np.zeros_like(sums)
            self.counts[name] = np.zeros(len(sums), np.int64)
        if self.squares[name].shape != sums.shape:
            raise EngineError(f"the inputs of {name} change their shape")
        self.squares[name] += sums

    def begin(self) -> None:
        """Forget shared inputs: a new graph may have others at the same address."""
        self._latest = None
        self.failure = None


def _squares(rows: np.ndarray) -> np.ndarray:
    """Sum the squares of each column of float32[rows, columns] in float64."""
    return np.square(rows).sum(axis=0, dtype=np.float64)


class Worker:
    """The operations of one observer; ``open`` comes first."""

    def __init__(self) -> None:
        self._session: Session | None = None
        self._sums: InputSums | None = None

    @property
    def session(self) -> Session:
        """The open session."""
        if self._session is None:
            raise EngineError("no model is open")
        return self._session

    @property
    def sums(self) -> InputSums:
        """What was summed so far."""
        if self._sums is None:
            raise EngineError("no model is open")
        return self._sums

    def open(self, call: Message, emit: Emit) -> Message:
        """Load a model with a callback on its graph."""
        values = call.values
        self._sums = InputSums(output=values["output"])
        self._session = session = Session(
            values["path"],
            context=values["context"],
            threads=values["threads"],
            embedding=values["encoder"],
            observe=self._sums.callback,
        )
        adds_bos = bool(session.library.llama_vocab_get_add_bos(session.vocabulary))
        bos = int(session.library.llama_vocab_bos(session.vocabulary))
        return Message({"begin_token": bos if adds_bos else None, "trained_context": session.trained_context})

    def tokenize(self, call: Message, emit: Emit) -> Message:
        """Text to token ids."""
        return Message(arrays=[self.session.tokenize(call.values["text"], add_special=True)])

    def observe(self, call: Message, emit: Emit) -> Message:
        """Run one sequence from its start and add up what its weights were multiplied with."""
        tokens = call.arrays[0]
        self.sums.begin()
        self.session.forget()
        zeros = np.zeros(len(tokens), np.int32)
        failed = None
        try:
            # All outputs are asked for: otherwise the last block would see the last token only.
            self.session.decode(tokens, np.arange(len(tokens)), zeros, np.ones(len(tokens)))
        except EngineError as error:
            failed = error
        if self.sums.failure or failed:
            raise self.sums.failure or failed or EngineError("stopped")
        return Message()

    def totals(self, call: Message, emit: Emit) -> Message:
        """Return all sums by name, squares and counts in turn."""
        names = sorted(self.sums.squares)
        arrays = [part for name in names for part in (self.sums.squares[name], self.sums.counts[name])]
        return Message({"names": names}, arrays)

    def restore(self, call: Message, emit: Emit) -> Message:
        """Continue from earlier totals."""
        arrays = iter(call.arrays)
        for name in call.values["names"]:
            self.sums.squares[name], self.sums.counts[name] = next(arrays), next(arrays)
        return Message()


if __name__ == "__main__":
    worker = Worker()
    names = ("open", "tokenize", "observe", "totals", "restore")
    serve({name: getattr(worker, name) for name in names})
