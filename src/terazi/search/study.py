"""A study: which variants of a model are worth making for a device, and what is known before any runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from numbers import Integral
from typing import TYPE_CHECKING

from terazi.dtypes import dtype
from terazi.errors import UnsupportedError, UsageError
from terazi.formats import gguf
from terazi.model import Artifact
from terazi.model.memory import kv_cache_bytes, memory_needed
from terazi.quantize import PRESETS, Plan, make_plan, preset
from terazi.search.candidate import Candidate
from terazi.search.limits import violations
from terazi.search.onnx import (
    DEFAULT_ONNX,
    PREFIX,
    OnnxPlan,
    encoder_directory,
    obstacle,
    onnx_plan,
    predicted,
    variant_type,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from terazi.calibrate import Calibration
    from terazi.devices import Budget, Device, UseCase
    from terazi.model import Model

__all__ = ["DEFAULT_PRESETS", "THOROUGH_PRESETS", "Proposal", "Study", "of_model", "propose"]

DEFAULT_PRESETS = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "Q3_K_M", "Q2_K")
"""One preset per step of size, and Q4_0, which many processors decode fastest."""

THOROUGH_PRESETS = (
    *(
        "Q8_0",
        "Q6_K",
        "Q5_K_M",
        "Q5_K_S",
        "Q5_1",
        "Q5_0",
        "Q4_K_M",
        "Q4_K_S",
        "Q4_1",
        "Q4_0",
        "IQ4_NL",
        "IQ4_XS",
    ),
    *("Q3_K_L", "Q3_K_M", "Q3_K_S", "IQ3_M", "IQ3_XXS", "Q2_K", "IQ2_M", "IQ2_XS", "IQ1_M"),
)
"""Every usual preset; those that need importance are left out without it."""

_ENGINE_BYTES = 80_000_000  # llama.cpp's own code and state, beside the model
_UNQUANTIZED = {"F32": "F32", "F16": "F16", "BF16": "BF16"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A variant to make from ``plan``, or the source as it is (None); ``skipped`` says why not to run it."""

    candidate: Candidate
    plan: Plan | OnnxPlan | None
    skipped: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What will be compared, for whom. The first proposal is the source.

    ``name`` is what the user calls the source; ``digest`` the SHA-256 of its file, or of the sorted names and
    digests of several. ``presets`` are what was asked for, ``calibration`` weighs the rounding.
    """

    source: Model
    name: str
    digest: str
    proposals: tuple[Proposal, ...]
    device: Device
    use_case: UseCase
    budget: Budget
    context: int
    presets: tuple[str, ...]
    calibration: Calibration | None = None

    @property
    def runnable(self) -> list[Proposal]:
        """Proposals that will be made and measured."""
        return [proposal for proposal in self.proposals if proposal.skipped is None]


def propose(
    source: Model,
    name: str,
    device: Device,
    use_case: UseCase,
    budget: Budget,
    *,
    context: int | None = None,
    presets: Sequence[str] | None = None,
    calibration: Calibration | None = None,
) -> Study:
    """Plan every preset for a GGUF ``source`` and predict size and memory at ``context`` tokens.

    ``presets`` may name ONNX recipes too, as ``onnx:int8``; by default it is `DEFAULT_PRESETS`, and
    `DEFAULT_ONNX` for the Hugging Face directory of an encoder on a device that runs ONNX.
    What cannot fit the device or ``budget``, or would be the same as another, is kept with the reason.
    A context beyond what the model was trained for is cut to that.
    """
    if presets is None:
        onnx = encoder_directory(source) and "onnx" in device.formats
        presets = (*DEFAULT_PRESETS, *(DEFAULT_ONNX if onnx else ()))
    context = min(context or use_case.context, source.config.context_length or 1 << 62)
    if source.variant == "embedding" and use_case.task != "embed":
        raise UsageError(
            f"{source.name} makes embeddings; {use_case.title.lower()} needs a model that writes text",
            hint="use --use-case embeddings-search",
        )
    if use_case.task == "embed" and source.variant in ("base", "instruct"):
        raise UsageError(
            f"{source.name} writes text; {use_case.title.lower()} needs a model that makes embeddings",
            hint="use another --use-case, such as chat, or a model such as all-MiniLM-L6-v2",
        )
    limits = budget.over(use_case.floors)
    original = _original(source, context)
    seen: dict[tuple[str, ...], str] = {_types(source): original.candidate.label}
    proposals = [original]
    for wanted in dict.fromkeys(map(variant_type, presets)):
        if wanted.startswith(PREFIX):
            proposals.append(_onnx_variant(source, onnx_plan(wanted), device, limits, context))
            continue
        proposal = _variant(source, wanted, calibration, context)
        if proposal.plan is not None:
            proposal = _judged(proposal, seen, device, limits, context)
        proposals.append(_renamed(proposal, original))
    return Study(
        source=source,
        name=name,
        digest=Artifact.of_files(source.files, format=source.format).digest,
        proposals=tuple(proposals),
        device=device,
        use_case=use_case,
        budget=budget,
        context=context,
        presets=tuple(presets),
        calibration=calibration,
    )


def _original(source: Model, context: int) -> Proposal:
    """The source itself; one that was never GGUF is written in the type of most of its weights."""
    types = _weights((tensor.type, tensor.size) for tensor in source.tensors.values())
    main = max(types, key=lambda name: types[name])
    if not gguf.detect(source.files[0]):
        if main not in _UNQUANTIZED:
            raise UnsupportedError(f"{source.path}: weights of type {main} cannot be the reference")
        plan = make_plan(source, _UNQUANTIZED[main])
        return Proposal(candidate=_predicted(source, plan, main, context, source_itself=True), plan=plan)
    label = _preset_in_file(source) or main
    return Proposal(candidate=of_model(source, label, context, source=True), plan=None)


def _preset_in_file(source: Model) -> str | None:
    """Name the preset that a GGUF file says it was made with."""
    file_type = source.metadata.get("general.file_type")
    if not isinstance(file_type, Integral):
        return None
    return next((name for name, entry in PRESETS.items() if entry.file_type == file_type), None)


def of_model(model: Model, label: str, context: int, *, source: bool = False) -> Candidate:
    """Return what is known of a finished GGUF model before it runs."""
    return Candidate(
        label=label,
        size=sum(file.stat().st_size for file in model.files),
        bits_per_weight=model.bits_per_weight,
        memory_needed=memory_needed(model.nbytes, model.config, context).total + _ENGINE_BYTES,
        token_bytes=_token_bytes(
            ((name, tensor.nbytes) for name, tensor in model.tensors.items()), model, context
        ),
        types=_weights((tensor.type, tensor.size) for tensor in model.tensors.values()),
        source=source,
        path=model.files[0],
    )


def _variant(source: Model, name: str, calibration: Calibration | None, context: int) -> Proposal:
    try:
        plan = make_plan(source, name, calibration=calibration)
    except UsageError as error:
        empty = Candidate(
            label=name,
            size=0,
            bits_per_weight=preset(name).default.bits_per_weight,
            memory_needed=0,
            token_bytes=0,
            types={preset(name).type: 1},
            skipped=error.message,
        )
        return Proposal(candidate=empty, plan=None, skipped=error.message)
    return Proposal(candidate=_predicted(source, plan, name, context), plan=plan)


def _onnx_variant(source: Model, plan: OnnxPlan, device: Device, limits: Budget, context: int) -> Proposal:
    candidate = predicted(source, plan)
    reason = obstacle(source, device)
    if reason is not None:
        return Proposal(candidate=replace(candidate, skipped=reason), plan=plan, skipped=reason)
    problems = violations(candidate, device, limits, context)
    return Proposal(
        candidate=candidate, plan=plan, skipped="; ".join(problem.reason for problem in problems) or None
    )


def _judged(
    proposal: Proposal, seen: dict[tuple[str, ...], str], device: Device, limits: Budget, context: int
) -> Proposal:
    """Decide whether a variant is worth running."""
    plan = proposal.plan
    assert isinstance(plan, Plan)
    types = tuple(entry.type for entry in sorted(plan.entries, key=lambda entry: entry.name))
    if types in seen:
        reason = f"it would have the same types as {seen[types]}, tensor by tensor"
    elif unmet := _unmet(plan):
        reason = f"it needs an importance matrix (for {unmet})"
    else:
        seen[types] = plan.preset
        problems = violations(proposal.candidate, device, limits, context)
        return replace(proposal, skipped="; ".join(problem.reason for problem in problems) or None)
    return replace(proposal, candidate=replace(proposal.candidate, skipped=reason), skipped=reason)


def _unmet(plan: Plan) -> str:
    """Name a tensor that needs importance and gets none."""
    if plan.importance is not None:
        return ""
    unmet = plan.without_importance(None)
    return unmet[0].name if unmet else ""


def _renamed(proposal: Proposal, original: Proposal) -> Proposal:
    """Keep labels apart when a preset is called like the source's type."""
    if proposal.candidate.label != original.candidate.label:
        return proposal
    return replace(proposal, candidate=replace(proposal.candidate, label=f"{proposal.candidate.label} (new)"))


def _predicted(
    source: Model, plan: Plan, label: str, context: int, *, source_itself: bool = False
) -> Candidate:
    nbytes = sum(entry.nbytes for entry in plan.entries)
    return Candidate(
        label=label,
        size=plan.size,
        bits_per_weight=plan.bits_per_weight,
        memory_needed=memory_needed(nbytes, source.config, context).total + _ENGINE_BYTES,
        token_bytes=_token_bytes(((entry.name, entry.nbytes) for entry in plan.entries), source, context),
        types=_weights((entry.type, prod(entry.shape)) for entry in plan.entries),
        source=source_itself,
        notes=plan.notes,
        plan_digest=plan.digest,
    )


def _token_bytes(tensors: Iterable[tuple[str, int]], source: Model, context: int) -> int:
    """Bytes read to generate one token: active weights, and the cache of a half-full context.

    An encoder generates none: 0. One row of the embedding is read unless it is the output matrix as well; of
    experts, those in use.
    """
    if source.variant == "embedding":
        return 0
    config = source.config
    untied = "output.weight" in source.tensors
    active = config.experts_used / config.expert_count if config.expert_count else 1.0
    total = 0.0
    for name, nbytes in tensors:
        if name == "token_embd.weight" and untied:
            continue
        total += nbytes * (active if "_exps." in name else 1.0)
    return int(total) + kv_cache_bytes(config, max(context // 2, 1))


def _weights(tensors: Iterable[tuple[str, int]]) -> Mapping[str, int]:
    weights: dict[str, int] = {}
    for type, count in tensors:
        weights[type] = weights.get(type, 0) + count
    return weights


def _types(source: Model) -> tuple[str, ...]:
    return tuple(dtype(source.tensors[name].type).name for name in sorted(source.tensors))
