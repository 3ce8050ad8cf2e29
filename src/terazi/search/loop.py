"""The loop: make each variant, measure it, keep what was found, recommend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from terazi.errors import EngineError, FormatError, UnsupportedError
from terazi.evaluate.measurement import Measurement
from terazi.files import sha256
from terazi.progress import Progress, silent
from terazi.quantize import Plan
from terazi.search.candidate import Candidate, Recommendation, Sample
from terazi.search.onnx import OnnxPlan, as_measured
from terazi.search.recommendation import recommend

if TYPE_CHECKING:
    from terazi.search.study import Proposal, Study
    from terazi.search.workspace import Workspace

__all__ = ["Tools", "optimize", "pick_file"]

Quantize = Callable[[Plan | OnnxPlan, Path], object]
Evaluate = Callable[[Path, Path | None], Sequence[Measurement]]
Ask = Callable[[Path], Sequence[Sample]]


@dataclass(frozen=True, slots=True)
class Tools:
    """What the loop calls: make what a plan says; measure it against a reference; ask it the prompts."""

    quantize: Quantize
    evaluate: Evaluate
    ask: Ask


def optimize(
    study: Study, tools: Tools, workspace: Workspace, *, progress: Progress = silent
) -> Recommendation:
    """Run a study and recommend. The source must run; a variant that fails is kept with the reason.

    Whatever was found before under the same settings is reused, so a run that was stopped goes on.
    """
    runnable = study.runnable
    total = len(runnable)
    progress("variants", 0, total, unit="variants")
    first = study.proposals[0]
    reference = _source_file(study, first, tools, workspace)
    found = {first.candidate.label: _studied(first, reference, None, tools, workspace)}
    for done, proposal in enumerate((p for p in runnable if p is not first), start=1):
        progress("variants", done, total, unit="variants")
        try:
            found[proposal.candidate.label] = _made_and_studied(proposal, reference, tools, workspace)
        except (EngineError, FormatError, UnsupportedError) as error:
            found[proposal.candidate.label] = replace(proposal.candidate, failure=error.message)
    progress("variants", total, total, unit="variants")
    candidates = [found.get(p.candidate.label, p.candidate) for p in study.proposals]
    return recommend(candidates, study.device, study.use_case, study.budget, context=study.context)


def _source_file(study: Study, source: Proposal, tools: Tools, workspace: Workspace) -> Path:
    """The file that others are compared with: the source, or the source written as GGUF."""
    if source.plan is None:
        return study.source.files[0]
    return _made(source, source.plan, tools, workspace)


def _made_and_studied(proposal: Proposal, reference: Path, tools: Tools, workspace: Workspace) -> Candidate:
    assert proposal.plan is not None
    if (kept := workspace.read(proposal.plan.digest)) is not None:
        return _with(proposal.candidate, *kept)
    return _studied(proposal, _made(proposal, proposal.plan, tools, workspace), reference, tools, workspace)


def _made(proposal: Proposal, plan: Plan | OnnxPlan, tools: Tools, workspace: Workspace) -> Path:
    """Write the variant unless it is there. Files appear only when complete, so one that exists is whole."""
    suffix = "" if isinstance(plan, OnnxPlan) else ".gguf"
    path = workspace.file(proposal.candidate.label, plan.digest, suffix)
    if not path.exists():
        tools.quantize(plan, path)
    return path


def _studied(
    proposal: Proposal, path: Path, reference: Path | None, tools: Tools, workspace: Workspace
) -> Candidate:
    """Measure one file and ask it the prompts, unless that was done before."""
    key = proposal.plan.digest if proposal.plan is not None else "source"
    kept = workspace.read(key)
    if kept is None:
        measurements = list(tools.evaluate(path, reference))
        samples = list(tools.ask(path))
        digest = measurements[0].artifact if measurements else sha256(path)
        workspace.write(key, digest, measurements, samples)
        kept = digest, measurements, samples
    return replace(_with(proposal.candidate, *kept), path=path)


def _with(
    candidate: Candidate, digest: str, measurements: Sequence[Measurement], samples: Sequence[Sample]
) -> Candidate:
    found = replace(candidate, digest=digest, measurements=tuple(measurements), samples=tuple(samples))
    return as_measured(found) if candidate.format == "onnx" else found


def pick_file(
    recommendation: Recommendation, study: Study, tools: Tools, workspace: Workspace
) -> Path | None:
    """Return the file of the pick, made again when only its findings were kept; None without a pick."""
    if recommendation.pick is None:
        return None
    picked = recommendation.pick.candidate
    proposal = next(p for p in study.proposals if p.candidate.label == picked.label)
    if proposal.plan is None:
        return study.source.files[0]
    return _made(proposal, proposal.plan, tools, workspace)
