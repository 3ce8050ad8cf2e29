"""One measured (or estimated) number about one artifact, with what is needed to trust and repeat it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["METRICS", "Measurement", "Metric"]


@dataclass(frozen=True, slots=True)
class Metric:
    """What a number means: its title for people, its unit, and which direction is better."""

    title: str
    unit: str
    higher_is_better: bool


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "size": Metric("file size", "bytes", False),
        "bits_per_weight": Metric("bits per weight", "bits", False),
        "perplexity": Metric("perplexity", "", False),
        "kl_divergence": Metric("KL divergence to the reference", "nats", False),
        "agreement": Metric("same first choice as the reference", "fraction", True),
        "cosine": Metric("embedding cosine to the reference", "", True),
        "rank_correlation": Metric("order of sentence similarities kept", "", True),
        "prefill_speed": Metric("prompt speed", "tokens/s", True),
        "decode_speed": Metric("generation speed", "tokens/s", True),
        "latency": Metric("time per sentence", "s", False),
        "load_time": Metric("load time", "s", False),
        "peak_memory": Metric("peak memory", "bytes", False),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """``value`` of ``metric`` (a key of `METRICS`) for the artifact with digest ``artifact``.

    ``uncertainty`` is one standard error in the same unit, ``samples`` how many observations it rests on.
    ``device`` names where it was measured, or for which device it is ``estimated``.
    """

    metric: str
    value: float
    unit: str
    artifact: str
    device: str
    uncertainty: float | None = None
    samples: int = 1
    estimated: bool = False
    conditions: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Measurement:
        """Read what `to_dict` wrote."""
        return Measurement(**values)
