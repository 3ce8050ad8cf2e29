"""A variant that could be recommended, and a recommendation: values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from terazi.dtypes import dtype

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from terazi.devices import Budget, Device, UseCase
    from terazi.dtypes import Precision
    from terazi.evaluate.measurement import Measurement

__all__ = ["Candidate", "Framework", "QualityMetric", "Recommendation", "Rejection", "Sample", "Scored"]

QualityMetric = Literal["kl_divergence", "cosine", "agreement", "perplexity"]
"""What quality is judged by; the first of these that every variant has."""

# The reference against itself.
_BY_DEFINITION = {"kl_divergence": 0.0, "agreement": 1.0, "cosine": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What a variant answered to one prompt; ``tokens`` counts the answer."""

    prompt: str
    answer: str
    tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A variant: what is known before it runs, and what was measured.

    ``memory_needed`` (bytes) covers weights, KV cache and working buffers at the asked context;
    ``token_bytes`` is what generating one token reads from memory (0: it generates none); ``types`` counts
    weights by tensor type. ``source`` marks the model that the others are made from and compared with.
    ``failure`` says why a variant could not be made or measured, ``skipped`` why that was not tried.
    ``level`` is the precision class where the type does not say it (ONNX keeps all kinds of data in I8).
    ``operators`` counts those of an ONNX graph, ``exported`` those before operators were fused.
    """

    label: str
    size: int
    bits_per_weight: float
    memory_needed: int
    token_bytes: int
    types: Mapping[str, int]
    format: str = "gguf"
    level: Precision | None = None
    operators: Mapping[str, int] = field(default_factory=dict)
    exported: Mapping[str, int] = field(default_factory=dict)
    source: bool = False
    measurements: tuple[Measurement, ...] = ()
    samples: tuple[Sample, ...] = ()
    notes: tuple[str, ...] = ()
    failure: str | None = None
    skipped: str | None = None
    path: Path | None = None
    digest: str | None = None
    plan_digest: str | None = None

    @property
    def ran(self) -> bool:
        """Whether it was measured."""
        return bool(self.measurements) and self.failure is None

    @property
    def main_type(self) -> str:
        """The type that most weights have."""
        return max(self.types, key=lambda name: (self.types[name], name))

    @property
    def precision(self) -> Precision:
        """Precision class of the type that most weights have, whatever the preset is called."""
        return self.level or dtype(self.main_type).precision

    @property
    def quantized(self) -> bool:
        """Whether most of its weights have lost precision."""
        return self.precision not in ("full", "exact")

    def measured(self, metric: str) -> Measurement | None:
        """Return the measurement of a metric, if there is one."""
        return next((m for m in self.measurements if m.metric == metric and not m.estimated), None)

    def value(self, metric: str) -> float | None:
        """Return a metric's value; the source agrees with itself by definition."""
        if self.source and metric in _BY_DEFINITION:
            return _BY_DEFINITION[metric]
        found = self.measured(metric)
        return None if found is None else found.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A variant that keeps every limit, with its score (0 to 1) for one use case on one device.

    ``quality``, ``speed`` and ``size`` are the parts before weighting. ``decode_speed`` is for the device;
    ``energy`` is joules per token, an estimate, where the device's power is known.
    """

    candidate: Candidate
    score: float
    quality: float
    speed: float
    size: float
    decode_speed: Measurement | None
    energy: float | None = None

    @property
    def label(self) -> str:
        """The variant's name."""
        return self.candidate.label


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """A variant that cannot be recommended, and every reason why."""

    candidate: Candidate
    reasons: tuple[str, ...]
    decode_speed: Measurement | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Framework:
    """Which engine to run the pick in, and why; ``measured`` says whether the figures come from it."""

    name: str
    reason: str
    measured: bool
    alternatives: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """The outcome of a comparison: the pick, or what would have to change, with the reasons in sentences.

    ``ranked`` lists what keeps the limits, best first; ``against`` says why not the next two. ``beaten_by``
    names, for a variant, another that is at least as good in quality, size and speed and better in one; what
    is not in it is the Pareto front.
    """

    device: Device
    use_case: UseCase
    budget: Budget
    context: int
    quality_metric: QualityMetric | None
    ranked: tuple[Scored, ...]
    rejected: tuple[Rejection, ...]
    beaten_by: Mapping[str, str]
    reasons: tuple[str, ...]
    against: tuple[str, ...]
    framework: Framework
    changes: tuple[str, ...] = ()
    caveats: tuple[str, ...] = ()

    @property
    def pick(self) -> Scored | None:
        """The best variant, if any keeps every limit."""
        return self.ranked[0] if self.ranked else None
