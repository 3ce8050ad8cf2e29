"""Finished files side by side: the same measurements as a study, without making anything."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from terazi.devices import Budget
from terazi.errors import EngineError, UsageError
from terazi.formats import open_model
from terazi.progress import Progress, silent
from terazi.search.answers import ask
from terazi.search.recommendation import recommend
from terazi.search.study import of_model

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from terazi.devices import Device, UseCase
    from terazi.model import Model
    from terazi.search.bench import Settings
    from terazi.search.candidate import Candidate, Recommendation

__all__ = ["compare"]


def compare(
    paths: Mapping[str, Path],
    device: Device,
    use_case: UseCase,
    settings: Settings,
    *,
    progress: Progress = silent,
) -> tuple[Recommendation, Model]:
    """Measure GGUF files by name; the first is the reference. Returns the ranking and the reference's model.

    No limit applies. A file that does not run is kept with the reason, except the reference.
    """
    if len(paths) < 2:
        raise UsageError("a comparison needs two models or more", hint="terazi compare a.gguf b.gguf")
    models = {name: open_model(path) for name, path in paths.items()}
    original = next(iter(models.values()))
    labels = _labels(models)
    trained = [model.config.context_length for model in models.values() if model.config.context_length]
    context = min([use_case.context, *trained])
    candidates = []
    for number, (name, model) in enumerate(models.items()):
        progress("models", number, len(models), unit="models")
        candidate = of_model(model, labels[name], context, source=number == 0)
        try:
            candidate = _measured(candidate, model, original, use_case, settings, progress)
        except EngineError as error:
            if number == 0:
                raise
            candidate = replace(candidate, failure=error.message)
        candidates.append(candidate)
    progress("models", len(models), len(models), unit="models")
    free = replace(use_case, floors=Budget())
    return recommend(candidates, device, free, Budget(), context=context), original


def _measured(
    candidate: Candidate,
    model: Model,
    original: Model,
    use_case: UseCase,
    settings: Settings,
    progress: Progress,
) -> Candidate:
    from terazi.evaluate import evaluate

    measurements = evaluate(
        model.files[0],
        reference=None if model is original else original.files[0],
        text=settings.text,
        tokens=settings.tokens,
        context=settings.window,
        threads=settings.threads,
        progress=progress,
    )
    samples = []
    if model.variant != "embedding":
        samples = ask(
            model.files[0],
            use_case.prompts,
            chat=bool(model.tokenizer and model.tokenizer.chat_template),
            max_tokens=settings.answer_tokens,
            threads=settings.threads,
            progress=progress,
        )
    return replace(
        candidate,
        measurements=tuple(measurements),
        samples=tuple(samples),
        digest=measurements[0].artifact,
    )


def _labels(models: Mapping[str, Model]) -> dict[str, str]:
    """Short names that tell the models apart: the file's, or what the user wrote when those are the same."""
    stems = {name: model.files[0].name.removesuffix(".gguf") for name, model in models.items()}
    common = len(set(stems.values())) < len(stems)
    return {name: name if common else stems[name] for name in models}
