"""The loop: make each variant, measure it, keep what was found, recommend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from terazi.errors import EngineError, FormatError, MissingExtraError, UnsupportedError
from terazi.evaluate.measurement import Measurement
from terazi.files import sha256
from terazi.formats import open_model
from terazi.progress import Progress, silent
from terazi.quantize import Plan
from terazi.search.candidate import Candidate, Recommendation, Sample
from terazi.search.recommendation import recommend
from terazi.search.variants import FORMATS
from terazi.search.variants.family import Frame, RecipePlan, as_found
from terazi.search.workspace import Finding

if TYPE_CHECKING:
    from terazi.search.study import Study
    from terazi.search.variants.family import Proposal
    from terazi.search.workspace import Workspace

__all__ = ["Tools", "optimize", "pick_file"]

Quantize = Callable[[Plan | RecipePlan, Path], object]
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
    work = _Work(study, tools, workspace)
    reference = work.file(first)
    found = {first.candidate.label: work.studied(first, reference, None)}
    for done, proposal in enumerate((p for p in runnable if p is not first), start=1):
        progress("variants", done, total, unit="variants")
        try:
            found[proposal.candidate.label] = work.made_and_studied(proposal, reference)
        except (EngineError, FormatError, MissingExtraError, UnsupportedError) as error:
            found[proposal.candidate.label] = replace(proposal.candidate, failure=error.message)
    progress("variants", total, total, unit="variants")
    candidates = [found.get(p.candidate.label, p.candidate) for p in study.proposals]
    judged = recommend(candidates, study.device, study.use_case, study.budget, context=study.context)
    return replace(judged, caveats=(*judged.caveats, *study.notes))


def pick_file(
    recommendation: Recommendation, study: Study, tools: Tools, workspace: Workspace
) -> Path | None:
    """Return the file of the pick, made again when only its findings were kept; None without a pick."""
    if recommendation.pick is None:
        return None
    picked = recommendation.pick.candidate
    proposal = next(p for p in study.proposals if p.candidate.label == picked.label)
    return _Work(study, tools, workspace).file(proposal)


@dataclass(frozen=True, slots=True)
class _Work:
    """One study with the tools and the place to carry it out."""

    study: Study
    tools: Tools
    workspace: Workspace

    def file(self, proposal: Proposal) -> Path:
        """Return a variant's file or directory, written unless it is there: what exists is whole."""
        plan = proposal.plan
        if plan is None:
            return self.study.source.files[0]
        suffix = FORMATS[proposal.candidate.format].suffix
        path = self.workspace.file(proposal.candidate.label, plan.digest, suffix)
        if not path.exists():
            self.tools.quantize(plan, path)
        return path

    def made_and_studied(self, proposal: Proposal, reference: Path) -> Candidate:
        """Return what was found before, or make the variant and find it."""
        assert proposal.plan is not None
        if (kept := self.workspace.read(proposal.plan.digest)) is not None:
            return self._with(proposal, kept)
        return self.studied(proposal, self.file(proposal), reference)

    def studied(self, proposal: Proposal, path: Path, reference: Path | None) -> Candidate:
        """Measure a variant and ask it the prompts, unless that was done before."""
        key = proposal.plan.digest if proposal.plan is not None else "source"
        kept = self.workspace.read(key)
        if kept is None:
            contents = FORMATS[proposal.candidate.format].contents(open_model(path))
            measurements = tuple(self.tools.evaluate(path, reference))
            samples = tuple(self.tools.ask(path))
            digest = measurements[0].artifact if measurements else sha256(path)
            kept = Finding(digest, contents, measurements, samples)
            self.workspace.write(key, kept)
        return replace(self._with(proposal, kept), path=path)

    def _with(self, proposal: Proposal, found: Finding) -> Candidate:
        candidate = replace(
            proposal.candidate,
            digest=found.digest,
            measurements=found.measurements,
            samples=found.samples,
        )
        family = FORMATS[candidate.format]
        frame = Frame.of(self.study.source, self.study.context)
        return as_found(candidate, family, found.contents, frame)
