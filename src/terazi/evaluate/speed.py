"""Speed, load time and memory, in an engine process of their own."""

from __future__ import annotations

import math
import os
import statistics
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from terazi.calibrate.corpus import sentences
from terazi.evaluate.engines import open_engine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from terazi.evaluate.measurement import Measurement
    from terazi.evaluate.setting import Setting
    from terazi.evaluate.subject import Subject
    from terazi.progress import Progress
    from terazi.runtime.engine import Engine

__all__ = ["DECODE_TOKENS", "PROMPT_TOKENS", "measure", "median"]

PROMPT_TOKENS = 512
DECODE_TOKENS = 32
_REPEATS = 7
_SENTENCES = 32
_SECONDS = 20.0


def measure(subject: Subject, setting: Setting, progress: Progress) -> list[Measurement]:
    """Return prompt and generation speed, load time and peak memory of a fresh process.

    Speeds are medians over three to seven repeats; embedding models also get the median time of one sentence
    with its 95th percentile. Peak memory is the largest resident size, mapped weights
    and a KV cache for ``context`` tokens included, less what the interpreter held before.
    """
    task = f"{subject.path.name} (speed)"
    progress(task, 0, 1, unit="runs")
    load = _load()
    context = setting.context
    latencies: list[float] = []
    with open_engine(subject, setting) as engine:
        prompt = min(PROMPT_TOKENS, context, engine.trained_context or context)
        timings = engine.time(
            prompt_tokens=prompt,
            decode_tokens=0 if subject.embeds else min(DECODE_TOKENS, context),
            repeats=_REPEATS,
            seconds=_SECONDS,
        )
        if subject.embeds:
            latencies = _latencies(engine, sentences(setting.corpus, _SENTENCES))
        peak, base = engine.peak_memory, engine.base_memory
        load_time = engine.load_time
        conditions: dict[str, Any] = {
            "context": context,
            "runtime": engine.runtime,
            "threads": engine.threads,
            "load_average_before": load,
            "load_average": _load(),
            "processor_share": round(timings.processor_share, 3),
        }
    progress(task, 1, 1, unit="runs")
    measured = partial(subject.measured, device=setting.device)
    result = []
    for metric, tokens, seconds in (
        ("prefill_speed", timings.prompt_tokens, timings.prompt_seconds),
        ("decode_speed", timings.decode_tokens, timings.decode_seconds),
    ):
        if seconds:
            value, error = median([tokens / passed for passed in seconds])
            about = conditions | {"tokens": tokens}
            result.append(measured(metric, value, about, error=error, samples=len(seconds)))
    if latencies:
        value, error = median(latencies)
        about = conditions | {"percentile_95": sorted(latencies)[int(0.95 * len(latencies))]}
        result.append(measured("latency", value, about, error=error, samples=len(latencies)))
    # The digest has just been taken, so the file is in the system's cache as a rule.
    result.append(measured("load_time", load_time, conditions | {"file_cache": "warm"}))
    result.append(measured("peak_memory", peak - base, conditions | {"interpreter": base}))
    return result


def _latencies(engine: Engine, texts: Sequence[str]) -> list[float]:
    """Return the seconds that each text alone takes, after a warm-up; handing it over is included."""
    engine.embed(texts[:1])
    seconds = []
    for text in texts:
        started = time.perf_counter()
        engine.embed([text])
        seconds.append(time.perf_counter() - started)
    return seconds


def median(values: Sequence[float]) -> tuple[float, float]:
    """Return the median and its standard error, 1.2533 standard deviations over the root of the count."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return statistics.median(values), 1.2533 * spread / math.sqrt(len(values))


def _load() -> float | None:
    """Return how many processes wanted a processor over the last minute; None where it is unknown."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
