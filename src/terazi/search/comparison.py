"""Finished models side by side: the same measurements as a study, without making variants of one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from terazi.devices import Budget
from terazi.errors import EngineError, MissingExtraError, UnsupportedError, UsageError
from terazi.formats import open_model
from terazi.progress import Progress, silent
from terazi.search.answers import ask
from terazi.search.recommendation import recommend
from terazi.search.variants import FORMATS
from terazi.search.variants.family import Frame, as_found, candidate

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from terazi.devices import Device, UseCase
    from terazi.model import Model
    from terazi.search.bench import Settings
    from terazi.search.candidate import Candidate, Recommendation
    from terazi.search.variants.family import Contents

__all__ = ["compare"]


@dataclass(frozen=True, slots=True)
class _Entry:
    """One of the models: as it was given, and as it runs (the same unless no engine reads it)."""

    label: str
    given: Model
    run: Model
    contents: Contents

    @property
    def path(self) -> Path:
        return self.run.path

    @property
    def embeds(self) -> bool:
        return self.contents.read == 0


def compare(
    paths: Mapping[str, Path],
    device: Device,
    use_case: UseCase,
    settings: Settings,
    *,
    progress: Progress = silent,
) -> tuple[Recommendation, Model]:
    """Measure models of any format by name; the first is the reference. Returns ranking and reference.

    Each runs in the engine of its format; a Hugging Face checkpoint is written as GGUF first, types kept. No
    limit applies. A model that does not run is kept with the reason, except the reference. Raises
    `UsageError` when some make embeddings and others write text.
    """
    if len(paths) < 2:
        raise UsageError("a comparison needs two models or more", hint="terazi compare a.gguf b.gguf")
    models = {name: open_model(path) for name, path in paths.items()}
    labels = _labels(models)
    entries = [_entry(labels[name], model, progress) for name, model in models.items()]
    _check_kinds(entries)
    first = entries[0]
    trained = [e.given.config.context_length for e in entries if e.given.config.context_length]
    context = min([use_case.context, *trained])
    candidates = []
    for number, entry in enumerate(entries):
        progress("models", number, len(entries), unit="models")
        plain = _plain(entry, first, context, source=number == 0)
        try:
            found = _measured(plain, entry, first, use_case, settings, progress)
            family = FORMATS[plain.format]
            candidates.append(as_found(found, family, entry.contents, _frame(entry, first, context)))
        except (EngineError, MissingExtraError, UnsupportedError) as error:
            if number == 0:
                raise
            candidates.append(replace(plain, failure=error.message))
    progress("models", len(entries), len(entries), unit="models")
    free = replace(use_case, floors=Budget(), task="embed" if first.embeds else use_case.task)
    return recommend(candidates, device, free, Budget(), context=context), first.given


def _entry(label: str, model: Model, progress: Progress) -> _Entry:
    run = model if model.format in FORMATS else _as_gguf(model, progress)
    return _Entry(label, model, run, FORMATS[run.format].contents(run))


def _as_gguf(model: Model, progress: Progress) -> Model:
    """Write a checkpoint that no engine here reads as GGUF, its types kept, unless that was done before."""
    from terazi.convert.gguf import convert
    from terazi.model import Artifact
    from terazi.search.workspace import Workspace

    digest = Artifact.of_files(model.files, format=model.format).digest
    path = Workspace(digest, {}).file(model.name, digest)
    if not path.exists():
        convert(model, path, progress=progress)
    return open_model(path)


def _check_kinds(entries: list[_Entry]) -> None:
    first = entries[0]
    for entry in entries:
        if entry.embeds != first.embeds:
            kinds = {True: "makes embeddings", False: "writes text"}
            raise UsageError(
                f"{entry.given.path} {kinds[entry.embeds]}, and {first.given.path} {kinds[first.embeds]}",
                hint="compare variants of one model",
            )


def _frame(entry: _Entry, first: _Entry, context: int) -> Frame:
    """Weights are counted in the reference where that tells: packed graphs do not say how many they have."""
    counted = first.run if first.run.format == "gguf" else entry.run
    return Frame(config=entry.run.config, parameters=counted.parameters, context=context)


def _plain(entry: _Entry, first: _Entry, context: int, *, source: bool) -> Candidate:
    return candidate(
        FORMATS[entry.run.format],
        entry.label,
        entry.contents,
        _frame(entry, first, context),
        source=source,
        path=entry.given.path,
        notes=("Run as GGUF in llama.cpp, its types kept.",) if entry.run is not entry.given else (),
    )


def _measured(
    candidate: Candidate,
    entry: _Entry,
    first: _Entry,
    use_case: UseCase,
    settings: Settings,
    progress: Progress,
) -> Candidate:
    from terazi.evaluate import evaluate

    measurements = evaluate(
        entry.path,
        reference=None if entry is first else first.path,
        text=settings.text,
        tokens=settings.tokens,
        context=settings.window,
        threads=settings.threads,
        progress=progress,
    )
    samples = []
    if not entry.embeds:
        tokenizer = entry.run.tokenizer
        samples = ask(
            entry.path,
            use_case.prompts,
            chat=bool(tokenizer and tokenizer.chat_template),
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


def _stem(path: Path) -> str:
    """A file's name; model.onnx, which all of them are called, by its directory's."""
    named = path.absolute().parent if path.name == "model.onnx" else path
    return named.name.removesuffix(".gguf")


def _labels(models: Mapping[str, Model]) -> dict[str, str]:
    """Short names that tell the models apart: the file's, or what the user wrote when those are the same."""
    stems = {name: _stem(model.path) for name, model in models.items()}
    common = len(set(stems.values())) < len(stems)
    return {name: name if common else stems[name] for name in models}
