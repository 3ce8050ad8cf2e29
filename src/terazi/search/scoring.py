"""How good a variant is: quality, speed and size as numbers from 0 to 1, each on a scale of its own.

A score depends only on the variant, the device and the use case, so adding a variant never reorders others,
and a variant that is better in one respect and equal in the rest never scores lower.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, get_args

from terazi.search.candidate import QualityMetric, Scored
from terazi.search.estimates import decode_speed, energy_per_token

if TYPE_CHECKING:
    from collections.abc import Sequence

    from terazi.devices import Device, UseCase
    from terazi.search.candidate import Candidate

__all__ = ["HALF_QUALITY", "quality_loss", "quality_metric", "score"]

HALF_QUALITY: dict[QualityMetric, float] = {
    "kl_divergence": 0.1,  # nats; about Q3_K_M of Llama 3 8B in llama.cpp's own tables
    "cosine": 0.02,
    "agreement": 0.15,
    "perplexity": 0.1,  # nats per token lost
}
"""The loss at which quality counts half."""

_FULL_BITS = 16.0


def quality_metric(candidates: Sequence[Candidate]) -> QualityMetric | None:
    """Return the best metric that every variant that ran has, or None when nothing was measured."""
    working = [candidate for candidate in candidates if candidate.ran]
    for metric in get_args(QualityMetric):
        measured = [c for c in working if c.measured(metric) is not None]
        if measured and all(c.value(metric) is not None for c in working):
            return metric
    return None


def quality_loss(candidate: Candidate, metric: QualityMetric, reference: float | None = None) -> float:
    """Return how far a variant is from the source (0: identical), whose perplexity is ``reference``."""
    value = candidate.value(metric)
    if value is None:
        return math.inf
    if metric == "kl_divergence":
        return max(value, 0.0)
    if metric == "perplexity":
        return max(math.log(value / reference), 0.0) if reference else max(math.log(value), 0.0)
    return max(1.0 - value, 0.0)


def score(
    candidate: Candidate,
    device: Device,
    use_case: UseCase,
    metric: QualityMetric | None,
    reference: float | None = None,
) -> Scored:
    """Weigh a variant for a use case on a device. Without any quality measurement, size and speed decide."""
    quality = 0.0
    if metric is not None:
        quality = 1 / (1 + quality_loss(candidate, metric, reference) / HALF_QUALITY[metric])
    rate = decode_speed(candidate, device)
    speed = 0.0
    if rate is not None:
        speed = rate.value / (rate.value + use_case.comfortable_speed)
    size = max(0.0, 1 - candidate.bits_per_weight / _FULL_BITS)
    weights = use_case.weights
    total = weights.quality + weights.speed + weights.size
    weighed = weights.quality * quality + weights.speed * speed + weights.size * size
    return Scored(
        candidate=candidate,
        score=weighed / total,
        quality=quality,
        speed=speed,
        size=size,
        decode_speed=rate,
        energy=energy_per_token(rate, device),
    )
