"""Perplexity and KL divergence as llama-perplexity defines them: from logits to statistics.

Definitions follow ``tools/perplexity/perplexity.cpp`` of llama.cpp. Sums run in float64. Standard errors take
tokens as independent, as there: neighbouring tokens are not quite, so the true error is somewhat larger.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from terazi.evaluate.logprobs import decode

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Estimate", "TokenScores", "compare", "concatenate", "mean", "perplexity", "score", "statistics"]

# Base tokens rarer than this are left out of the divergence: the stored form cannot tell them apart.
_LOWEST_LOG_PROBABILITY = np.float32(-16)
_BLOCK_VALUES = 1 << 19
_PERCENTILES = (0.1, 1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9)


@dataclass(frozen=True, slots=True)
class TokenScores:
    """One value per scored token, float64[n].

    ``nll`` is the negative log-probability of the token that follows. The others are None unless there is a
    reference: its ``base_nll``, the divergence ``kld`` (nats), ``delta_p`` (difference of the probabilities
    of the token that follows), and ``same_top`` (bool: the likeliest token is the same).
    """

    nll: np.ndarray
    base_nll: np.ndarray | None = None
    kld: np.ndarray | None = None
    delta_p: np.ndarray | None = None
    same_top: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and one standard error."""

    value: float
    error: float


def score(logits: np.ndarray, targets: np.ndarray) -> TokenScores:
    """Score logits float32[n, vocabulary] against the tokens that follow, int32[n]."""
    nll = np.empty(len(logits))
    for rows in _blocks(logits):
        block = logits[rows]
        chosen = np.take_along_axis(block, targets[rows, None], axis=1)[:, 0]
        nll[rows] = _log_sum_exp(block) - chosen.astype(np.float64)
    return TokenScores(nll)


def compare(logits: np.ndarray, base: np.ndarray, targets: np.ndarray) -> TokenScores:
    """Score logits float32[n, vocabulary] against stored log-probabilities uint16[n, stored] and int32[n].

    The divergence is ``sum(p * (log p - log q))`` over tokens with ``log p > -16``, p being the reference.
    """
    count, vocabulary = logits.shape
    nll, base_nll, kld, same = np.empty(count), np.empty(count), np.empty(count), np.empty(count, bool)
    for rows in _blocks(logits):
        block = logits[rows]
        total = _log_sum_exp(block)
        chosen = targets[rows, None]
        nll[rows] = total - np.take_along_axis(block, chosen, axis=1)[:, 0]
        reference = decode(base[rows], vocabulary)
        base_nll[rows] = -np.take_along_axis(reference, chosen, axis=1)[:, 0].astype(np.float64)
        same[rows] = block.argmax(axis=1) == reference.argmax(axis=1)
        weight = np.exp(reference)
        rare = reference <= _LOWEST_LOG_PROBABILITY
        reference -= block
        reference += total.astype(np.float32)[:, None]
        reference *= weight
        reference[rare] = 0
        kld[rows] = reference.sum(axis=1, dtype=np.float64)
    return TokenScores(nll, base_nll, kld, np.exp(-nll) - np.exp(-base_nll), same)


def _blocks(logits: np.ndarray) -> list[slice]:
    """Rows that stay in the processor's cache while several passes go over them."""
    step = max(1, _BLOCK_VALUES // logits.shape[1])
    return [slice(start, start + step) for start in range(0, len(logits), step)]


def _log_sum_exp(block: np.ndarray) -> np.ndarray:
    """Return float64[rows]: the logarithm of the sum of exponentials."""
    highest = block.max(axis=1, keepdims=True)
    total = np.exp(block - highest).sum(axis=1, dtype=np.float64)
    return highest[:, 0] + np.log(total)


def concatenate(scores: Sequence[TokenScores]) -> TokenScores:
    """Join scores of consecutive windows."""

    def joined(name: str) -> np.ndarray | None:
        parts = [getattr(part, name) for part in scores]
        return None if parts[0] is None else np.concatenate(parts)

    nll = joined("nll")
    assert nll is not None
    return TokenScores(nll, joined("base_nll"), joined("kld"), joined("delta_p"), joined("same_top"))


def mean(values: np.ndarray) -> Estimate:
    """Return the mean and its standard error, ``sqrt(variance / (n - 1))``."""
    values = values.astype(np.float64)
    return Estimate(float(values.mean()), math.sqrt(float(values.var()) / max(len(values) - 1, 1)))


def perplexity(nll: np.ndarray) -> Estimate:
    """Return ``exp(mean nll)`` and its propagated standard error."""
    log = mean(nll)
    value = math.exp(min(log.value, 700.0))  # beyond that a float ends, and so does any meaning
    return Estimate(value, value * log.error)


def statistics(scores: TokenScores) -> dict[str, float]:
    """Return what llama-perplexity prints for a comparison, under plain names; probabilities as fractions.

    ``log_ratio`` is the mean of ln(PPL / base PPL); its error accounts for the correlation of the two.
    """
    assert scores.base_nll is not None
    assert scores.kld is not None
    assert scores.delta_p is not None
    base = perplexity(scores.base_nll)
    ratio = mean(scores.nll - scores.base_nll)
    squared = mean(scores.delta_p**2)
    rms = math.sqrt(squared.value)
    delta = mean(scores.delta_p)
    spread = scores.nll.std() * scores.base_nll.std()
    covariance = float(((scores.nll - scores.nll.mean()) * (scores.base_nll - scores.base_nll.mean())).mean())
    result = {
        "base_perplexity": base.value,
        "base_perplexity_error": base.error,
        "log_ratio": ratio.value,
        "log_ratio_error": ratio.error,
        "log_ratio_correlation": float(covariance / spread) if spread > 0 else 1.0,
        "kld_minimum": float(scores.kld.min()),
        "kld_maximum": float(scores.kld.max()),
        "delta_p_mean": delta.value,
        "delta_p_mean_error": delta.error,
        "delta_p_rms": rms,
        "delta_p_rms_error": 0.5 / rms * squared.error if rms > 0 else 0.0,
    }
    for name, values in (("kld", scores.kld), ("delta_p", scores.delta_p)):
        found = np.percentile(values, _PERCENTILES)
        for percentile, value in zip(_PERCENTILES, found, strict=True):
            result[f"{name}_{'median' if percentile == 50 else f'p{percentile:g}'}"] = float(value)
    return result
