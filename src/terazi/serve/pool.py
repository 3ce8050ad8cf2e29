"""Which models are loaded: on demand, within a memory budget, the least recently used leaving first."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from terazi.errors import EngineError
from terazi.serve.engine import Engine
from terazi.serve.errors import BusyError
from terazi.serve.fair import FairQueue
from terazi.serve.loading import Limits, plan_loading
from terazi.serve.tracing import step

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from terazi.registry import Entry, Store
    from terazi.serve.metrics import Metrics

__all__ = ["Limits", "Loaded", "Pool"]

_CRASHES = 3  # in a row, after which a model rests
_REST = 30.0  # seconds
_TICK = 0.5  # seconds between looks at what may be unloaded
_ROOM = 60.0  # seconds to wait for others to leave room


@dataclass(slots=True, eq=False)
class Loaded:
    """A model in memory. ``claims`` counts requests that run or wait; ``need`` is estimated bytes."""

    entry: Entry
    engine: Engine
    queue: FairQueue
    need: int
    embedding: bool
    load_seconds: float
    keep_alive: float
    tools: bool
    claims: int = 0
    used: float = field(default_factory=time.monotonic)
    ready: float = field(default_factory=time.monotonic)

    def load_since(self, moment: float) -> float:
        """Seconds that loading took when it ended after ``moment`` (of the monotonic clock), else 0."""
        return self.load_seconds if self.ready > moment else 0.0

    @property
    def expires_in(self) -> float:
        """Seconds until it is unloaded if nobody asks for it; infinite when it stays."""
        if self.keep_alive < 0:
            return float("inf")
        return self.keep_alive if self.claims else self.keep_alive - (time.monotonic() - self.used)


class Pool:
    """The loaded models of one server."""

    def __init__(self, store: Store, limits: Limits, metrics: Metrics) -> None:
        self.store, self.limits, self.metrics = store, limits, metrics
        self._loaded: dict[tuple[str, bool], Loaded] = {}
        self._loading = asyncio.Lock()
        self._left = asyncio.Event()
        self._crashes: dict[str, tuple[int, float]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def loaded(self) -> list[Loaded]:
        """What is in memory now."""
        return [loaded for loaded in self._loaded.values() if loaded.engine.alive]

    @contextlib.asynccontextmanager
    async def use(
        self,
        entry: Entry,
        *,
        client: str,
        embedding: bool = False,
        context: int = 0,
        keep_alive: float | None = None,
    ) -> AsyncIterator[Loaded]:
        """Have a model loaded and a place in it for the block.

        ``context`` asks for at least so many tokens per conversation. Raises `BusyError` when too many are
        waiting, `EngineError` when the model cannot be loaded.
        """
        while True:
            loaded = await self._get(entry, embedding, context)
            loaded.claims += 1
            if keep_alive is not None:
                loaded.keep_alive = keep_alive
            try:
                async with loaded.queue.place(client):
                    if not loaded.engine.alive:
                        continue  # it died while this request waited
                    try:
                        yield loaded
                    finally:
                        self._note(loaded)
                    return
            finally:
                loaded.claims -= 1
                loaded.used = time.monotonic()
                self._left.set()

    async def unload(self, entry: Entry) -> None:
        """Unload a model now, or as soon as its running requests are done."""
        for key in [key for key in self._loaded if key[0] == entry.digest]:
            self._retire(self._loaded.pop(key))

    async def tend(self) -> None:
        """Unload what has been idle for long enough; runs until cancelled."""
        while True:
            await asyncio.sleep(_TICK)
            for key, loaded in list(self._loaded.items()):
                if not loaded.claims and (loaded.expires_in <= 0 or not loaded.engine.alive):
                    del self._loaded[key]
                    self._retire(loaded)

    async def close(self) -> None:
        """End all engines."""
        engines = [loaded.engine for loaded in self._loaded.values()]
        self._loaded.clear()
        await asyncio.gather(*(engine.close() for engine in engines), *self._closing)

    async def _get(self, entry: Entry, embedding: bool, context: int) -> Loaded:
        key = (entry.digest, embedding)
        if found := self._usable(key, context):
            return found
        with step("load"):
            return await self._get_loaded(key, entry, embedding, context)

    async def _get_loaded(self, key: tuple[str, bool], entry: Entry, embedding: bool, context: int) -> Loaded:
        async with self._loading:
            if found := self._usable(key, context):
                return found
            if old := self._loaded.pop(key, None):
                self._retire(old)
            loaded = await self._load(entry, embedding, context)
            self._loaded[key] = loaded
            return loaded

    def _usable(self, key: tuple[str, bool], context: int) -> Loaded | None:
        found = self._loaded.get(key)
        if found and found.engine.alive and found.engine.options.context >= context:
            return found
        return None

    async def _load(self, entry: Entry, embedding: bool, context: int) -> Loaded:
        self._refuse_crashing(entry)
        plan = await asyncio.to_thread(plan_loading, self.store, entry, self.limits, embedding, context)
        need = plan.need
        if need > self.limits.memory:
            budget = self.limits.memory
            raise EngineError(
                f"{entry.name} needs about {need / 1e9:.1f} GB, the budget is {budget / 1e9:.1f} GB",
                hint="raise --memory, lower --context, or use a smaller variant",
            )
        await self._make_room(need)
        started = time.monotonic()
        try:
            engine = await Engine.start(entry.manifest.format, **plan.options)
        except EngineError:
            self.metrics.load_failures.labels(entry.name).inc()
            raise
        seconds = time.monotonic() - started
        self.metrics.load_seconds.labels(entry.name).observe(seconds)
        keep_alive = self.limits.keep_alive
        queue = FairQueue(engine.options.parallel, self.limits.longest_queue)
        return Loaded(entry, engine, queue, need, embedding, seconds, keep_alive, plan.tools)

    async def _make_room(self, need: int) -> None:
        """Unload idle models, the least recently used first, until ``need`` bytes fit."""
        deadline = time.monotonic() + _ROOM
        while sum(loaded.need for loaded in self._loaded.values()) + need > self.limits.memory:
            idle = [(key, loaded) for key, loaded in self._loaded.items() if not loaded.claims]
            if idle:
                key, oldest = min(idle, key=lambda pair: pair[1].used)
                del self._loaded[key]
                await oldest.engine.close()
                continue
            self._left.clear()
            try:
                await asyncio.wait_for(self._left.wait(), max(deadline - time.monotonic(), 0.01))
            except TimeoutError:
                raise BusyError(10) from None

    def _retire(self, loaded: Loaded) -> None:
        """Close an engine once its requests are done."""

        async def close() -> None:
            while loaded.claims and loaded.engine.alive:
                await asyncio.sleep(0.05)
            await loaded.engine.close()

        task = asyncio.create_task(close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _note(self, loaded: Loaded) -> None:
        """Count crashes in a row; a request that ended with the engine alive clears the count."""
        name = loaded.entry.name
        if loaded.engine.process.returncode is None:
            self._crashes.pop(name, None)
            return
        count, last = self._crashes.get(name, (0, 0.0))
        if time.monotonic() - last > 0.5:  # one death fails many requests
            self._crashes[name] = (count + 1, time.monotonic())
            self.metrics.crashes.labels(name).inc()

    def _refuse_crashing(self, entry: Entry) -> None:
        count, last = self._crashes.get(entry.name, (0, 0.0))
        rest = _REST - (time.monotonic() - last)
        if count >= _CRASHES and rest > 0:
            raise EngineError(f"{entry.name} crashed {count} times in a row; it rests for {rest:.0f} s")
