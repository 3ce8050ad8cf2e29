"""`quantize_rows` and `dequantize_rows`: properties that hold for any rows, and refusals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import terazi
from terazi.errors import UsageError

# Largest error in units of a row's largest magnitude: half a step, or a whole one where the code range ends a
# step short of the extreme (Q4_0, Q5_0), and a float16's rounding; two steps where a search may sacrifice one
# value of a block and scales are coarse (K-quants).
STEPS = {
    "Q8_0": 0.0045,
    "Q6_K": 0.07,
    "Q5_0": 0.065,
    "Q5_1": 0.04,
    "Q5_K": 0.13,
    "Q4_0": 0.13,
    "Q4_1": 0.08,
    "Q4_K": 0.27,
}

finite_rows = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.just(256)),
    elements=st.floats(-1, 1, width=32, allow_subnormal=False),
)


@pytest.mark.parametrize("name", STEPS)
@given(x=finite_rows)
@settings(max_examples=25, deadline=None)
def test_values_come_back_within_a_step(name, x):
    back = terazi.dequantize_rows(terazi.quantize_rows(x, name, threads=1), name, 256, threads=1)
    # A float16 scale ends at 6e-8: of a Q6_K block whose weights are below 1.2e-4, ggml too keeps nothing.
    assert np.abs(back - x).max() <= STEPS[name] * np.abs(x).max() + 1.3e-4


@pytest.mark.parametrize("name", ["Q4_0", "Q5_0", "Q8_0", "F16", "BF16", "F32"])
@given(x=finite_rows)
@settings(max_examples=15, deadline=None)
def test_rows_do_not_depend_on_their_neighbours(name, x):
    together = terazi.quantize_rows(x, name, threads=1)
    for i in range(len(x)):
        np.testing.assert_array_equal(
            together[i : i + 1], terazi.quantize_rows(x[i : i + 1], name, threads=1)
        )


@pytest.mark.parametrize("name", ["Q4_K", "Q6_K", "Q4_1"])
def test_importance_spares_what_it_weighs(name):
    rng = np.random.default_rng(5)
    x = rng.standard_normal((32, 512)).astype(np.float32)
    importance = (10.0 ** rng.uniform(-3, 3, 512)).astype(np.float32)

    def weighted_error(q):
        return float((importance * (terazi.dequantize_rows(q, name, 512) - x) ** 2).sum())

    with_it = weighted_error(terazi.quantize_rows(x, name, importance=importance))
    assert with_it < 0.9 * weighted_error(terazi.quantize_rows(x, name))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"type": "Q9_K"}, "unknown type"),
        ({"type": "Q8_K"}, "not a type to quantize to"),
        ({"type": "I8"}, "not a type to quantize to"),
        ({"type": "Q4_K", "x": np.zeros((2, 100))}, "multiples of 256"),
        ({"type": "Q4_0", "x": np.zeros(32)}, "matrix"),
        ({"type": "Q4_0", "importance": np.ones(5)}, "importance has shape"),
        ({"type": "Q4_0", "importance": -np.ones(256)}, "not negative"),
        ({"type": "Q4_0", "importance": np.full(256, np.nan)}, "finite"),
        ({"type": "IQ2_XXS"}, "importance matrix"),
        (
            {"type": "Q4_0", "x": np.full((1, 256), np.nan)},
            "Q4_0: the value at row 0, column 0 is",
        ),
    ],
)
def test_what_cannot_be_encoded_is_refused(arguments, message):
    arguments = {"x": np.zeros((1, 256)), **arguments}
    with pytest.raises(UsageError, match=message):
        terazi.quantize_rows(arguments.pop("x"), **arguments)


@pytest.mark.parametrize(("shape", "columns"), [((2, 143), 256), ((144,), 256), ((2, 144), 200)])
def test_bytes_that_make_no_rows_are_refused(shape, columns):
    with pytest.raises(UsageError):
        terazi.dequantize_rows(np.zeros(shape, np.uint8), "Q4_K", columns)


def test_a_type_without_decoder_is_refused():
    with pytest.raises(UsageError, match="I8"):
        terazi.dequantize_rows(np.zeros((1, 4), np.uint8), "I8", 4)
