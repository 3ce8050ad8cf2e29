"""One engine and many threads that ask it: calls run one after the other, in the order of asking."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from terazi.errors import EngineError, TeraziError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    from terazi.runtime.tokenizer import Tokenizer

__all__ = ["Embedding", "Turns"]

P = ParamSpec("P")
R = TypeVar("R")


class Turns:
    """Runs all calls in one thread of its own."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)

    def take(self, call: Callable[P, R], *values: P.args, **named: P.kwargs) -> R:
        """Wait for a turn and return what the call returns. A native failure becomes an `EngineError`."""
        try:
            return self._thread.submit(call, *values, **named).result()
        except TeraziError:
            raise
        except RuntimeError as error:
            raise EngineError(f"the engine failed: {str(error).splitlines()[0]}"[:500]) from None


class Embedding:
    """An embedding model behind the protocol: texts longer than ``longest`` tokens are refused, not cut.

    ``run`` makes unit vectors of texts, float32[len(texts), dimensions].
    """

    def __init__(
        self,
        turns: Turns,
        tokenizer: Tokenizer,
        run: Callable[[Sequence[str]], np.ndarray],
        *,
        longest: int,
    ) -> None:
        self._turns, self._tokenizer, self._run, self._longest = turns, tokenizer, run, longest

    def embed(self, texts: Sequence[str]) -> tuple[np.ndarray, int]:
        """Return unit vectors, float32[len(texts), dimensions], and the number of tokens read."""
        count = self._turns.take(self._tokenizer.count, texts, longest=self._longest)
        return self._turns.take(self._run, texts), count
