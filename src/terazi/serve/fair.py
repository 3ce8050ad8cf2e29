"""Waiting in turn: so many at the same time, so many in line, and no client before all others."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from terazi.serve.errors import BusyError
from terazi.serve.tracing import step

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["FairQueue"]


class FairQueue:
    """Lets ``places`` in at a time; the others wait, at most ``longest`` of them.

    Clients take turns: one with a hundred requests in line delays another's first by one place only.
    """

    def __init__(self, places: int, longest: int) -> None:
        self.places, self.longest = places, longest
        self.active = 0
        self.waiting = 0
        self._lines: dict[str, deque[asyncio.Future[None]]] = {}
        self._seconds = 1.0  # running average of how long a place is held

    @asynccontextmanager
    async def place(self, client: str) -> AsyncIterator[None]:
        """Hold a place for the block. Raises `BusyError` at once when the line is full."""
        with step("queue"):
            await self._enter(client)
        started = asyncio.get_running_loop().time()
        try:
            yield
        finally:
            held = asyncio.get_running_loop().time() - started
            self._seconds += (held - self._seconds) / 8
            self._leave()

    async def _enter(self, client: str) -> None:
        if self.active < self.places and not self.waiting:
            self.active += 1
            return
        if self.waiting >= self.longest:
            ahead = (self.waiting + 1) * self._seconds / self.places
            raise BusyError(max(1, min(round(ahead), 600)))
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(client, deque()).append(turn)
        self.waiting += 1
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave()  # the place came in the same moment: pass it on
            else:
                self._forget(client, turn)
            raise

    def _forget(self, client: str, turn: asyncio.Future[None]) -> None:
        line = self._lines.get(client)
        if line and turn in line:
            line.remove(turn)
            self.waiting -= 1
            if not line:
                del self._lines[client]

    def _leave(self) -> None:
        """Give the place to the next client's oldest request; that client goes to the end of the round."""
        if not self._lines:
            self.active -= 1
            return
        client = next(iter(self._lines))
        line = self._lines.pop(client)
        turn = line.popleft()
        if line:
            self._lines[client] = line
        self.waiting -= 1
        turn.set_result(None)
