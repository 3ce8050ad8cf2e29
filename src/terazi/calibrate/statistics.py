"""What an importance matrix says about a model: which weights matter, and how unevenly their columns do."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from terazi.calibrate.calibration import Calibration, Sums

__all__ = ["TensorStatistics", "statistics"]

_ZERO = 1e-5  # llama-imatrix's threshold for a column that is not used
_LAYER = re.compile(r"(?<=blk\.)\d+(?=\.)")


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorStatistics:
    """Figures of one weight, over all columns of the experts that were used.

    ``total``, ``mean``, ``lowest``, ``highest`` and ``deviation`` are of mean squared activations;
    ``zero_columns`` counts those below 1e-5. ``entropy`` (bits) is that of the columns' shares in the total,
    and ``evenness`` the same divided by its maximum: 1 when all columns matter alike. ``top_share`` is the
    share of the strongest 1 % of the columns. ``similarity`` is the cosine to the same weight one layer
    before.
    """

    name: str
    columns: int
    tokens: int
    experts: int
    unrouted: int
    total: float
    mean: float
    lowest: float
    highest: float
    deviation: float
    zero_columns: int
    entropy: float
    evenness: float
    top_share: float
    similarity: float | None


def statistics(calibration: Calibration) -> list[TensorStatistics]:
    """Return figures for every weight that was seen, the largest totals first."""
    found = [
        _figures(name, entry, calibration.sums)
        for name, entry in calibration.sums.items()
        if entry.counts.any()
    ]
    return sorted(found, key=lambda figures: (-figures.total, figures.name))


def _figures(name: str, entry: Sums, sums: Mapping[str, Sums]) -> TensorStatistics:
    used = entry.counts > 0
    means = (entry.squares[used].astype(np.float64) / entry.counts[used, None]).reshape(-1)
    total = float(means.sum())
    shares = means / total if total else np.full_like(means, 1 / len(means))
    entropy = float(-(shares[shares > 0] * np.log2(shares[shares > 0])).sum())
    strongest = np.sort(shares)[-max(len(shares) // 100, 1) :]
    return TensorStatistics(
        name=name,
        columns=entry.squares.shape[1],
        tokens=int(entry.counts.max()),
        experts=len(entry.counts) if len(entry.counts) > 1 else 0,
        unrouted=int((~used).sum()),
        total=total,
        mean=float(means.mean()),
        lowest=float(means.min()),
        highest=float(means.max()),
        deviation=float(means.std()),
        zero_columns=int((means <= _ZERO).sum()),
        entropy=entropy,
        evenness=entropy / math.log2(len(means)) if len(means) > 1 else 1.0,
        top_share=float(strongest.sum()),
        similarity=_similarity(name, entry, sums),
    )


def _similarity(name: str, entry: Sums, sums: Mapping[str, Sums]) -> float | None:
    layer = _LAYER.search(name)
    before = sums.get(_LAYER.sub(str(int(layer[0]) - 1), name, count=1)) if layer else None
    if before is None or before.squares.shape != entry.squares.shape:
        return None
    a, b = entry.squares.astype(np.float64).reshape(-1), before.squares.astype(np.float64).reshape(-1)
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norms if norms else None
