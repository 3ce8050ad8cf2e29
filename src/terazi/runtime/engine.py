"""What every engine offers, whichever runtime it wraps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from terazi.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    import numpy as np

__all__ = ["Engine", "Generation", "Timings", "default_threads"]


@dataclass(frozen=True, slots=True)
class Generation:
    """Text that a model wrote: ``tokens`` of it after ``prompt_tokens``; speeds in tokens per second.

    ``ending`` is ``"stop"`` when the model ended by itself and ``"length"`` when a limit cut it.
    """

    text: str
    tokens: int
    prompt_tokens: int
    prompt_speed: float
    decode_speed: float
    ending: str


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds that each repeat took: a prompt of ``prompt_tokens`` at once, ``decode_tokens`` one by one.

    Each starts from an empty context, as in llama-bench. ``processor_share`` is the processor time used over
    the time that all threads could have had: well below 1 means that other programs were in the way.
    """

    prompt_tokens: int
    prompt_seconds: tuple[float, ...]
    decode_tokens: int
    decode_seconds: tuple[float, ...]
    processor_share: float


class Engine(ABC):
    """A loaded model, closed at the end of its ``with`` block.

    `logits` and `close` are what a runtime must have; the others raise unless the runtime can do them.
    ``context`` is the longest sequence in tokens, ``vocabulary`` the number of logits per position,
    ``load_time`` seconds, ``runtime`` the engine's name and version. ``begin_token`` is what the model wants
    at the start of every text, if anything; ``trained_context`` what it was trained for, 0 where unknown.
    """

    context: int
    trained_context: int = 0
    vocabulary: int
    threads: int
    load_time: float
    runtime: str
    begin_token: int | None = None

    @abstractmethod
    def logits(self, tokens: Sequence[int], *, first: int = 0) -> np.ndarray:
        """Run one sequence from its start; float32[len(tokens) - first, vocabulary], from ``first`` on."""

    def stream_logits(self, windows: np.ndarray, *, first: int = 0) -> Iterator[np.ndarray]:
        """Yield the logits of each row of ``windows`` (int32[n, length]) from ``first`` on, in order.

        A row may come in several pieces, float32[k, vocabulary]; the next may be running meanwhile.
        """
        for window in windows:
            yield self.logits(window.tolist(), first=first)

    def tokenize(self, text: str, *, add_special: bool = True) -> list[int]:
        """Return token ids, with the model's own begin and end tokens when ``add_special``."""
        raise self._cannot("take text")

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids, special tokens left out."""
        raise self._cannot("give text")

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return one unit vector per text: float32[len(texts), dimensions]."""
        raise self._cannot("make embeddings")

    def generate(
        self,
        prompt: str | Sequence[Mapping[str, str]],
        *,
        max_tokens: int = 256,
        temperature: float = 0.8,
        seed: int = 0,
        on_text: Callable[[str], object] | None = None,
    ) -> Generation:
        """Continue a text, or answer chat messages (``role``, ``content``) by the model's own template."""
        raise self._cannot("write text")

    def time(self, *, prompt_tokens: int, decode_tokens: int, repeats: int, seconds: float) -> Timings:
        """Time a prompt and single-token steps up to ``repeats`` times, after a warm-up.

        Three repeats are made in any case; more only while they take less than ``seconds`` in all.
        """
        raise self._cannot("be timed")

    @property
    def peak_memory(self) -> int:
        """Largest resident size so far in bytes, mapped weights included, of the engine's own process."""
        raise self._cannot("tell its memory")

    @property
    def base_memory(self) -> int:
        """Resident size of the engine's own process in bytes before the model was loaded."""
        raise self._cannot("tell its memory")

    def _cannot(self, what: str) -> UnsupportedError:
        return UnsupportedError(f"this model cannot {what} in {self.runtime}")

    @abstractmethod
    def close(self) -> None:
        """Free everything; closing twice is harmless."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def default_threads() -> int:
    """Return how many processors this process may use."""
    from terazi.devices.machine import available_cores

    return available_cores()
