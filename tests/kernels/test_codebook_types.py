"""IQ, TQ, FP4, Q1_0 and Q2_0: the reference's bytes and weights, on every instruction set of this CPU.

Encoding is compared with recorded digests (``tests/golden/record_codebook_types.py``), because ggml takes
seconds to make its tables for some types; slow tests compare with the library itself, on real models too.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from codebook_blocks import CODEBOOK_TYPES, cases, digest, inputs
from hypothesis import given, settings
from hypothesis import strategies as st

import ggml
from terazi import _native
from terazi.codecs import dequantize_rows, quantize_rows, validate_rows
from terazi.dtypes import dtype
from terazi.errors import FormatError, UsageError
from terazi.formats import open_model

RECORDED = json.loads((Path(__file__).parents[1] / "golden" / "codebook_types.json").read_text())
QUICK = ("IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0", "MXFP4", "NVFP4", "Q1_0", "Q2_0")


@pytest.fixture(params=_native.instruction_sets())
def instruction_set(request):
    before = _native.instruction_set()
    _native.use_instruction_set(request.param)
    yield request.param
    _native.use_instruction_set(before)


def same_weights(a, b):
    """Equal bits; any NaN equals any other."""
    return np.array_equal(a.view(np.uint32), b.view(np.uint32)) or bool(
        ((a.view(np.uint32) == b.view(np.uint32)) | (np.isnan(a) & np.isnan(b))).all()
    )


def some_rows(name, seed, rows=3):
    """Stored rows of any bytes at all."""
    kind = dtype(name)
    columns = 2 * max(kind.block_size, 256)
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (rows, kind.row_bytes(columns)), dtype=np.uint8), columns


def test_inputs_are_the_recorded_ones():
    assert inputs() == RECORDED["inputs"]


@pytest.mark.parametrize("name", CODEBOOK_TYPES)
def test_encodes_the_recorded_bytes(name, instruction_set):
    made = {
        case: digest(quantize_rows(x, name, importance=importance, threads=1))
        for case, x, importance in cases(dtype(name).importance)
    }
    assert made == RECORDED["types"][name]


@pytest.mark.parametrize("name", CODEBOOK_TYPES)
def test_decodes_any_bytes_as_ggml_does(name, instruction_set):
    for seed in range(20):
        q, columns = some_rows(name, seed)
        assert same_weights(
            dequantize_rows(q, name, columns, threads=1), ggml.dequantize(dtype(name).id, q, columns)
        )


@pytest.mark.parametrize("name", CODEBOOK_TYPES)
def test_rows_and_threads_do_not_matter(name):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((37, 768)).astype(np.float32)
    importance = rng.gamma(1.0, 1.0, 768).astype(np.float32)
    whole = quantize_rows(x, name, importance=importance, threads=3)
    for row in (0, 17, 36):
        assert np.array_equal(
            whole[row], quantize_rows(x[row : row + 1], name, importance=importance, threads=1)[0]
        )


@pytest.mark.parametrize("name", QUICK)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), exponent=st.integers(-30, 10), zeros=st.sampled_from([0, 0.1, 0.9]))
def test_encodes_as_ggml_does(name, seed, exponent, zeros):
    kind = dtype(name)
    rng = np.random.default_rng(seed)
    x = np.ldexp(rng.standard_normal((2, 512)), exponent).astype(np.float32)
    x[rng.random(x.shape) < zeros] = 0
    importance = None if seed % 3 == 0 else rng.gamma(0.3, 1.0, 512).astype(np.float32)
    ggml.prepare(kind.id)
    expected = ggml.quantize(kind.id, x, importance)
    assert np.array_equal(quantize_rows(x, name, importance=importance, threads=1), expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CODEBOOK_TYPES if name != "IQ1_M"])
def test_encodes_real_tensors_as_ggml_does(name, smollm2, minilm, reference_9m):
    kind = dtype(name)
    ggml.prepare(kind.id)
    compared = 0
    for path in (smollm2, minilm, reference_9m):
        for tensor in open_model(path).tensors.values():
            if len(tensor.shape) != 2 or min(tensor.shape) < 256 or compared > 5_000_000:
                continue
            x = np.ascontiguousarray(tensor.rows()[:256], dtype=np.float32)
            x = x[:, : x.shape[1] // 256 * 256].copy()
            importance = np.square(np.random.default_rng(x.size).standard_normal(x.shape[1], np.float32))
            expected = ggml.quantize(kind.id, x, importance)
            assert np.array_equal(quantize_rows(x, name, importance=importance), expected), tensor.name
            compared += x.size
    assert compared > 1_000_000


@pytest.mark.parametrize("name", ["IQ1_S", "IQ2_XXS", "IQ2_XS"])
def test_some_types_need_importance(name):
    with pytest.raises(UsageError, match="importance matrix"):
        quantize_rows(np.ones((1, 256), np.float32), name)


@pytest.mark.parametrize("name", CODEBOOK_TYPES)
def test_what_cannot_be_scaled_neither_crashes_nor_reads_outside(name, instruction_set):
    """Squares overflow here, where ggml stops the process; all that is asked for is rows of some size."""
    rng = np.random.default_rng(5)
    x = (rng.standard_normal((4, 512)) * 1e30).astype(np.float32)
    x[1] = np.finfo(np.float32).max
    importance = np.full(512, np.finfo(np.float32).max, np.float32)
    q = quantize_rows(x, name, importance=importance, threads=1)
    assert dequantize_rows(q, name, 512).shape == x.shape


@pytest.mark.parametrize("name", CODEBOOK_TYPES)
def test_validation_agrees_with_ggml(name):
    refused = 0
    for seed in range(200):
        q, columns = some_rows(name, seed, rows=1)
        if valid := ggml.is_valid(dtype(name).id, q):
            validate_rows(q, name, columns)
        else:
            with pytest.raises(FormatError, match="not finite"):
                validate_rows(q, name, columns)
        refused += not valid
    assert refused or name == "NVFP4"  # where any scale is finite


def test_validation_names_the_place():
    q = quantize_rows(np.ones((3, 512), np.float32), "IQ4_XS")
    q[2, 136:138] = 255
    with pytest.raises(FormatError, match="row 2, column 256"):
        validate_rows(q, "IQ4_XS", 512)
    with pytest.raises(UsageError, match="272"):
        validate_rows(q[:, 1:], "IQ4_XS", 512)
