"""How to measure: text, amount, window, threads, machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from terazi.calibrate.corpus import Corpus

__all__ = ["Setting"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """``tokens`` of a text in windows of ``context``; ``threads`` of the machine named ``device``."""

    corpus: Corpus
    tokens: int
    context: int
    threads: int
    device: str

    @property
    def question(self) -> dict[str, Any]:
        """What decides quality figures, for cache keys. The number of threads does not."""
        return {
            "corpus": self.corpus.digest,
            "tokens": self.tokens,
            "context": self.context,
        }
