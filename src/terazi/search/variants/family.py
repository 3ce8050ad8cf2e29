"""What the variants of every format have in common: how they are named, proposed, made and described."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from terazi.model.memory import kv_cache_bytes, memory_needed
from terazi.quantize import Plan
from terazi.search.candidate import Candidate
from terazi.search.limits import violations

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from terazi.calibrate import Calibration
    from terazi.devices import Budget, Device
    from terazi.dtypes import Precision
    from terazi.model import Config, Model
    from terazi.progress import Progress

__all__ = [
    "Contents",
    "Family",
    "Frame",
    "Making",
    "Proposal",
    "RecipePlan",
    "Wanted",
    "as_found",
    "candidate",
    "missing_extras",
    "named_precision",
    "recipe_proposal",
]

_LEVELS: tuple[tuple[int, Precision], ...] = ((2, "ultra-low"), (4, "low"), (8, "medium"), (32, "full"))
_ENGINE_BYTES = 80_000_000  # llama.cpp's own code and state, beside the model


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipePlan:
    """How to make a variant by a named recipe of its format, such as ``int8`` of ONNX.

    ``digest`` covers the recipe and the versions of what carries it out: same source and digest, same model.
    """

    format: str
    recipe: str
    label: str
    bits: int
    digest: str

    @staticmethod
    def of(
        format: str, recipe: str, label: str, bits: int, details: Any, makers: Sequence[str]
    ) -> RecipePlan:
        """Plan a recipe whose outcome depends on ``details`` and on the versions of packages, the makers."""
        versions = {name: _version(name) for name in ("terazi", *makers)}
        key = json.dumps({"recipe": details, "makers": versions}, sort_keys=True)
        digest = hashlib.sha256(key.encode()).hexdigest()
        return RecipePlan(format=format, recipe=recipe, label=label, bits=bits, digest=digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A variant to make from ``plan``, or the source as it is (None); ``skipped`` says why not to run it."""

    candidate: Candidate
    plan: Plan | RecipePlan | None
    skipped: str | None = None

    def refused(self, reason: str) -> Proposal:
        """Return the same variant, not to be run."""
        return replace(self, candidate=replace(self.candidate, skipped=reason), skipped=reason)

    def within(self, wanted: Wanted) -> Proposal:
        """Return it with every limit that what is predicted breaks as the reason not to run it."""
        problems = violations(self.candidate, wanted.device, wanted.limits, wanted.context)
        return replace(self, skipped="; ".join(problem.reason for problem in problems) or None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What variants are proposed of and for: a model seen as GGUF, a device, limits, tokens of context."""

    source: Model
    device: Device
    limits: Budget
    context: int
    calibration: Calibration | None = None

    @property
    def embeds(self) -> bool:
        """Whether the model makes embeddings instead of text."""
        return self.source.variant == "embedding"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What finished files hold: bytes in all, of weights, and of weights that generating one token reads.

    ``types`` counts weights by type, ``level`` is the precision class where the type does not say it;
    ``operators`` counts those of a graph, ``exported`` those before operators were fused.
    """

    size: int
    weights: int
    read: int
    types: Mapping[str, int]
    level: Precision | None = None
    operators: Mapping[str, int] = field(default_factory=dict)
    exported: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What figures are computed for: a model's configuration and number of weights, tokens of context."""

    config: Config
    parameters: int
    context: int

    @staticmethod
    def of(model: Model, context: int) -> Frame:
        """Return the frame of all variants of a model."""
        return Frame(config=model.config, parameters=model.parameters, context=context)


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """Where a variant is made, and with what. ``beside`` gives the place of another variant that it needs."""

    source: Model
    output: Path
    beside: Callable[[RecipePlan], Path]
    calibration: Calibration | None
    threads: int
    progress: Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The variants of one format, and the engine that runs them.

    ``usual`` names those worth trying of a model, many with ``thorough``; ``spelled`` gives the one spelling
    of a name, None for another format's; ``obstacle`` says why none can be made here or run on the device.
    ``cache_bytes`` is the size of one number in the engine's KV cache; where ``peak_counts`` memory is the
    measured peak, and at least the weights and the cache before. A variant is a directory unless there is a
    ``suffix``.
    """

    format: str
    title: str
    engine: str
    suffix: str
    cache_bytes: float
    peak_counts: bool
    usual: Callable[[Model, bool], tuple[str, ...]]
    spelled: Callable[[str], str | None]
    obstacle: Callable[[Model, Device], str | None]
    propose: Callable[[Sequence[str], Wanted], list[Proposal]]
    make: Callable[[Any, Making], object]
    contents: Callable[[Model], Contents]


def candidate(family: Family, label: str, found: Contents, frame: Frame, **facts: Any) -> Candidate:
    """Describe a variant by what its files hold or will hold."""
    return Candidate(label=label, format=family.format, **_described(family, found, frame), **facts)


def as_found(found: Candidate, family: Family, contents: Contents, frame: Frame) -> Candidate:
    """Return a variant that ran, with what files and measurements say in place of predictions."""
    found = replace(found, **_described(family, contents, frame))
    peak = found.measured("peak_memory")
    if not family.peak_counts or peak is None:
        return found
    then = peak.conditions.get("context", frame.context)
    grown, held = (
        kv_cache_bytes(frame.config, tokens, value_bytes=family.cache_bytes)
        for tokens in (frame.context, then)
    )
    return replace(found, memory_needed=int(peak.value) + grown - held)


def _described(family: Family, found: Contents, frame: Frame) -> dict[str, Any]:
    """Return fields of a `Candidate`. What generates nothing reads 0 bytes a token."""
    width, config, context = family.cache_bytes, frame.config, frame.context
    cache = kv_cache_bytes(config, max(context // 2, 1), value_bytes=width)
    if family.peak_counts:
        memory = found.weights + kv_cache_bytes(config, context, value_bytes=width)  # at the least
    else:
        memory = memory_needed(found.weights, config, context).total + _ENGINE_BYTES
    return {
        "size": found.size,
        "bits_per_weight": 8 * found.weights / max(frame.parameters, 1),
        "memory_needed": memory,
        "token_bytes": found.read + cache if found.read else 0,
        "types": found.types,
        "level": found.level,
        "operators": found.operators,
        "exported": found.exported,
    }


def recipe_proposal(family: Family, plan: RecipePlan, found: Contents, wanted: Wanted) -> Proposal:
    """Propose a variant by recipe, of which lower bounds are predicted."""
    frame = Frame.of(wanted.source, wanted.context)
    described = candidate(family, plan.label, found, frame, plan_digest=plan.digest)
    proposal = Proposal(candidate=described, plan=plan)
    reason = family.obstacle(wanted.source, wanted.device)
    return proposal.refused(reason) if reason else proposal.within(wanted)


def named_precision(type: str) -> Precision:
    """Return the class of a type that has its bits in its name: ``I8``, ``U4``, ``F16``, ``affine 4-bit``."""
    found = re.search(r"\d+", type)
    bits = int(found[0]) if found else 64
    for most, level in _LEVELS:
        if bits <= most:
            return level
    return "exact"


def missing_extras(packages: Mapping[str, Sequence[str]]) -> str:
    """Name the extras, comma-separated, of which a package is not installed."""
    return ",".join(extra for extra, names in packages.items() if not all(map(_installed, names)))


def _installed(package: str) -> bool:
    return find_spec(package) is not None


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
