"""Where the marks and labels of a scatter plot go: plain geometry, drawn by the template."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Chart", "Mark", "Point", "Tick", "chart"]

WIDTH, HEIGHT = 460, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 16, 16, 44
_RADIUS = 6
_LETTER, _LINE = 7.6, 14  # average width and height of a 12 px label


@dataclass(frozen=True, slots=True)
class Point:
    """A variant to draw: ``kind`` is pick, fits, rejected; ``group`` colours it; ``note`` is its tooltip."""

    label: str
    x: float
    y: float
    kind: str
    group: str
    note: str = ""
    source: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """A point in the picture; where its label goes (SVG anchor) and whether a line must lead to it."""

    point: Point
    x: float
    y: float
    label_x: float
    label_y: float
    anchor: str
    leader: bool


@dataclass(frozen=True, slots=True)
class Tick:
    """A grid line and its text."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A scatter plot in a box of `WIDTH` by `HEIGHT`; ``front`` is the path through what nothing beats."""

    title: str
    x_title: str
    y_title: str
    marks: tuple[Mark, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    front: str
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    top: int = _TOP
    bottom: int = HEIGHT - _BOTTOM


@dataclass(frozen=True, slots=True)
class _Scale:
    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)


_SMALLEST_SPREAD = 1e-6


def chart(
    points: Sequence[Point], *, title: str, x_title: str, y_title: str, smaller_x_is_better: bool
) -> Chart | None:
    """Lay a scatter plot out; larger y is better. None when there is nothing to compare."""
    if len(points) < 2:
        return None
    xs, ys = [point.x for point in points], [point.y for point in points]
    x_values, y_values = _ticks(min(xs), max(xs)), _ticks(min(ys), max(ys))
    across = _Scale(x_values[0], x_values[-1], _LEFT + 8, WIDTH - _RIGHT - 8)
    up = _Scale(y_values[0], y_values[-1], HEIGHT - _BOTTOM - 8, _TOP + 8)
    places = [(across(point.x), up(point.y)) for point in points]
    return Chart(
        title=title,
        x_title=x_title,
        y_title=y_title,
        marks=tuple(_labelled(points, places)),
        x_ticks=tuple(Tick(across(value), _text(value, x_values)) for value in x_values),
        y_ticks=tuple(Tick(up(value), _text(value, y_values)) for value in y_values),
        front=_front(points, places, smaller_x_is_better=smaller_x_is_better),
    )


def _ticks(low: float, high: float) -> list[float]:
    """Choose about five round values that enclose the range; differences too small to read count as none."""
    spread = high - low or abs(high) or 1.0
    spread = max(spread, _SMALLEST_SPREAD * max(abs(low), abs(high), 1.0))
    raw = spread / 4
    magnitude = 10 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= raw * 0.999)
    first, last = math.floor(low / step), math.ceil(high / step)
    if first == last:
        last += 1
    return [index * step for index in range(first, last + 1)]


def _text(value: float, values: Sequence[float]) -> str:
    step = values[1] - values[0]
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    if digits == 0 or round(step, digits) != round(step, 10):
        digits = digits if step == round(step, digits) else digits + 1
    return f"{value:,.{digits}f}"


def _front(
    points: Sequence[Point], places: Sequence[tuple[float, float]], *, smaller_x_is_better: bool
) -> str:
    """SVG path of the staircase under which everything is beaten by something else."""
    usable = [place for point, place in zip(points, places, strict=True) if point.kind != "rejected"]
    ordered = sorted(usable, key=lambda place: (place[0] if smaller_x_is_better else -place[0], place[1]))
    best: list[tuple[float, float]] = []
    for place in ordered:
        if not best or place[1] < best[-1][1]:  # higher up in the picture
            best.append(place)
    if len(best) < 2:
        return ""
    path = f"M{best[0][0]:.1f} {best[0][1]:.1f}"
    for x, y in best[1:]:
        path += f"H{x:.1f}V{y:.1f}"
    return path


def _labelled(points: Sequence[Point], places: Sequence[tuple[float, float]]) -> Iterator[Mark]:
    """Put each label where it covers the least: beside its point first, further away if it must."""
    taken = [(x - _RADIUS - 1, y - _RADIUS - 1, x + _RADIUS + 1, y + _RADIUS + 1) for x, y in places]
    order = sorted(range(len(points)), key=lambda i: (points[i].kind != "pick", places[i]))
    found: dict[int, Mark] = {}
    for index in order:
        x, y = places[index]
        width = len(points[index].label) * _LETTER
        box, far = min(
            _spots(x, y, width),
            key=lambda spot: (_cost(spot[0], [box for i, box in enumerate(taken) if i != index]), spot[1]),
        )
        taken.append(box)
        middle = (box[0] + box[2]) / 2
        anchor, label_x = "middle", middle
        if box[0] > x:
            anchor, label_x = "start", box[0]
        elif box[2] < x:
            anchor, label_x = "end", box[2]
        found[index] = Mark(points[index], x, y, label_x, box[3] - 3, anchor, far > 1)
    return (found[index] for index in range(len(points)))


_Box = tuple[float, float, float, float]


def _spots(x: float, y: float, width: float) -> Iterator[tuple[_Box, int]]:
    """Candidate label boxes around a point, with their distance rank."""
    for rank, gap in enumerate((_RADIUS + 3, _RADIUS + 14, _RADIUS + 28, _RADIUS + 44)):
        half = _LINE / 2
        for left, top in (
            (x + gap, y - half),
            (x - gap - width, y - half),
            (x - width / 2, y - gap - _LINE),
            (x - width / 2, y + gap),
            (x + gap * 0.7, y - gap * 0.7 - _LINE),
            (x + gap * 0.7, y + gap * 0.7),
            (x - gap * 0.7 - width, y - gap * 0.7 - _LINE),
            (x - gap * 0.7 - width, y + gap * 0.7),
        ):
            yield (left, top, left + width, top + _LINE), rank


def _cost(box: _Box, taken: Sequence[_Box]) -> float:
    """Area that a box shares with what is already there, or that lies outside the picture."""
    left, top, right, bottom = box
    shared = sum(
        max(0.0, min(right, other[2]) - max(left, other[0]))
        * max(0.0, min(bottom, other[3]) - max(top, other[1]))
        for other in taken
    )
    outside = max(0.0, _LEFT - left) + max(0.0, right - (WIDTH - _RIGHT))
    beyond = max(0.0, _TOP - top) + max(0.0, bottom - (HEIGHT - _BOTTOM))
    return shared + 100 * (outside + beyond)
