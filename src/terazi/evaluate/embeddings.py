"""Embedding models: how close vectors are to the reference's, and whether similarities keep their order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from terazi.calibrate.corpus import sentences
from terazi.errors import EngineError, UsageError
from terazi.evaluate.engines import open_engine
from terazi.evaluate.scores import mean

if TYPE_CHECKING:
    from terazi.evaluate.measurement import Measurement
    from terazi.evaluate.setting import Setting
    from terazi.evaluate.subject import Subject
    from terazi.progress import Progress

__all__ = ["measure", "rank_correlation"]

_SENTENCES = 128
_BATCH = 16


def measure(subject: Subject, reference: Subject, setting: Setting, progress: Progress) -> list[Measurement]:
    """Return the mean cosine to the reference over sentences, and the rank correlation of similarities."""
    texts = sentences(setting.corpus, _SENTENCES)
    base, _ = _embed(reference, texts, setting, progress)
    ours, runtime = _embed(subject, texts, setting, progress)
    if base.shape != ours.shape:
        raise UsageError(
            f"{subject.path} gives {ours.shape[1]} dimensions and its reference {base.shape[1]}",
            hint="compare variants of one model",
        )
    cosines = np.einsum("ij,ij->i", ours.astype(np.float64), base.astype(np.float64))
    found = mean(cosines)
    pairs = np.triu_indices(len(texts), 1)
    order = rank_correlation((ours @ ours.T)[pairs], (base @ base.T)[pairs])
    conditions = {
        "corpus": setting.corpus.name,
        "corpus_digest": setting.corpus.digest,
        "sentences": len(texts),
        "runtime": runtime,
        "reference": reference.path.name,
        "reference_digest": reference.digest,
        "reference_types": list(reference.types),
        "reference_quantized": reference.quantized,
    }
    return [
        subject.measured(
            "cosine",
            found.value,
            conditions | {"minimum": float(cosines.min())},
            device=setting.device,
            error=found.error,
            samples=len(texts),
        ),
        subject.measured("rank_correlation", order, conditions, device=setting.device, samples=len(pairs[0])),
    ]


def _embed(
    subject: Subject, texts: list[str], setting: Setting, progress: Progress
) -> tuple[np.ndarray, str]:
    parts = []
    with open_engine(subject, setting) as engine:
        for start in range(0, len(texts), _BATCH):
            parts.append(engine.embed(texts[start : start + _BATCH]))
            progress(subject.path.name, min(start + _BATCH, len(texts)), len(texts), unit="sentences")
    vectors = np.concatenate(parts)
    if not np.isfinite(vectors).all():
        raise EngineError(f"{subject.path} answers with something other than numbers")
    return vectors, engine.runtime


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return Spearman's rank correlation of two vectors; ties get their mean rank."""
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]
