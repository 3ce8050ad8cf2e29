"""From measured variants to a recommendation: limits, score, Pareto front, reasons. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from terazi.search import reasons
from terazi.search.candidate import Recommendation, Rejection
from terazi.search.estimates import decode_speed, representative
from terazi.search.frameworks import framework
from terazi.search.limits import violations
from terazi.search.pareto import dominators
from terazi.search.scoring import quality_loss, quality_metric, score

if TYPE_CHECKING:
    from collections.abc import Sequence

    from terazi.devices import Budget, Device, UseCase
    from terazi.search.candidate import Candidate, QualityMetric, Scored

__all__ = ["recommend"]


def recommend(
    candidates: Sequence[Candidate],
    device: Device,
    use_case: UseCase,
    budget: Budget,
    *,
    context: int | None = None,
) -> Recommendation:
    """Rank ``candidates`` for a use case on a device, within ``budget`` over the use case's own floors.

    ``context`` (tokens) is what each candidate's ``memory_needed`` was computed for; the use case's by
    default. When nothing keeps the limits, the pick is None and ``changes`` says what would have to give.
    """
    context = context or use_case.context
    limits = budget.over(use_case.floors)
    metric = quality_metric(candidates)
    source = next((candidate for candidate in candidates if candidate.source), None)
    reference = source.value("perplexity") if source is not None else None
    scored, broken = [], []
    for candidate in candidates:
        problems = violations(candidate, device, limits, context)
        if problems:
            broken.append((candidate, problems))
        else:
            scored.append(score(candidate, device, use_case, metric, reference))
    ranked = sorted(scored, key=lambda entry: (-entry.score, entry.candidate.size, entry.candidate.label))
    rejected = tuple(
        Rejection(
            candidate=candidate,
            reasons=tuple(problem.reason for problem in problems),
            decode_speed=decode_speed(candidate, device),
        )
        for candidate, problems in broken
    )
    best = ranked[0] if ranked else None
    return Recommendation(
        device=device,
        use_case=use_case,
        budget=limits,
        context=context,
        quality_metric=metric,
        ranked=tuple(ranked),
        rejected=rejected,
        beaten_by=_beaten_by(candidates, device, metric, reference),
        reasons=tuple(
            reasons.facts(best, source, device, use_case, context)
            if best
            else [f"No variant keeps every limit for {use_case.title.lower()} on {device.title}."]
        ),
        against=tuple(reasons.runner_up(other, ranked[0], metric) for other in ranked[1:3]),
        framework=framework(device, use_case, ranked),
        changes=() if ranked else tuple(reasons.changes(broken)),
        caveats=tuple(_caveats(candidates, device, source, best, metric)),
    )


def _beaten_by(
    candidates: Sequence[Candidate], device: Device, metric: QualityMetric | None, reference: float | None
) -> dict[str, str]:
    working = [candidate for candidate in candidates if candidate.ran]
    points = []
    for candidate in working:
        rate = decode_speed(candidate, device)
        loss = quality_loss(candidate, metric, reference) if metric else 0.0
        points.append((loss, float(candidate.size), -(rate.value if rate else 0.0)))
    return {
        candidate.label: working[better].label
        for candidate, better in zip(working, dominators(points), strict=True)
        if better is not None
    }


def _caveats(
    candidates: Sequence[Candidate],
    device: Device,
    source: Candidate | None,
    best: Scored | None,
    metric: QualityMetric | None,
) -> list[str]:
    notes = []
    if source is not None and best is not None and (note := reasons.source_note(source, best)):
        notes.append(note)
    if not device.detected and not any(candidate.token_bytes for candidate in candidates):
        notes.append(
            f"Speeds and times per sentence were measured on this machine, not on {device.title}; the score "
            "uses them to tell variants apart. Measure on the device before you promise a figure."
        )
    elif not device.detected:
        notes.append(
            f"Speed on {device.title} is an estimate: half of its memory bandwidth over the bytes that one "
            "token reads. Small models and types that are costly to decode come out slower. Measure on the "
            "device before you promise a figure."
        )
    unlike = [c.label for c in candidates if any(not representative(m, device) for m in c.measurements)]
    if unlike:
        notes.append(
            f"* {', '.join(unlike)} ran in MLX's processor build, because there is no Metal on this machine: "
            f"quality and size hold, but speed, time and memory measured here say nothing of {device.title}."
        )
    if device.power is not None and (best is None or best.energy is not None):
        notes.append(f"Energy is an estimate from an assumed {device.power.watts:g} W.")
    if metric is None:
        notes.append("No quality was measured: only size and speed were weighed.")
    if failed := [candidate.label for candidate in candidates if candidate.failure]:
        notes.append(f"Could not be measured: {', '.join(failed)}. The reasons are in the table.")
    return notes
