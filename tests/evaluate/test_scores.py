"""Scores and statistics against the definitions, written out value by value."""

import math
import tracemalloc

import numpy as np
import pytest

from terazi.evaluate import logprobs, scores


@pytest.fixture
def pair():
    """Logits of a reference and of a variant near it, and tokens that follow as the reference expects."""
    rng = np.random.default_rng(1)
    reference = (rng.normal(size=(200, 333)) * 4).astype(np.float32)
    variant = (reference + rng.normal(size=reference.shape) * 0.3).astype(np.float32)
    following = (reference + rng.gumbel(size=reference.shape)).argmax(axis=1)
    return reference, variant, following.astype(np.int32)


def log_softmax(logits):
    exact = logits.astype(np.float64)
    return exact - np.logaddexp.reduce(exact, axis=1, keepdims=True)


def test_perplexity(pair):
    _, logits, targets = pair
    nll = [-log_softmax(logits)[row, target] for row, target in enumerate(targets)]
    found = scores.score(logits, targets)
    np.testing.assert_allclose(found.nll, nll, rtol=1e-6)
    average = sum(nll) / 200
    variance = sum(value * value for value in nll) / 200 - average**2
    estimate = scores.perplexity(found.nll)
    assert estimate.value == pytest.approx(math.exp(average))
    assert estimate.error == pytest.approx(math.exp(average) * math.sqrt(variance / 199))


def test_divergence_by_the_stored_values(pair):
    """Token by token from the decoded reference, tokens at or below e**-16 left out."""
    reference, logits, targets = pair
    stored = logprobs.encode(reference)
    base = logprobs.decode(stored, 333).astype(np.float64)
    ours = log_softmax(logits)
    found = scores.compare(logits, stored, targets)
    for row, target in enumerate(targets):
        kept = [(p, q) for p, q in zip(base[row], ours[row], strict=True) if p > -16]
        assert len(kept) < 333
        divergence = sum(math.exp(p) * (p - q) for p, q in kept)
        assert found.kld[row] == pytest.approx(divergence, abs=2e-6)
        assert found.base_nll[row] == pytest.approx(-base[row, target])
        assert found.delta_p[row] == pytest.approx(
            math.exp(ours[row, target]) - math.exp(base[row, target]), abs=1e-6
        )
        assert found.same_top[row] == (logits[row].argmax() == base[row].argmax())


def test_divergence_near_the_exact_one(pair):
    reference, logits, targets = pair
    p, q = log_softmax(reference), log_softmax(logits)
    exact = (np.exp(p) * (p - q)).sum(axis=1)
    found = scores.compare(logits, logprobs.encode(reference), targets)
    assert 0.01 < exact.mean() < 0.1
    np.testing.assert_allclose(found.kld, exact, atol=2e-4)


def test_a_model_against_itself_is_at_the_floor(pair):
    reference, _, targets = pair
    found = scores.compare(reference, logprobs.encode(reference), targets)
    assert abs(scores.mean(found.kld).value) < 1e-5
    assert found.same_top.all()
    assert scores.statistics(found)["log_ratio"] == pytest.approx(0, abs=1e-4)


def test_impossible_tokens():
    """Masked vocabulary entries (minus infinity) count as improbable on both sides."""
    logits = np.array([[1, 2, -np.inf, 0]], np.float32)
    targets = np.array([1], np.int32)
    found = scores.compare(logits, logprobs.encode(logits), targets)
    assert abs(found.kld[0]) < 1e-4
    assert np.isfinite(found.nll).all()


def test_statistics(pair):
    reference, logits, targets = pair
    found = scores.compare(logits, logprobs.encode(reference), targets)
    result = scores.statistics(found)
    ordered = sorted(found.kld)
    assert result["kld_median"] == pytest.approx((ordered[99] + ordered[100]) / 2)
    place = 0.95 * 199
    between = ordered[int(place)] * (1 - place % 1) + ordered[int(place) + 1] * (place % 1)
    assert result["kld_p95"] == pytest.approx(between)
    assert (result["kld_minimum"], result["kld_maximum"]) == (ordered[0], ordered[-1])
    assert result["delta_p_rms"] == pytest.approx(math.sqrt((found.delta_p**2).mean()))
    assert result["log_ratio"] == pytest.approx(found.nll.mean() - found.base_nll.mean())
    own, base = scores.mean(found.nll), scores.mean(found.base_nll)
    covariance = ((found.nll * found.base_nll).mean() - own.value * base.value) / 199
    assert result["log_ratio_error"] == pytest.approx(
        math.sqrt(own.error**2 + base.error**2 - 2 * covariance), rel=1e-6
    )
    assert result["log_ratio_correlation"] == pytest.approx(covariance / own.error / base.error)
    agreement = scores.mean(found.same_top)
    assert agreement.error == pytest.approx(math.sqrt(agreement.value * (1 - agreement.value) / 199))


def test_windows_join(pair):
    reference, logits, targets = pair
    stored = logprobs.encode(reference)
    whole = scores.compare(logits, stored, targets)
    parts = [
        scores.compare(logits[rows], stored[rows], targets[rows]) for rows in (slice(0, 70), slice(70, 200))
    ]
    joined = scores.concatenate(parts)
    for name in scores.TokenScores.__slots__:
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))


def test_memory_does_not_grow_with_the_vocabulary():
    """One window of a 150 000 token vocabulary is 153 MB; scoring it takes a few more."""
    logits = np.zeros((255, 150_001), np.float32)
    logits[:, 5] = 3
    targets = np.full(255, 5, np.int32)
    stored = logprobs.encode(logits)
    tracemalloc.start()
    found = scores.compare(logits, stored, targets)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 24e6
    assert found.same_top.all()
