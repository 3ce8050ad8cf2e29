"""GGUF variants: planned preset by preset, exact in size before they are made; run in llama.cpp."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from numbers import Integral
from typing import TYPE_CHECKING, Any

from terazi.dtypes import dtype
from terazi.errors import UnsupportedError, UsageError
from terazi.formats import gguf
from terazi.quantize import PRESETS, Plan, apply, make_plan, preset
from terazi.search.candidate import Candidate
from terazi.search.variants.family import Contents, Family, Frame, Proposal, candidate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from terazi.devices import Device
    from terazi.model import Model
    from terazi.search.variants.family import Making, Wanted

__all__ = ["DEFAULT_PRESETS", "FAMILY", "THOROUGH_PRESETS", "of_model", "original"]

DEFAULT_PRESETS = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "Q3_K_M", "Q2_K")
"""One preset per step of size, and Q4_0, which many processors decode fastest."""

THOROUGH_PRESETS = (
    *("Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0", "IQ4_NL"),
    *("IQ4_XS", "Q3_K_L", "Q3_K_M", "Q3_K_S", "IQ3_M", "IQ3_XXS", "Q2_K", "IQ2_M", "IQ2_XS", "IQ1_M"),
)
"""Every usual preset; those that need importance are left out without it."""

_UNQUANTIZED = ("F32", "F16", "BF16")


def original(source: Model, context: int) -> Proposal:
    """Propose the source itself; one that was never GGUF is written in the type of most of its weights."""
    types = _weights((tensor.type, tensor.size) for tensor in source.tensors.values())
    main = max(types, key=lambda name: types[name])
    if gguf.detect(source.files[0]):
        label = _preset_in_file(source) or main
        return Proposal(candidate=of_model(source, label, context, source=True), plan=None)
    if main not in _UNQUANTIZED:
        raise UnsupportedError(f"{source.path}: weights of type {main} cannot be the reference")
    plan = make_plan(source, main)
    return Proposal(candidate=_predicted(source, plan, main, context, source=True), plan=plan)


def of_model(model: Model, label: str, context: int, **facts: Any) -> Candidate:
    """Return what is known of a finished GGUF model before it runs."""
    frame = Frame.of(model, context)
    return candidate(FAMILY, label, _contents(model), frame, path=model.files[0], **facts)


def _propose(names: Sequence[str], wanted: Wanted) -> list[Proposal]:
    """Plan presets; what would be the same as the source or another, tensor by tensor, is not run."""
    source = wanted.source
    first = original(source, wanted.context).candidate.label
    seen = {tuple(dtype(source.tensors[name].type).name for name in sorted(source.tensors)): first}
    found = []
    for name in names:
        proposal = _judged(_variant(name, wanted), seen, wanted)
        if name == first:  # a preset that is called like the source's type
            proposal = replace(proposal, candidate=replace(proposal.candidate, label=f"{name} (new)"))
        found.append(proposal)
    return found


def _variant(name: str, wanted: Wanted) -> Proposal:
    try:
        plan = make_plan(wanted.source, name, calibration=wanted.calibration)
    except UsageError as error:
        empty = Candidate(
            label=name,
            size=0,
            bits_per_weight=preset(name).default.bits_per_weight,
            memory_needed=0,
            token_bytes=0,
            types={preset(name).type: 1},
        )
        return Proposal(candidate=empty, plan=None).refused(error.message)
    return Proposal(candidate=_predicted(wanted.source, plan, name, wanted.context), plan=plan)


def _judged(proposal: Proposal, seen: dict[tuple[str, ...], str], wanted: Wanted) -> Proposal:
    """Decide whether a variant is worth running."""
    plan = proposal.plan
    if not isinstance(plan, Plan):
        return proposal
    types = tuple(entry.type for entry in sorted(plan.entries, key=lambda entry: entry.name))
    if types in seen:
        return proposal.refused(f"it would have the same types as {seen[types]}, tensor by tensor")
    unmet = plan.without_importance(None) if plan.importance is None else []
    if unmet:
        return proposal.refused(f"it needs an importance matrix (for {unmet[0].name})")
    seen[types] = plan.preset
    return proposal.within(wanted)


def _make(plan: Plan, making: Making) -> object:
    weighed = making.calibration if plan.importance is not None else None
    return apply(plan, making.source, making.output, calibration=weighed, progress=making.progress)


def _preset_in_file(source: Model) -> str | None:
    """Name the preset that a GGUF file says it was made with."""
    file_type = source.metadata.get("general.file_type")
    if not isinstance(file_type, Integral):
        return None
    return next((name for name, entry in PRESETS.items() if entry.file_type == file_type), None)


def _predicted(model: Model, plan: Plan, label: str, context: int, **facts: Any) -> Candidate:
    found = Contents(
        size=plan.size,
        weights=sum(entry.nbytes for entry in plan.entries),
        read=_read_bytes(((entry.name, entry.nbytes) for entry in plan.entries), model),
        types=_weights((entry.type, prod(entry.shape)) for entry in plan.entries),
    )
    frame = Frame.of(model, context)
    return candidate(FAMILY, label, found, frame, notes=plan.notes, plan_digest=plan.digest, **facts)


def _contents(model: Model) -> Contents:
    tensors = model.tensors.values()
    return Contents(
        size=sum(file.stat().st_size for file in model.files),
        weights=model.nbytes,
        read=_read_bytes(((tensor.name, tensor.nbytes) for tensor in tensors), model),
        types=_weights((tensor.type, tensor.size) for tensor in tensors),
    )


def _read_bytes(tensors: Iterable[tuple[str, int]], model: Model) -> int:
    """Count the active weights of one token; an encoder generates none.

    One row of the embedding is read unless it is the output matrix as well; of experts, those in use.
    """
    if model.variant == "embedding":
        return 0
    config = model.config
    untied = "output.weight" in model.tensors
    active = config.experts_used / config.expert_count if config.expert_count else 1.0
    total = 0.0
    for name, nbytes in tensors:
        if name == "token_embd.weight" and untied:
            continue
        total += nbytes * (active if "_exps." in name else 1.0)
    return int(total)


def _weights(tensors: Iterable[tuple[str, int]]) -> Mapping[str, int]:
    weights: dict[str, int] = {}
    for type, count in tensors:
        weights[type] = weights.get(type, 0) + count
    return weights


def _usual(source: Model, thorough: bool) -> tuple[str, ...]:
    return THOROUGH_PRESETS if thorough else DEFAULT_PRESETS


def _spelled(name: str) -> str:
    return preset(name).name


def _obstacle(source: Model, device: Device) -> str | None:
    return None if "gguf" in device.formats else f"nothing on {device.title} runs GGUF"


FAMILY = Family(
    format="gguf",
    title="GGUF",
    engine="llama.cpp",
    suffix=".gguf",
    cache_bytes=2,
    peak_counts=False,
    usual=_usual,
    spelled=_spelled,
    obstacle=_obstacle,
    propose=_propose,
    make=_make,
    contents=_contents,
)
