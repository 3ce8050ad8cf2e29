"""Finished models side by side: the same measurements as a study, without making variants of one."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
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
    from collections.abc import Iterator, Mapping, Sequence

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
    with tempfile.TemporaryDirectory(prefix="terazi-") as temporary:
        entries = [
            _entry(labels[name], model, Path(temporary) / f"{number}.gguf", progress)
            for number, (name, model) in enumerate(models.items())
        ]
        _check_kinds(entries)
        trained = [e.given.config.context_length for e in entries if e.given.config.context_length]
        context = min([use_case.context, *trained])
        candidates = list(_candidates(entries, context, use_case, settings, progress))
    first = entries[0]
    free = replace(use_case, floors=Budget(), task="embed" if first.embeds else "generate")
    found = recommend(candidates, device, free, Budget(), context=context)
    rewritten = [entry.label for entry in entries if entry.run is not entry.given]
    if rewritten:
        note = f"Run as GGUF in llama.cpp, types kept: {', '.join(rewritten)}."
        found = replace(found, caveats=(*found.caveats, note))
    return found, first.given


def _candidates(
    entries: Sequence[_Entry], context: int, use_case: UseCase, settings: Settings, progress: Progress
) -> Iterator[Candidate]:
    first = entries[0]
    for number, entry in enumerate(entries):
        progress("models", number, len(entries), unit="models")
        frame = _frame(entry, first, context)
        family = FORMATS[entry.run.format]
        plain = candidate(
            family, entry.label, entry.contents, frame, source=entry is first, path=entry.given.path
        )
        try:
            found = _measured(plain, entry, first, use_case, settings, progress)
            yield as_found(found, family, entry.contents, frame)
        except (EngineError, MissingExtraError, UnsupportedError) as error:
            if entry is first:
                raise
            yield replace(plain, failure=error.message)
    progress("models", len(entries), len(entries), unit="models")


def _entry(label: str, model: Model, gguf: Path, progress: Progress) -> _Entry:
    """Look at a model; what no engine here compares is written as GGUF, its types kept."""
    run = model
    if model.format not in FORMATS:
        from terazi.convert.gguf import convert

        run = open_model(convert(model, gguf, progress=progress).path)
    return _Entry(label, model, run, FORMATS[run.format].contents(run))


def _check_kinds(entries: Sequence[_Entry]) -> None:
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
    counted = entry.run if first.run.format == "onnx" else first.run
    return Frame(config=entry.run.config, parameters=counted.parameters, context=context)


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
