"""Watch what a GGUF model's weights are multiplied with, in a llama.cpp child process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from terazi.errors import NotFoundError
from terazi.runtime.engine import default_threads

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

    import numpy as np

__all__ = ["Observer"]


class Observer:
    """The parent's side; use it in a ``with`` block. ``begin_token`` is what every text begins with, if any.

    ``encoder`` opens models without a causal mask (BERT). ``output`` watches ``output.weight`` too. Raises
    `EngineError` with the reason when the model cannot be loaded.
    """

    def __init__(
        self,
        path: Path,
        *,
        context: int,
        threads: int | None = None,
        encoder: bool = False,
        output: bool = False,
        timeout: float = 600,
    ) -> None:
        from terazi.runtime.child import Child

        if not path.is_file():
            raise NotFoundError(f"{path}: no such file")
        self._child = Child("terazi.runtime.llamacpp.observing", timeout=timeout)
        opened = self._child.open(
            path=str(path.resolve()),
            context=context,
            threads=default_threads() if threads is None else threads,
            encoder=encoder,
            output=output,
        )
        self.begin_token: int | None = opened["begin_token"]
        self.trained_context: int = opened["trained_context"]

    def tokenize(self, text: str) -> np.ndarray:
        """Return the token ids of a text with the model's own special tokens, int32[n]."""
        return self._child.call("tokenize", text=text).arrays[0]

    def observe(self, tokens: np.ndarray) -> None:
        """Run int32[n] tokens as one sequence and add up the squared inputs of every weight."""
        self._child.call("observe", tokens)

    def totals(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return name -> (squares float64[matrices, columns], counts int64[matrices]) so far."""
        message = self._child.call("totals")
        arrays = iter(message.arrays)
        return {name: (next(arrays), next(arrays)) for name in message.values["names"]}

    def restore(self, totals: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
        """Continue from earlier totals, bit for bit."""
        arrays = [part for pair in totals.values() for part in pair]
        self._child.call("restore", *arrays, names=list(totals))

    def close(self) -> None:
        """End the child process."""
        self._child.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
