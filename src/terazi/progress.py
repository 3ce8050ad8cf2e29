"""Progress of long work, reported to whoever asked for it.

Work reports through a plain callable so that the library prints nothing: the command line draws bars with an
ETA, a server streams events, a test collects a list.
"""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "silent"]


class Progress(Protocol):
    """Called as work advances: what is being done, how much is done, how much there is (0 = unknown).

    ``unit`` names what is counted (``"bytes"``, ``"tokens"``, ``"tensors"``, ``"variants"``). A task is over
    when ``done == total``. Calls with the same ``task`` belong together.
    """

    def __call__(self, task: str, done: int, total: int, *, unit: str = "") -> None:
        """Report one step."""
        ...


def silent(task: str, done: int, total: int, *, unit: str = "") -> None:
    """Ignore all progress."""
