"""The file of reference log-probabilities: its bytes, its precision, and damaged ones."""

import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from terazi.errors import FormatError
from terazi.evaluate import logprobs


def written_row(logits):
    """One row by the definition, value by value in single precision."""
    one = np.float32
    highest, lowest = max(logits), max(min(logits), max(logits) - one(16))
    total = one(math.log(sum(float(np.exp(value - highest)) for value in logits)))
    scale = (highest - lowest) / one(65535)
    codes = [0] * len(logits)
    if scale >= np.finfo(one).tiny:
        inverse = one(1) / scale
        codes = [int(np.rint(inverse * (x - lowest))) if x > lowest else 0 for x in logits]
    row = struct.pack("<ff", scale, lowest - highest - total) + struct.pack(f"<{len(codes)}H", *codes)
    return row + b"\0" * (2 * (len(codes) % 2))


finite = st.floats(-200, 200, width=32)


@settings(max_examples=60, deadline=None)
@given(arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(2, 40)), elements=finite))
def test_bytes_follow_the_definition(logits):
    assert logprobs.encode(logits).tobytes() == b"".join(map(written_row, logits))


@settings(max_examples=60, deadline=None)
@given(arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(2, 40)), elements=finite))
def test_precision(logits):
    """Half a code of a range of at most 16, and float32 rounding; rarer tokens get the lowest value."""
    exact = logits.astype(np.float64)
    exact -= np.logaddexp.reduce(exact, axis=1, keepdims=True)
    decoded = logprobs.decode(logprobs.encode(logits), logits.shape[1])
    common = logits >= logits.max(axis=1, keepdims=True) - np.float32(15.9)
    assert np.abs(decoded - exact)[common].max() < 16 / 65535 / 2 + 1e-4
    assert (decoded[~common] <= -15.8).all()


def test_equal_logits():
    decoded = logprobs.decode(logprobs.encode(np.full((2, 7), 3, np.float32)), 7)
    np.testing.assert_allclose(decoded, -math.log(7), atol=1e-6)


@pytest.fixture
def file(tmp_path):
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 5, (2, 6)).astype(np.int32)
    logits = rng.normal(size=(2, 2, 5)).astype(np.float32)
    path = tmp_path / "base.kld"
    with logprobs.write_file(path, tokens, 5) as opened:
        for window in logits:
            opened.write(logprobs.encode(window).data)
    return path, tokens, logits


def test_layout(file):
    path, tokens, logits = file
    data = path.read_bytes()
    assert data[:20] == b"_logits_" + struct.pack("<Iii", 6, 5, 2)
    assert data[20 : 20 + 48] == tokens.tobytes()
    assert data[68:] == b"".join(written_row(row) for window in logits for row in window)
    opened = logprobs.open_file(path)
    assert (opened.context, opened.vocabulary) == (6, 5)
    np.testing.assert_array_equal(opened.tokens, tokens)
    np.testing.assert_array_equal(opened.rows[1], logprobs.encode(logits[1]))


def test_an_interrupted_file_does_not_appear(tmp_path):
    def interrupted():
        with logprobs.write_file(tmp_path / "x.kld", np.zeros((1, 16), np.int32), 5) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda data: data[:10], "too short"),
        (lambda data: b"_logitz_" + data[8:], "not a file of log-probabilities"),
        (lambda data: data[:-1], "size does not match"),
        (lambda data: data + b"\0", "size does not match"),
        (lambda data: data[:8] + struct.pack("<Iii", 2**31, 5, 2) + data[20:], "makes no sense"),
        (lambda data: data[:8] + struct.pack("<Iii", 6, -5, 2) + data[20:], "makes no sense"),
        (lambda data: data[:8] + struct.pack("<Iii", 6, 5, 2**30) + data[20:], "makes no sense"),
        (lambda data: data[:20] + struct.pack("<i", 5) + data[24:], "outside the vocabulary"),
    ],
)
def test_damaged(file, change, problem):
    path, *_ = file
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(FormatError, match=problem):
        logprobs.open_file(path)
