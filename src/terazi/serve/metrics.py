"""What a server counts and times, in Prometheus' form."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from terazi.serve import tracing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from terazi.serve.pool import Pool

__all__ = ["Metrics", "Watch"]

_FIRST = (0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 60)
_BETWEEN = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28)
_LOAD = (0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The counters of one server; each model is a label."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.registry = registry = CollectorRegistry()
        per_model = ("model",)
        self.requests = Counter(
            "terazi_requests", "Requests that ended", ("model", "route", "status"), registry=registry
        )
        self.tokens = Counter("terazi_tokens", "Tokens", ("model", "kind"), registry=registry)
        self.crashes = Counter("terazi_engine_crashes", "Engine crashes", per_model, registry=registry)
        self.load_failures = Counter(
            "terazi_load_failures", "Models that did not load", per_model, registry=registry
        )
        self.first = Histogram(
            "terazi_time_to_first_token_seconds", "From the request to its first token",
            per_model, buckets=_FIRST, registry=registry,
        )  # fmt: skip
        self.between = Histogram(
            "terazi_inter_token_seconds", "Average time between a request's tokens",
            per_model, buckets=_BETWEEN, registry=registry,
        )  # fmt: skip
        self.load_seconds = Histogram(
            "terazi_load_seconds", "Time to load a model", per_model, buckets=_LOAD, registry=registry
        )
        self.active = Gauge("terazi_requests_active", "Requests being answered", per_model, registry=registry)
        self.waiting = Gauge("terazi_requests_waiting", "Requests in line", per_model, registry=registry)
        self.places = Gauge("terazi_parallel", "Requests answered at a time", per_model, registry=registry)
        self.memory = Gauge(
            "terazi_engine_memory_bytes", "Resident memory of the engine", per_model, registry=registry
        )
        self.batch = Gauge("terazi_batch", "Answers computed together now", per_model, registry=registry)
        self.cached = Gauge("terazi_kv_cache_tokens", "Tokens in the KV cache", per_model, registry=registry)
        self.cache = Gauge(
            "terazi_kv_cache_size_tokens", "Tokens that the KV cache holds", per_model, registry=registry
        )
        self._gauges = (
            self.active, self.waiting, self.places, self.memory, self.batch, self.cached, self.cache,
        )  # fmt: skip

    async def expose(self, pool: Pool) -> bytes:
        """Return all of it as text, with the gauges as they are now."""
        from prometheus_client import generate_latest

        models = pool.loaded
        slots = await asyncio.gather(*(loaded.engine.slots() for loaded in models))
        for gauge in self._gauges:
            gauge.clear()
        for loaded, places in zip(models, slots, strict=True):
            name = loaded.entry.name
            self.active.labels(name).inc(loaded.queue.active)
            self.waiting.labels(name).inc(loaded.queue.waiting)
            self.places.labels(name).inc(loaded.queue.places)
            self.memory.labels(name).inc(loaded.engine.memory)
            if places:
                self.batch.labels(name).inc(sum(place.get("is_processing", False) for place in places))
                self.cached.labels(name).inc(sum(place.get("n_prompt_tokens", 0) for place in places))
                self.cache.labels(name).inc(sum(place.get("n_ctx", 0) for place in places))
        return generate_latest(self.registry)


class Watch:
    """Times one request of one model; ``body`` is what it asks."""

    def __init__(self, metrics: Metrics, model: str, route: str, body: Mapping[str, Any]) -> None:
        tracing.asked_for(model, route, body)
        self.metrics, self.model, self.route = metrics, model, route
        self.started = time.perf_counter()
        self.first: float | None = None

    def token(self) -> None:
        """Note that something of the answer has come."""
        if self.first is None:
            self.first = time.perf_counter() - self.started
            tracing.first_token()
            self.metrics.first.labels(self.model).observe(self.first)

    def timings(self, timings: Any, usage: Any = None) -> None:
        """Count the tokens of an answer, from llama.cpp's ``timings`` or the protocol's ``usage``."""
        if isinstance(timings, dict):
            counts = {
                "prompt": timings.get("prompt_n", 0),
                "cached": timings.get("cache_n", 0),
                "generated": timings.get("predicted_n", 0),
                "drafted": timings.get("draft_n", 0),
                "accepted": timings.get("draft_n_accepted", 0),
            }
            if timings.get("predicted_n", 0) > 1:
                self.metrics.between.labels(self.model).observe(timings["predicted_per_token_ms"] / 1000)
        else:
            counts = {"prompt": usage.get("prompt_tokens", 0)} if isinstance(usage, dict) else {}
        for kind, count in counts.items():
            self.metrics.tokens.labels(self.model, kind).inc(max(count, 0))
        tracing.describe(
            {
                "gen_ai.usage.input_tokens": counts.get("prompt", 0) + counts.get("cached", 0),
                "gen_ai.usage.output_tokens": counts.get("generated", 0),
            }
        )

    def end(self, status: int) -> None:
        """Count the request."""
        self.metrics.requests.labels(self.model, self.route, str(status)).inc()
