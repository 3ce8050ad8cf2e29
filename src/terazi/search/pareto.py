"""The Pareto front: what no other is at least as good as in every respect."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["dominators"]


def dominators(points: Sequence[tuple[float, ...]]) -> list[int | None]:
    """Return for each point the index of one that dominates it, or None: those are the Pareto front.

    Smaller is better in every coordinate. A point dominates another when it is no larger in any coordinate
    and smaller in one, so equal points stay together. The dominator named is itself on the front.
    """
    return [
        min(
            (index for index, other in enumerate(points) if _dominates(other, point)),
            key=lambda index: (sum(_dominates(third, points[index]) for third in points), points[index]),
            default=None,
        )
        for point in points
    ]


def _dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))
