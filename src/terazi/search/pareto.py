"""The Pareto front: what nothing else beats in every respect at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["front"]


def front(points: Sequence[tuple[float, ...]]) -> list[int]:
    """Return the indexes of points that no other point dominates; smaller is better in every coordinate.

    A point dominates another when it is no larger in any coordinate and smaller in one. Equal points stay
    together.
    """
    return [
        index
        for index, point in enumerate(points)
        if not any(_dominates(other, point) for other in points if other is not point)
    ]


def _dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))
