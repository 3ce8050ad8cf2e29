"""The importance matrix: for every weight, the mean squared activation that each of its columns meets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from terazi.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Calibration", "Sums", "merge"]


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """What was added up for one weight.

    ``squares`` float32[matrices, columns] are sums of squared inputs, ``counts`` int64[matrices] the rows
    (tokens) seen. ``matrices`` is 1, or the number of experts, each with its own count.
    """

    squares: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibration(Mapping[str, np.ndarray]):
    """Mean squared inputs by name of weight: float32[columns], or float32[experts, columns].

    An expert that no token was routed to has ones: all its columns count the same, as in llama-quantize.
    ``datasets`` name the texts, ``text_digests`` are their SHA-256; ``chunks`` of ``chunk_size`` tokens were
    run. ``path`` is the file it came from.
    """

    sums: Mapping[str, Sums]
    datasets: tuple[str, ...] = ()
    text_digests: tuple[str, ...] = ()
    chunks: int = 0
    chunk_size: int = 512
    path: Path | None = None

    def __getitem__(self, name: str) -> np.ndarray:
        entry = self.sums[name]
        counts = entry.counts.astype(np.float32)[:, None]
        seen = counts > 0
        means = np.where(seen, entry.squares.astype(np.float32) / np.where(seen, counts, 1), np.float32(1))
        return means[0] if len(means) == 1 else means

    def __iter__(self) -> Iterator[str]:
        return iter(self.sums)

    def __len__(self) -> int:
        return len(self.sums)

    @property
    def digest(self) -> str:
        """SHA-256 (64 hexadecimal digits) of names, sums and counts."""
        digest = hashlib.sha256()
        for name in sorted(self.sums):
            entry = self.sums[name]
            digest.update(f"{name}\0{entry.squares.shape}\0".encode())
            digest.update(np.ascontiguousarray(entry.squares, "<f4").data)
            digest.update(np.ascontiguousarray(entry.counts, "<i8").data)
        return digest.hexdigest()

    @property
    def unrouted(self) -> dict[str, int]:
        """Weights with experts that no token was routed to, and how many."""
        missing = {name: int((entry.counts == 0).sum()) for name, entry in self.sums.items()}
        return {name: count for name, count in missing.items() if count}


def merge(calibrations: Sequence[Calibration]) -> Calibration:
    """Add several calibrations of one model up, each weighted by the tokens it saw.

    Raises `UsageError` when they are of different models (a weight differs in size).
    """
    total: dict[str, Sums] = {}
    for calibration in calibrations:
        for name, entry in calibration.sums.items():
            total[name] = _add(name, total[name], entry) if name in total else entry
    chunk_size = max(calibration.chunk_size for calibration in calibrations)
    tokens = sum(calibration.chunks * calibration.chunk_size for calibration in calibrations)
    return Calibration(
        sums=dict(sorted(total.items())),
        datasets=tuple(name for calibration in calibrations for name in calibration.datasets),
        text_digests=tuple(digest for calibration in calibrations for digest in calibration.text_digests),
        chunks=tokens // max(chunk_size, 1),
        chunk_size=chunk_size,
    )


def _add(name: str, first: Sums, second: Sums) -> Sums:
    matrices = max(len(first.counts), len(second.counts))
    if first.squares.size != second.squares.size or {len(first.counts), len(second.counts)} - {1, matrices}:
        raise UsageError(
            f"cannot merge: {name} has {first.squares.size} columns in one file and {second.squares.size} in "
            "another",
            hint="merge only importance matrices of the same model",
        )
    squares = [entry.squares.reshape(matrices, -1).astype(np.float64) for entry in (first, second)]
    # A file in the old format has one count for all experts.
    counts = [np.broadcast_to(entry.counts, matrices) for entry in (first, second)]
    return Sums((squares[0] + squares[1]).astype(np.float32), counts[0] + counts[1])
