"""Timing in the engine's own process: the same runs again and again, and what they had of the processor."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["FEWEST", "repeated"]

FEWEST = 3


def repeated(
    runs: Sequence[Callable[[], float]], *, repeats: int, seconds: float, threads: int
) -> tuple[list[list[float]], float]:
    """Call all ``runs`` in turn, up to ``repeats`` times, and return each one's results and a share.

    Three times in any case; more only while it has taken less than ``seconds`` in all. The share is the
    processor time used over the time that all ``threads`` could have had (`terazi.runtime.engine.Timings`).
    """
    found: list[list[float]] = [[] for _ in runs]
    started, used, done = time.perf_counter(), time.process_time(), 0
    while done < min(repeats, FEWEST) or (done < repeats and time.perf_counter() - started < seconds):
        for results, run in zip(found, runs, strict=True):
            results.append(run())
        done += 1
    passed = (time.perf_counter() - started) * max(threads, 1)
    return found, min((time.process_time() - used) / max(passed, 1e-9), 1.0)
