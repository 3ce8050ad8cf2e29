"""Changes of weights: lazily by rows they give what NumPy gives at once, and undo themselves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from terazi.errors import FormatError
from terazi.model import Tensor
from terazi.model.arch import change
from terazi.model.arch.mamba import decay
from terazi.model.arch.table import Source

SETTINGS = {"heads": 4, "rows": 40}
SOURCE = Source(SETTINGS, (0,))


def weights(*shape, type="F32"):
    array = np.random.default_rng(0).standard_normal(shape).astype({"F32": "f4", "F16": "f2"}[type])
    return Tensor.from_array("weight", array), array


def values(tensor):
    return tensor.rows().reshape(tensor.shape)


EXPECTED = {
    "interleaved": (change.interleaved("heads"), (32, 6), lambda a: a.reshape(4, 2, 4, 6).swapaxes(1, 2)),
    "interleaved vector": (change.interleaved("heads"), (32,), lambda a: a.reshape(4, 2, 4).swapaxes(1, 2)),
    "regrouped": (change.regrouped("heads", 3), (24, 5), lambda a: a.reshape(4, 3, 2, 5).swapaxes(0, 1)),
    "swapped": (change.swapped, (3, 8, 5), lambda a: a.swapaxes(1, 2)),
    "flat": (change.flat, (7, 1, 4), lambda a: a[:, 0]),
    "plus one": (change.plus_one, (9,), lambda a: a + 1),
    "chain": (
        change.chain(change.swapped, change.interleaved("heads")),
        (6, 32),
        lambda a: a.T.reshape(4, 2, 4, 6).swapaxes(1, 2),
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("type", ["F32", "F16"])
def test_made_and_undone(name, type):
    step, shape, function = EXPECTED[name]
    tensor, array = weights(*shape, type=type)
    made = step.make(tensor, SOURCE)
    expected = function(array.astype(np.float32))
    assert np.array_equal(values(made), expected.reshape(made.shape))
    assert np.allclose(values(step.undo(made, SOURCE)), array, atol=1e-6)


@pytest.mark.parametrize("name", EXPECTED)
@given(data=st.data())
def test_any_rows(name, data):
    """A slab of rows is what those rows are of the whole."""
    step, shape, _ = EXPECTED[name]
    made = step.make(weights(*shape)[0], SOURCE)
    start = data.draw(st.integers(0, made.row_count))
    stop = data.draw(st.integers(start, made.row_count))
    assert np.array_equal(made.rows(start, stop), made.rows()[start:stop])


def test_parts_and_padding():
    tensor, array = weights(2, 8, 5)
    for which in range(2):
        taken = change.part(which, 2, axis=1).make(tensor, SOURCE)
        assert np.array_equal(values(taken), array[:, which * 4 : which * 4 + 4])
    tensor, array = weights(30, 5)
    padded = change.padded_rows("rows").make(tensor, SOURCE)
    assert padded.shape == (40, 5)
    assert np.array_equal(padded.rows(25, 35)[:5], array[25:])
    assert not padded.rows(30, 40).any()
    assert change.padded_rows("none").make(tensor, SOURCE) is tensor
    skipped = change.skipping_rows(lambda source: 3).make(tensor, SOURCE)
    assert np.array_equal(values(skipped), array[3:])
    columns = change.reordered(tensor, np.array([4, 0, 2, 1, 3]), axis=1)
    assert np.array_equal(values(columns), array[:, [4, 0, 2, 1, 3]])
    assert np.array_equal(values(change.recoded(tensor, "F16")), array.astype(np.float16).astype(np.float32))


def test_decay_is_minus_the_exponential():
    tensor, array = weights(6)
    made = decay.make(tensor, SOURCE)
    assert np.allclose(values(made), -np.exp(array))
    assert np.allclose(values(decay.undo(made, SOURCE)), array, atol=1e-6)


@pytest.mark.parametrize(
    ("step", "shape", "problem"),
    [
        (change.interleaved("heads"), (30, 4), "30 rows are not 4 heads of pairs"),
        (change.interleaved("missing"), (32, 4), "0 heads"),
        (change.regrouped("heads", 3), (20, 4), "not 3 parts of 4 heads"),
        (change.part(0, 3), (8, 4), "does not split into 3"),
        (change.shaped(3, -1), (8, 4), "cannot be seen as"),
        (change.padded_rows("rows"), (3, 4), "far from the 40"),
    ],
)
def test_shapes_that_do_not_fit(step, shape, problem):
    with pytest.raises(FormatError, match=problem):
        step.make(weights(*shape)[0], SOURCE)
