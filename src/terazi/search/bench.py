"""The real tools of a study: make, measure and ask in each format's engine; and the workspace for it."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from terazi.progress import Progress, silent
from terazi.search.answers import ask
from terazi.search.loop import Tools
from terazi.search.study import Study, propose
from terazi.search.variants import FORMATS
from terazi.search.variants.family import Making, RecipePlan
from terazi.search.workspace import Workspace, variant_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from terazi.evaluate import Measurement
    from terazi.quantize import Plan

__all__ = ["Settings", "calibrated", "open_workspace", "real_tools"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to measure.

    ``tokens`` of ``text`` (default: half of Python's documentation) in windows of ``window``; ``threads``
    (default: every processor); ``answer_tokens`` at most per sample answer; ``calibrate`` weighs the
    rounding by importance, collected on ``calibration_chunks`` of 512 tokens.
    """

    tokens: int = 2048
    window: int = 512
    text: Path | None = None
    threads: int | None = None
    answer_tokens: int = 48
    calibrate: bool = False
    calibration_chunks: int = 24


def open_workspace(study: Study, settings: Settings) -> Workspace:
    """Return the workspace of a study; findings hold for one machine, text and set of prompts."""
    from terazi.runtime.llamacpp import library

    everything = {
        "tokens": settings.tokens,
        "window": settings.window,
        "text": settings.text and hashlib.sha256(settings.text.read_bytes()).hexdigest(),
        "threads": settings.threads,
        "answer_tokens": settings.answer_tokens,
        "prompts": study.use_case.prompts,
        "machine": platform.node(),
        "runtime": library.version(),
    }
    return Workspace(study.digest, everything)


def calibrated(study: Study, settings: Settings, *, progress: Progress = silent) -> Study:
    """Return the same study with an importance matrix, collected once on the default text and kept."""
    from terazi.calibrate import calibration_corpus, collect, load, save

    corpus = calibration_corpus()
    folder = open_workspace(study, settings).folder
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / f"importance-{corpus.digest[:16]}-{settings.calibration_chunks}.gguf"
    if not kept.exists():
        found = collect(
            study.source.path,
            corpus,
            chunks=settings.calibration_chunks,
            threads=settings.threads,
            state=kept.with_suffix(".partial"),
            progress=progress,
        )
        save(kept, found)
    planned = propose(
        study.source,
        study.name,
        study.device,
        study.use_case,
        study.budget,
        context=study.context,
        types=study.types,
        calibration=load(kept),
    )
    return replace(planned, notes=study.notes)


def real_tools(
    study: Study,
    settings: Settings,
    *,
    progress: Progress = silent,
) -> Tools:
    """Return tools that work on the study's source and report to one progress."""
    from terazi.evaluate import evaluate

    tokenizer = study.source.tokenizer

    def quantize(plan: Plan | RecipePlan, path: Path) -> object:
        def beside(other: RecipePlan) -> Path:
            return path.with_name(variant_name(other.label, other.digest))

        making = Making(
            source=study.source,
            output=path,
            beside=beside,
            calibration=study.calibration,
            threads=settings.threads or 0,
            progress=progress,
        )
        format = plan.format if isinstance(plan, RecipePlan) else "gguf"
        return FORMATS[format].make(plan, making)

    def measure(path: Path, reference: Path | None) -> Sequence[Measurement]:
        return evaluate(
            path,
            reference=reference,
            text=settings.text,
            tokens=settings.tokens,
            context=settings.window,
            threads=settings.threads,
            progress=progress,
        )

    prompts = study.use_case.prompts if study.use_case.task == "generate" else ()
    return Tools(
        quantize=quantize,
        evaluate=measure,
        ask=partial(
            ask,
            prompts=prompts,
            chat=bool(tokenizer and tokenizer.chat_template),
            max_tokens=settings.answer_tokens,
            threads=settings.threads,
            progress=progress,
        ),
    )
