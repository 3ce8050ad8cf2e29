"""A recommendation in sentences: why this variant, why not the next two, what would have to change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from terazi.search.limits import figure, megabytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from terazi.devices import Device, UseCase
    from terazi.evaluate.measurement import Measurement
    from terazi.search.candidate import Candidate, QualityMetric, Scored
    from terazi.search.limits import Violation

__all__ = ["changes", "facts", "name", "runner_up", "source_note"]

_LEVELS = {
    "ultra-low": "ultra-low precision (1 to 2 bits): extreme compression for research and special hardware",
    "low": "low precision (3 to 4 bits): the balance of speed and size",
    "medium": "medium precision (5 to 8 bits): close to full precision",
    "full": "full precision (16 or 32 bits): the baseline",
    "exact": "exact data",
}


def name(candidate: Candidate) -> str:
    """Name a variant in a sentence."""
    return f"the source ({candidate.label})" if candidate.source else candidate.label


def facts(
    best: Scored, source: Candidate | None, device: Device, use_case: UseCase, context: int
) -> list[str]:
    """Say why the pick was picked, fact by fact."""
    pick = best.candidate
    title = (
        f"{name(pick)} scores highest for {use_case.title.lower()} on {device.title}: {best.score:.2f} of 1."
    )
    lines = [
        title[0].upper() + title[1:],
        f"Most of its weights are {pick.main_type}, {_LEVELS[pick.precision]}.",
    ]
    if quality := _quality(pick):
        lines.append(quality)
    cache = "KV cache" if use_case.task == "generate" else "buffers"
    lines.append(_smallness(best, source, device, f"{cache} at {context:,} tokens included"))
    if best.decode_speed is not None:
        rate = best.decode_speed
        if rate.estimated:
            text = f"Estimated from memory bandwidth, it generates about {figure(rate.value)} tokens/s there"
            if best.energy is not None:
                text += f", at about {figure(best.energy)} J per token (assumed power)"
            lines.append(text + ".")
        else:
            did = "generated" if rate.metric == "decode_speed" else "read"
            latency = best.candidate.measured("latency")
            each = f", one sentence in {_milliseconds(latency)}" if latency else ""
            lines.append(f"It {did} {figure(rate.value, 3)} tokens/s here{each}.")
    return lines


def _quality(pick: Candidate) -> str:
    if pick.source:
        return "It is the reference: nothing made from it can be closer to it."
    kl, agreement, cosine = pick.measured("kl_divergence"), pick.value("agreement"), pick.measured("cosine")
    if kl is not None and agreement is not None:
        error = f" ± {figure(kl.uncertainty, 1)}" if kl.uncertainty else ""
        return (
            f"It makes the source's first choice {agreement:.1%} of the time (KL divergence "
            f"{figure(kl.value)}{error} nats per token)."
        )
    if cosine is not None:
        return f"Its vectors keep a cosine of {cosine.value:.4f} to the source's."
    return ""


def _milliseconds(latency: Measurement) -> str:
    slow = latency.conditions.get("percentile_95")
    text = f"{figure(latency.value * 1e3)} ms"
    return f"{text} (95th percentile {figure(slow * 1e3)} ms)" if slow else text


def _smallness(best: Scored, source: Candidate | None, device: Device, included: str) -> str:
    pick = best.candidate
    text = f"It takes {megabytes(pick.size)}"
    if source is not None and not pick.source:
        change = pick.size / source.size - 1
        text += f" ({abs(change):.0%} {'less' if change < 0 else 'more'} than the source)"
    return (
        f"{text} and needs {megabytes(pick.memory_needed)} of the {megabytes(device.memory.usable)} usable "
        f"there, {included}."
    )


def runner_up(other: Scored, best: Scored, metric: QualityMetric | None) -> str:
    """Say why ``other`` came after ``best``: where it is better and what that costs."""
    gains, losses = [], []

    def note(better: bool, text: str) -> None:
        (gains if better else losses).append(text)

    a, b = other.candidate, best.candidate
    if metric is not None and abs(other.quality - best.quality) > 0.005:
        closer = other.quality > best.quality
        what = "vectors" if metric == "cosine" else "answers"
        note(
            closer,
            f"its {what} are {'closer to' if closer else 'further from'} the source{_pair(a, b, metric)}",
        )
    ratio = a.size / b.size - 1
    if abs(ratio) > 0.005:
        note(ratio < 0, f"it is {abs(ratio):.0%} {'smaller' if ratio < 0 else 'larger'}")
    if other.decode_speed is not None and best.decode_speed is not None:
        faster = other.decode_speed.value / best.decode_speed.value - 1
        if abs(faster) > 0.01:
            kind = " (estimate)" if other.decode_speed.estimated else " here"
            note(faster > 0, f"it is {abs(faster):.0%} {'faster' if faster > 0 else 'slower'}{kind}")
    start = f"Not {name(a)} ({other.score:.2f}): "
    if gains and losses:
        return f"{start}{_join(gains)}, but {_join(losses)}, which counts for more here."
    if losses:
        return f"{start}{_join(losses)}."
    return f"{start}it is as good in every respect that counts here, and no smaller."


def _pair(a: Candidate, b: Candidate, metric: QualityMetric) -> str:
    left, right = a.value(metric), b.value(metric)
    titles = {"kl_divergence": "KL", "cosine": "cosine", "agreement": "agreement", "perplexity": "perplexity"}
    if left is None or right is None:
        return ""
    if metric in ("cosine", "agreement"):
        return f" ({titles[metric]} {left:.4f} against {right:.4f})"
    return f" ({titles[metric]} {figure(left)} against {figure(right)})"


def source_note(source: Candidate, best: Scored) -> str | None:
    """Warn when the reference has already lost precision, which every comparison inherits."""
    if not source.quantized:
        return None
    text = (
        f"The source is already quantized (mostly {source.main_type}): quality is measured against it, not "
        "against the original model, and variants with more bits cannot win back what it lost."
    )
    if not best.candidate.source:
        text += " Start from the original 16-bit model for a better file of the same size."
    return text


def changes(broken: Sequence[tuple[Candidate, Sequence[Violation]]]) -> list[str]:
    """Say what would have to change for the variants that came closest, up to three of them."""
    able = [(candidate, problems) for candidate, problems in broken if all(p.change for p in problems)]
    closest = sorted(able, key=lambda pair: (len(pair[1]), pair[0].size))
    return [
        f"{name(candidate)} would need {_join([problem.change for problem in problems])}."
        for candidate, problems in closest[:3]
    ]


def _join(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
