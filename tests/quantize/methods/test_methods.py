"""Rounding in groups, and GPTQ against it."""

import numpy as np
import pytest

from terazi.quantize.methods.blocks import round_to_nearest
from terazi.quantize.methods.gptq import factorize, gptq


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
