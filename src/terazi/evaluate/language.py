"""Language models: perplexity, KL divergence to a reference and agreement, window by window."""

from __future__ import annotations

import json
import os
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from terazi.errors import EngineError, FormatError, UsageError
from terazi.evaluate import logprobs, scores
from terazi.evaluate.engines import open_engine, runtime_version
from terazi.evaluate.windows import windows
from terazi.files import write_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from terazi.evaluate.cache import Cache
    from terazi.evaluate.measurement import Measurement
    from terazi.evaluate.setting import Setting
    from terazi.evaluate.subject import Subject
    from terazi.progress import Progress
    from terazi.runtime.engine import Engine

__all__ = ["measure", "reference_file"]


def measure(
    subject: Subject, reference: Subject | None, setting: Setting, cache: Cache, progress: Progress
) -> list[Measurement]:
    """Return perplexity, and with a reference also KL divergence and agreement.

    Raises `UsageError` when the two models cut the text into different tokens, `EngineError` when the model
    does not run or answers with something other than numbers.
    """
    base, floor = None, {}
    if reference is not None:
        path = reference_file(reference, setting, cache, progress)
        base, floor = logprobs.open_file(path), _floor(path)
    found = []
    with open_engine(subject, setting) as engine:
        cut = windows(engine, setting.corpus, tokens=setting.tokens, context=setting.context)
        if base is not None and not (
            base.vocabulary == engine.vocabulary and np.array_equal(base.tokens, cut)
        ):
            raise UsageError(
                f"{subject.path} and its reference cut the text into different tokens",
                hint="compare variants of one model, with one tokenizer",
            )
        for window, rows, logits in _run(engine, cut, subject.path.name, progress):
            targets = _following(cut)[window, rows]
            if base is None:
                found.append(scores.score(logits, targets))
            else:
                found.append(scores.compare(logits, base.rows[window, rows], targets))
            _check(found[-1], subject)
        conditions = {
            "corpus": setting.corpus.name,
            "corpus_digest": setting.corpus.digest,
            "context": setting.context,
            "windows": len(cut),
            "runtime": engine.runtime,
            "threads": engine.threads,
        }
    return _measurements(scores.concatenate(found), subject, reference, setting.device, conditions, floor)


def _following(cut: np.ndarray) -> np.ndarray:
    """Return the tokens that scored positions predict: int32[windows, scored]."""
    return cut[:, logprobs.first_scored(cut.shape[1]) + 1 :]


def _run(
    engine: Engine, cut: np.ndarray, name: str, progress: Progress
) -> Iterator[tuple[int, slice, np.ndarray]]:
    """Yield window, rows of its scored positions, and their logits float32[n, vocabulary].

    As in llama-perplexity the begin token, when the model wants one, takes the place of the first token.
    """
    count, context = cut.shape
    first = logprobs.first_scored(context)
    asked = cut.copy()
    if engine.begin_token is not None:
        asked[:, 0] = engine.begin_token
    window, row, scored = 0, 0, context - 1 - first
    progress(name, 0, cut.size, unit="tokens")
    for logits in engine.stream_logits(asked, first=first):
        used = logits[: scored - row]  # the last position has no token to predict
        if len(used):
            yield window, slice(row, row + len(used)), used
        row += len(logits)
        if row > scored:
            window, row = window + 1, 0
            progress(name, window * context, count * context, unit="tokens")


def reference_file(reference: Subject, setting: Setting, cache: Cache, progress: Progress) -> Path:
    """Return the reference's stored log-probabilities, running the reference when they are not there yet."""
    question = {"kind": "logprobs", "model": reference.digest, "runtime": runtime_version(reference)}
    path = cache.path(question | setting.question, ".kld")
    try:
        logprobs.open_file(path)
        _floor(path)
        os.utime(path)
    except (OSError, FormatError, ValueError, KeyError):
        pass
    else:
        return path
    found = []
    with open_engine(reference, setting) as engine:
        cut = windows(engine, setting.corpus, tokens=setting.tokens, context=setting.context)
        with logprobs.write_file(path, cut, engine.vocabulary) as file:
            for window, rows, logits in _run(engine, cut, f"{reference.path.name} (reference)", progress):
                stored = logprobs.encode(logits)
                file.write(stored.data)
                found.append(scores.compare(logits, stored, _following(cut)[window, rows]))
                _check(found[-1], reference)
    _write_floor(path, scores.concatenate(found))
    cache.trim(path)
    return path


def _check(found: scores.TokenScores, subject: Subject) -> None:
    if not np.isfinite(found.nll).all():
        raise EngineError(f"{subject.path} answers with something other than numbers")


def _write_floor(path: Path, found: scores.TokenScores) -> None:
    """Keep what the reference scores against its own stored form: what 16-bit codes alone cost."""
    assert found.kld is not None
    assert found.same_top is not None
    divergence, agreement = scores.mean(found.kld), scores.mean(found.same_top)
    floor = {
        "floor": divergence.value,
        "floor_error": divergence.error,
        "floor_agreement": agreement.value,
    }
    write_text(path.with_suffix(".json"), json.dumps(floor), force=True)


def _floor(path: Path) -> dict[str, float]:
    floor = json.loads(path.with_suffix(".json").read_text())
    return {name: float(floor[name]) for name in ("floor", "floor_error", "floor_agreement")}


def _measurements(
    found: scores.TokenScores,
    subject: Subject,
    reference: Subject | None,
    device: str,
    conditions: dict[str, Any],
    floor: dict[str, float],
) -> list[Measurement]:
    measured = partial(subject.measured, device=device, samples=len(found.nll))

    def estimated(metric: str, estimate: scores.Estimate, more: dict[str, Any]) -> Measurement:
        return measured(metric, estimate.value, conditions | more, error=estimate.error)

    result = [estimated("perplexity", scores.perplexity(found.nll), {})]
    if reference is not None and found.kld is not None and found.same_top is not None:
        about = floor | {
            "reference": reference.path.name,
            "reference_digest": reference.digest,
            "reference_types": list(reference.types),
            "reference_quantized": reference.quantized,
        }
        compared = about | scores.statistics(found)
        result.append(estimated("kl_divergence", scores.mean(found.kld), compared))
        result.append(estimated("agreement", scores.mean(found.same_top), about))
    return result
