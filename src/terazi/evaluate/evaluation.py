"""Everything that is measured about one model, reusing what was measured before."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from terazi.errors import UsageError
from terazi.evaluate.measurement import METRICS, Measurement
from terazi.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from terazi.evaluate.cache import Cache
    from terazi.evaluate.setting import Setting
    from terazi.evaluate.subject import Subject

__all__ = ["evaluate"]

_QUALITY = {"perplexity", "kl_divergence", "agreement", "cosine", "rank_correlation"}
_SHORTEST = 16  # tokens of a window
_SPEED = {"prefill_speed", "decode_speed", "latency", "load_time", "peak_memory"}


def evaluate(  # noqa: PLR0913
    path: Path | str,
    *,
    reference: Path | str | None = None,
    text: Path | str | None = None,
    tokens: int = 4096,
    context: int = 512,
    threads: int | None = None,
    device: str = "this-machine",
    metrics: Collection[str] | None = None,
    cache: Path | str | None = None,
    progress: Progress = silent,
) -> list[Measurement]:
    """Measure a model in its own engine and return what applies to it of `METRICS`.

    GGUF files run in llama.cpp, ONNX models in onnxruntime, MLX and Hugging Face directories in MLX.

    Size and bits per weight; for language models perplexity and, against a ``reference`` model of the same
    tokenizer, KL divergence and agreement; for embedding models with a reference cosine and rank correlation;
    speed, load time and peak memory in a process of their own. ``text`` is a UTF-8 file (default: half of
    Python's documentation), ``tokens`` of it are used in windows of ``context``, or of what the model was
    trained for where that is less. ``threads`` defaults to the processors this process may use; ``device``
    names the machine in the results. ``metrics`` limits what is measured. Finished measurements are kept in
    ``cache`` (a folder; default ``$TERAZI_HOME/cache``) and reused for files of the same digest and the same
    settings.

    Raises `EngineError` when the engine cannot run the model, `UsageError` when text or reference do not fit,
    `MissingExtraError` when the engine is not installed, `FormatError`, `NotFoundError` or `UnsupportedError`
    for what is no model to open.
    """
    from terazi.calibrate.corpus import evaluation_corpus, read_corpus
    from terazi.evaluate.cache import Cache
    from terazi.evaluate.setting import Setting
    from terazi.evaluate.subject import open_subject
    from terazi.runtime.engine import default_threads

    wanted = set(METRICS if metrics is None else metrics)
    if unknown := wanted - set(METRICS):
        raise UsageError(f"unknown metric {sorted(unknown)[0]!r}", hint=f"choose from {', '.join(METRICS)}")
    if context < _SHORTEST or tokens < 1:
        raise UsageError(f"{tokens} tokens in windows of {context} cannot be measured")
    subject = open_subject(path)
    store = Cache(cache)
    setting = Setting(
        corpus=read_corpus(text) if text is not None else evaluation_corpus(),
        tokens=tokens,
        context=context,
        threads=default_threads() if threads is None else threads,
        device=device,
    )
    found = _of_file(subject, device)
    if wanted & _QUALITY:
        against = open_subject(reference) if reference is not None else None
        trained = [each.context for each in (subject, against) if each and each.context >= _SHORTEST]
        windows = replace(setting, context=min([context, *trained]))
        found += _quality(subject, against, windows, store, progress)
    if wanted & _SPEED:
        found += _speed(subject, setting, store, progress)
    return [measurement for measurement in found if measurement.metric in wanted]


def _of_file(subject: Subject, device: str) -> list[Measurement]:
    conditions = {
        "parameters": subject.parameters,
        "types": list(subject.types),
        "weights": subject.weights,
    }
    values = {"size": float(subject.size), "bits_per_weight": subject.bits_per_weight}
    return [subject.measured(metric, value, conditions, device=device) for metric, value in values.items()]


def _quality(
    subject: Subject, reference: Subject | None, setting: Setting, store: Cache, progress: Progress
) -> list[Measurement]:
    from terazi.evaluate import embeddings, language
    from terazi.evaluate.engines import runtime_version

    question = {
        "kind": "embeddings" if subject.embeds else "language",
        "model": subject.digest,
        "reference": reference.digest if reference else None,
        "runtime": runtime_version(subject),
        **setting.question,
    }
    if reference is not None and reference.embeds != subject.embeds:
        raise UsageError(
            f"{subject.path} and {reference.path}: one makes embeddings, the other writes text",
            hint="compare variants of one model",
        )
    if not subject.embeds:
        return _once(store, question, lambda: language.measure(subject, reference, setting, store, progress))
    if reference is None:
        return []
    return _once(store, question, lambda: embeddings.measure(subject, reference, setting, progress))


def _speed(subject: Subject, setting: Setting, store: Cache, progress: Progress) -> list[Measurement]:
    import platform

    from terazi.evaluate import speed
    from terazi.evaluate.engines import runtime_version

    question = {
        "kind": "speed",
        "model": subject.digest,
        "context": setting.context,
        "threads": setting.threads,
        "machine": platform.node(),
        "runtime": runtime_version(subject),
    }
    return _once(store, question, lambda: speed.measure(subject, setting, progress))


def _once(
    store: Cache, question: dict[str, Any], answer: Callable[[], list[Measurement]]
) -> list[Measurement]:
    """Return the earlier answer to a question, or find and keep it."""
    kept = store.read(question)
    if kept is None:
        kept = answer()
        store.write(question, kept)
    return kept
