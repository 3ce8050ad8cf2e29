"""What the native module promises besides its arithmetic."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from terazi import _native
from terazi.dtypes import TYPES, dtype

Q4_K = dtype("Q4_K")


@pytest.fixture(autouse=True)
def _keep_instruction_set():
    before = _native.instruction_set()
    yield
    _native.use_instruction_set(before)


@pytest.fixture
def rows():
    return np.random.default_rng(1).standard_normal((67, 512)).astype(np.float32)


def test_any_number_of_threads_gives_the_same_bytes(rows):
    importance = abs(rows[0])
    one = _native.quantize(Q4_K.id, rows, importance, 1)
    for threads in (0, 2, 3, 64):
        np.testing.assert_array_equal(_native.quantize(Q4_K.id, rows, importance, threads), one)
    values = _native.dequantize(Q4_K.id, one, 512, 1)
    np.testing.assert_array_equal(_native.dequantize(Q4_K.id, one, 512, 7), values)


def test_calls_from_several_threads_do_not_mix(rows):
    expected = _native.quantize(Q4_K.id, rows, None, 1)
    results = [None] * 4

    def work(i):
        results[i] = _native.quantize(Q4_K.id, rows, None, 2)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for result in results:
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0), (3, 17), (66, 511)])
@pytest.mark.parametrize("name", ["F32", "F16", "Q8_0", "Q4_K"])
def test_values_that_are_not_finite_are_refused_with_their_place(rows, value, place, name):
    rows[place] = value
    for instruction_set in _native.instruction_sets():
        _native.use_instruction_set(instruction_set)
        with pytest.raises(ValueError, match=f"row {place[0]}, column {place[1]} is not finite"):
            _native.quantize(dtype(name).id, rows, None, 1)


def test_out_is_filled_and_returned(rows):
    out = np.empty((67, Q4_K.row_bytes(512)), np.uint8)
    returned = _native.quantize(Q4_K.id, rows, None, 1, out)
    assert np.shares_memory(returned, out)
    np.testing.assert_array_equal(out, _native.quantize(Q4_K.id, rows, None, 1))
    with pytest.raises(ValueError, match="shape"):
        _native.quantize(Q4_K.id, rows, None, 1, out[:5])


def test_bad_calls_are_refused(rows):
    with pytest.raises(ValueError, match="no kernel"):
        _native.quantize(99, rows, None, 1)
    with pytest.raises(ValueError, match="no quantizer"):
        _native.quantize(dtype("Q8_K").id, rows, None, 1)
    with pytest.raises(ValueError, match="blocks"):
        _native.quantize(Q4_K.id, rows[:, :100].copy(), None, 1)
    with pytest.raises(ValueError, match="importance"):
        _native.quantize(Q4_K.id, rows, rows[0, :5].copy(), 1)
    with pytest.raises(ValueError, match="bytes"):
        _native.dequantize(Q4_K.id, np.zeros((2, 143), np.uint8), 256, 1)
    with pytest.raises(ValueError, match="instruction set"):
        _native.use_instruction_set("sse9")


@pytest.mark.parametrize("shape", [(0, 256), (5, 0)])
def test_nothing_to_do(shape):
    q = _native.quantize(Q4_K.id, np.zeros(shape, np.float32), None, 0)
    assert q.shape == (shape[0], Q4_K.row_bytes(shape[1]))
    assert _native.dequantize(Q4_K.id, q, shape[1], 0).shape == shape


def _run_with_simd(name, code):
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env={**os.environ, "TERAZI_SIMD": name}, capture_output=True, text=True)


def test_environment_chooses_the_instruction_set():
    code = "from terazi import kernels, _native; print(_native.instruction_set())"
    assert _run_with_simd("baseline", code).stdout.strip() == "baseline"
    assert (
        "UsageError: TERAZI_SIMD: this CPU has no instruction set sse9" in _run_with_simd("sse9", code).stderr
    )


def test_every_type_that_can_be_written_has_a_kernel():
    x = np.ones((1, 256), np.float32)
    importance = np.ones(256, np.float32)
    for kind in TYPES.values():
        if kind.importance != "none":
            assert _native.quantize(kind.id, x, importance, 1).shape == (1, kind.row_bytes(256))
