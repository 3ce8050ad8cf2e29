"""Which limits a variant breaks, and what a limit would have to be for it to pass."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from terazi.figures import size
from terazi.search.estimates import decode_speed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from terazi.devices import Budget, Device
    from terazi.search.candidate import Candidate

__all__ = ["Violation", "figure", "megabytes", "violations"]


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken limit: the reason in words, and the change that would admit the variant."""

    reason: str
    change: str


def figure(value: float, digits: int = 2) -> str:
    """Format a number for sentences with so many significant digits: ``0.031``, ``59``, ``3,300``."""
    if value == 0:
        return "0"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{round(value, decimals):,.{max(decimals, 0)}f}"


def megabytes(nbytes: float) -> str:
    """Format bytes for sentences: ``98 MB``, ``1.9 GB``."""
    return size(nbytes, "{:.0f}".format) if nbytes < 999.5e6 else size(nbytes)


def violations(candidate: Candidate, device: Device, budget: Budget, context: int) -> list[Violation]:
    """Return every limit that ``candidate`` breaks; empty when it may be recommended.

    Of a variant that has not run only what is predicted counts: size, memory, types and estimated speed. In
    one that has, a limit on something that was not measured counts as broken.
    """
    if refused := candidate.failure or candidate.skipped:
        return [Violation(refused, "")]
    known = [
        *_size(candidate, device, budget),
        *_memory(candidate, device, budget, context),
        *_types(candidate, device),
    ]
    if not candidate.measurements and (known or device.detected or candidate.token_bytes <= 0):
        return known  # that is enough not to run it; what only running shows is not held against it
    known += _speed(candidate, device, budget)
    return [*known, *_quality(candidate, budget)] if candidate.measurements else known


def _size(candidate: Candidate, device: Device, budget: Budget) -> Iterator[Violation]:
    if budget.max_size is not None and candidate.size > budget.max_size:
        yield Violation(
            f"its {megabytes(candidate.size)} are more than the {megabytes(budget.max_size)} asked for",
            f"a size limit of {megabytes(math.ceil(candidate.size / 1e6) * 1e6)}",
        )
    limit = device.limits.file_size
    if limit is not None and candidate.size > limit:
        yield Violation(
            f"one file may have at most {megabytes(limit)} on {device.title}, and it has "
            f"{megabytes(candidate.size)}",
            "a device without that limit, or a smaller model",
        )


def _memory(candidate: Candidate, device: Device, budget: Budget, context: int) -> Iterator[Violation]:
    usable = device.memory.usable
    if any(a.memory is not None and candidate.memory_needed <= a.memory for a in device.accelerators):
        usable = max(usable, candidate.memory_needed)
    limit = min(usable, budget.max_memory or usable)
    if candidate.memory_needed > limit:
        owner = "asked for" if limit == budget.max_memory else f"that {device.title} has for a model"
        yield Violation(
            f"it needs {megabytes(candidate.memory_needed)} at {context:,} tokens of context, more than the "
            f"{megabytes(limit)} {owner}",
            f"{megabytes(math.ceil(candidate.memory_needed / 1e6) * 1e6)} of memory or a shorter context",
        )


def _types(candidate: Candidate, device: Device) -> Iterator[Violation]:
    if avoided := [name for name in candidate.types if device.avoids(name)]:
        yield Violation(
            f"{', '.join(avoided)} should not run on {device.title}: {device.limits.reason}",
            "another device",
        )


def _speed(candidate: Candidate, device: Device, budget: Budget) -> Iterator[Violation]:
    if budget.min_speed is None:
        return
    rate = decode_speed(candidate, device)
    if rate is None:
        yield Violation("its speed was not measured", "no speed floor")
    elif rate.value < budget.min_speed:
        kind = "an estimated" if rate.estimated else "a measured"
        yield Violation(
            f"{kind} {figure(rate.value, 3)} tokens/s is below the floor of {budget.min_speed:g}",
            f"a speed floor of {_floored(rate.value):g} tokens/s",
        )


def _quality(candidate: Candidate, budget: Budget) -> Iterator[Violation]:
    for metric, floor, words in (
        ("agreement", budget.min_agreement, "agreement with the reference"),
        ("cosine", budget.min_cosine, "cosine to the reference"),
    ):
        if floor is None:
            continue
        value = candidate.value(metric)
        if value is None:
            yield Violation(f"its {words} was not measured", f"no floor for the {words}")
        elif value < floor:
            allowed = math.floor(value * 1000) / 1000
            yield Violation(
                f"its {words} of {value:.3f} is below the floor of {floor:g}", f"a floor of {allowed:g}"
            )
    if budget.max_kl is not None:
        value = candidate.value("kl_divergence")
        if value is None:
            yield Violation("its KL divergence was not measured", "no limit on the KL divergence")
        elif value > budget.max_kl:
            yield Violation(
                f"its KL divergence of {value:.3g} nats is above the limit of {budget.max_kl:g}",
                f"a KL limit of {math.ceil(value * 1000) / 1000:g} nats",
            )


def _floored(value: float) -> float:
    """Round down to two significant digits."""
    step = 10 ** (math.floor(math.log10(value)) - 1)
    return round(math.floor(value / step) * step, 6)
