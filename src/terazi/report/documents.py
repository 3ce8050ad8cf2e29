"""A comparison as one JSON document with stable keys; the HTML page shows nothing else.

Keys (sizes in bytes, speeds in tokens/s, fractions 0 to 1, absent figures ``null``):

- ``schema`` (1), ``created`` (UTC), ``terazi`` (version)
- ``model``: ``name``, ``path``, ``digest``, ``format``, ``architecture``, ``parameters``, ``license``,
  ``variant``, ``context_length``, ``quantized`` (whether the reference itself has lost precision)
- ``device``, ``measured_on``, ``use_case``, ``limits``, ``context``: what was asked and where it ran
- ``recommendation``: ``pick``, ``reasons``, ``against`` (why not the next two), ``changes``, ``framework``,
  ``run`` (a command), ``quality_metric``
- ``variants``, best first: ``label``, ``status`` (pick, fits, rejected, skipped, failed), ``why`` (reasons
  against), ``rank``, ``beaten_by`` (a label; null on the Pareto front), ``ran``, ``source``, ``format``,
  ``size``, ``saved_16bit``, ``saved_32bit``, ``bits_per_weight``,
  ``precision``, ``main_type``, ``types`` (type -> share of weights), ``memory_needed``, ``score``, ``parts``,
  ``device_speed`` and ``energy`` (on the device), ``representative`` (whether times measured here tell
  anything of it), ``agreement``, ``kl_divergence``, ``cosine``,
  ``operators`` of an ONNX graph and those it was ``exported`` with (name -> number, before fusion),
  ``measurements`` by metric, ``samples``, ``notes``, ``file``, ``digest``, ``plan_digest``
- ``method``, ``caveats``, ``commands``: sentences and shell commands
"""

from __future__ import annotations

import unicodedata
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from terazi.devices import this_machine
from terazi.dtypes import dtype
from terazi.search.estimates import representative
from terazi.search.variants.family import named_precision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from terazi.evaluate.measurement import Measurement
    from terazi.model import Model
    from terazi.search import Candidate, Recommendation, Scored

__all__ = ["SCHEMA", "Subject", "document"]

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The model that a report is about."""

    name: str
    path: str
    digest: str
    format: str
    architecture: str
    parameters: int
    license: str | None
    variant: str
    context_length: int
    quantized: bool

    @staticmethod
    def of(model: Model, name: str, digest: str) -> Subject:
        """Describe an opened model by its headers; ``name`` is what the user calls it."""
        return Subject(
            name=model.name,
            path=name,
            digest=digest,
            format=model.format,
            architecture=model.config.architecture,
            parameters=model.parameters,
            license=model.license,
            variant=model.variant,
            context_length=model.config.context_length,
            quantized=_quantized(model),
        )


def _quantized(model: Model) -> bool:
    """Whether most of a model's weights have lost precision."""
    types: dict[str, int] = {}
    for tensor in model.tensors.values():
        kind = tensor.packed.name if tensor.packed else tensor.type
        types[kind] = types.get(kind, 0) + tensor.size
    main = max(types, key=lambda kind: types[kind])
    level = dtype(main).precision if model.format == "gguf" else named_precision(main)
    return level not in ("full", "exact")


def document(
    recommendation: Recommendation,
    subject: Subject,
    *,
    run: str | None = None,
    method: Sequence[str] = (),
    commands: Sequence[str] = (),
    judged: bool = True,
    created: datetime | None = None,
) -> dict[str, Any]:
    """Return everything a report says as plain JSON values. ``run`` is the command that runs the pick.

    Without ``judged`` it is a comparison only: ``recommendation`` is null and nothing has a score.
    """
    r = recommendation
    pick = r.pick
    rows = [
        *(_fitting(scored, rank, r, subject, judged) for rank, scored in enumerate(r.ranked, start=1)),
        *(
            _variant(entry.candidate, r, subject)
            | {
                "status": _status(entry.candidate),
                "why": list(entry.reasons),
                "device_speed": _figure(entry.decode_speed),
            }
            for entry in r.rejected
        ),
    ]
    return _clean(
        {
            "schema": SCHEMA,
            "created": (created or datetime.now(UTC)).isoformat(timespec="seconds"),
            "terazi": version("terazi"),
            "model": asdict(subject),
            "device": asdict(r.device),
            "measured_on": asdict(this_machine()),
            "use_case": asdict(r.use_case),
            "limits": asdict(r.budget),
            "context": r.context,
            "recommendation": {
                "pick": pick.candidate.label if pick else None,
                "quality_metric": r.quality_metric,
                "reasons": list(r.reasons),
                "against": list(r.against),
                "changes": list(r.changes),
                "framework": asdict(r.framework),
                "run": run,
            }
            if judged
            else None,
            "variants": rows,
            "method": list(method),
            "caveats": list(r.caveats),
            "commands": list(commands),
        }
    )


def _fitting(
    scored: Scored, rank: int, recommendation: Recommendation, subject: Subject, judged: bool
) -> dict[str, Any]:
    judgement = {
        "status": "pick" if rank == 1 else "fits",
        "rank": rank,
        "score": scored.score,
        "parts": {"quality": scored.quality, "speed": scored.speed, "size": scored.size},
    }
    return (
        _variant(scored.candidate, recommendation, subject)
        | (judgement if judged else {})
        | {
            "device_speed": _figure(scored.decode_speed),
            "energy": scored.energy,
        }
    )


def _variant(candidate: Candidate, recommendation: Recommendation, subject: Subject) -> dict[str, Any]:
    weights = sum(candidate.types.values()) or 1
    by_share = sorted(candidate.types.items(), key=lambda item: -item[1])
    return {
        "label": candidate.label,
        "status": "fits",
        "why": [],
        "rank": None,
        "beaten_by": recommendation.beaten_by.get(candidate.label),
        "ran": candidate.ran,
        "source": candidate.source,
        "format": candidate.format,
        "size": candidate.size,
        "saved_16bit": 1 - candidate.size / (2 * subject.parameters) if subject.parameters else None,
        "saved_32bit": 1 - candidate.size / (4 * subject.parameters) if subject.parameters else None,
        "bits_per_weight": candidate.bits_per_weight,
        "precision": candidate.precision,
        "main_type": candidate.main_type,
        "types": {name: count / weights for name, count in by_share},
        "memory_needed": candidate.memory_needed,
        "score": None,
        "parts": None,
        "device_speed": None,
        "energy": None,
        "representative": all(representative(m, recommendation.device) for m in candidate.measurements),
        "agreement": None if _embeds(recommendation) else candidate.value("agreement"),
        "kl_divergence": None if _embeds(recommendation) else candidate.value("kl_divergence"),
        "cosine": candidate.value("cosine") if _embeds(recommendation) else None,
        "operators": dict(candidate.operators),
        "exported": dict(candidate.exported),
        "measurements": {m.metric: m.to_dict() for m in candidate.measurements},
        "samples": [asdict(sample) for sample in candidate.samples],
        "notes": list(candidate.notes),
        "file": str(candidate.path) if candidate.path else None,
        "digest": candidate.digest,
        "plan_digest": candidate.plan_digest,
    }


def _status(refused: Candidate) -> str:
    if refused.failure:
        return "failed"
    return "rejected" if refused.ran else "skipped"


def _embeds(recommendation: Recommendation) -> bool:
    return recommendation.quality_metric == "cosine"


def _figure(measurement: Measurement | None) -> dict[str, Any] | None:
    if measurement is None:
        return None
    return {"value": measurement.value, "estimated": measurement.estimated, "device": measurement.device}


def _clean(value: Any) -> Any:
    """Return plain JSON values; texts from models lose control and direction-changing characters."""
    if isinstance(value, dict):
        return {str(key): _clean(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_clean(entry) for entry in value]
    if isinstance(value, str):
        return "".join("\ufffd" if _unsafe(character) else character for character in value)
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    return _clean(value.tolist()) if hasattr(value, "tolist") else str(value)


_DIRECTION = {*range(0x200E, 0x2010), *range(0x202A, 0x202F), *range(0x2066, 0x206A)}


def _unsafe(character: str) -> bool:
    """Whether a character controls terminals or text direction, or cannot be encoded."""
    if character in "\n\t":
        return False
    return unicodedata.category(character) in ("Cc", "Cs") or ord(character) in _DIRECTION
