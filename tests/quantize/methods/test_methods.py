"""Rounding in groups; GPTQ and HQQ against it; the same bytes from every instruction set."""

import numpy as np
import pytest

from terazi import _native
from terazi.quantize.methods.blocks import round_to_nearest
from terazi.quantize.methods.gptq import factorize, gptq
from terazi.quantize.methods.hqq import hqq


@pytest.fixture
def weight():
    return np.random.default_rng(1).standard_t(4, (48, 128)).astype(np.float32) * 0.03


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_rounding_is_close_and_beats_the_plain_scale(weight, bits, symmetric):
    blocks = round_to_nearest(weight, bits, 32, symmetric=symmetric)
    assert blocks.codes.shape == (48, 4, 32)
    assert blocks.codes.max() < 1 << bits
    error = ((blocks.decode() - weight) ** 2).sum()
    groups = weight.reshape(48, 4, 32)
    scale = np.abs(groups).max(-1, keepdims=True) / (1 << (bits - 1))
    top = (1 << (bits - 1)) - 1
    plain = (np.clip(np.round(groups / scale), -top - 1, top) * scale).reshape(48, 128)
    assert error <= ((plain - weight) ** 2).sum()


def test_zero_and_constant_groups_survive():
    weight = np.zeros((2, 64), np.float32)
    weight[1, 32:] = 0.5
    for symmetric in (True, False):
        decoded = round_to_nearest(weight, 4, 32, symmetric=symmetric).decode()
        assert np.isfinite(decoded).all()
        assert np.abs(decoded - weight).max() < 1e-6


def test_importance_moves_the_error_to_where_it_counts_less(weight):
    importance = np.ones(128, np.float32)
    importance[::4] = 100
    plain = round_to_nearest(weight, 3, 32).decode()
    weighted = round_to_nearest(weight, 3, 32, importance=importance).decode()
    assert ((weighted - weight)[:, ::4] ** 2).sum() < ((plain - weight)[:, ::4] ** 2).sum()


def test_gptq_changes_products_less_than_rounding(weight):
    generator = np.random.default_rng(2)
    mixing = generator.normal(size=(128, 128))
    inputs = (generator.normal(size=(512, 128)) @ mixing).astype(np.float32)
    ours = gptq(weight, factorize(inputs.T @ inputs, 0.01), 3, 32).decode()
    plain = round_to_nearest(weight, 3, 32, symmetric=False).decode()
    exact = inputs @ weight.T
    assert ((inputs @ ours.T - exact) ** 2).sum() < 0.6 * ((inputs @ plain.T - exact) ** 2).sum()


def test_gptq_without_correlation_rounds_to_nearest(weight):
    identity = np.eye(128)
    assert np.array_equal(
        gptq(weight, factorize(identity), 4, 32, symmetric=True).codes, round_to_nearest(weight, 4, 32).codes
    )


def test_gptq_bears_inputs_that_were_never_seen(weight):
    hessian = np.eye(128)
    hessian[5, 5] = 0
    assert np.isfinite(gptq(weight, factorize(hessian), 4, 32).decode()).all()


@pytest.mark.parametrize("bits", [2, 4])
def test_hqq_leaves_less_than_rounding(weight, bits):
    """By the measure that it minimizes, which few large errors hardly move."""
    groups = weight.reshape(48, 4, 32)
    low, high = groups.min(-1, keepdims=True), groups.max(-1, keepdims=True)
    scale = (high - low) / ((1 << bits) - 1)
    plain = (np.round((groups - low) / scale) * scale + low).reshape(48, 128)
    ours = hqq(weight, bits, 32).decode()
    searched = round_to_nearest(weight, bits, 32, symmetric=False).decode()
    left = [(np.abs(decoded - weight) ** 0.75).sum() for decoded in (ours, plain, searched)]
    assert left[0] < 0.97 * left[1]
    assert left[0] < 0.97 * left[2]


def test_hqq_bears_constant_and_far_away_groups():
    weight = np.zeros((3, 64), np.float32)
    weight[1] = 0.5
    weight[2] = 1000 + np.linspace(0, 0.01, 64)
    decoded = hqq(weight, 4, 32).decode()
    assert np.isfinite(decoded).all()
    assert np.abs(decoded[:2] - weight[:2]).max() < 1e-6


def test_feedback_and_importance_undo_the_gram():
    inputs = np.random.default_rng(3).standard_normal((50, 200)).astype(np.float32)
    gram = inputs.T @ inputs
    factors = factorize(gram, 0.1)
    upper = factors.feedback.T.astype(np.float64)
    assert np.array_equal(np.tril(upper, -1), np.zeros_like(upper))
    expected = gram + 0.1 * gram.diagonal().mean() * np.eye(200)
    assert np.abs(upper * factors.importance @ upper.T - expected).max() < 1e-5 * expected.max()


@pytest.mark.parametrize("columns", [32, 480])
def test_every_instruction_set_and_number_of_threads_gives_the_same(columns):
    random = np.random.default_rng(4)
    weight = random.standard_normal((37, columns)).astype(np.float32)
    inputs = random.standard_normal((64, columns)).astype(np.float32)
    factors = factorize(inputs.T @ inputs)
    used, seen = _native.instruction_set(), []
    try:
        for name in _native.instruction_sets():
            _native.use_instruction_set(name)
            for threads in (1, 3):
                made = [
                    gptq(weight, factors, 4, 32, threads=threads),
                    round_to_nearest(weight, 3, 16, threads=threads),
                    hqq(weight, 2, 32, threads=threads),
                ]
                seen.append([part.tobytes() for b in made for part in (b.codes, b.scales)])
    finally:
        _native.use_instruction_set(used)
    assert all(other == seen[0] for other in seen)


def test_bad_shapes_are_refused(weight):
    for group_size in (24, 48):
        with pytest.raises(ValueError, match="group"):
            round_to_nearest(weight, 4, group_size)
    weight[3, 5] = np.nan
    with pytest.raises(ValueError, match="row 3"):
        round_to_nearest(weight, 4, 32)
