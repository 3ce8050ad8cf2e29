"""Bytes and values equal ggml's, for every instruction set of this CPU."""

import numpy as np
import pytest
from blocks import importances_to_try, rows_to_try

import ggml
from terazi import _native
from terazi.dtypes import dtype
from terazi.formats import open_model

FLOATS = ["F16", "BF16"]
LEGACY = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]
K_QUANTS = ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]
ALL = FLOATS + LEGACY + K_QUANTS


@pytest.fixture(params=_native.instruction_sets(), autouse=True)
def instruction_set(request):
    before = _native.instruction_set()
    _native.use_instruction_set(request.param)
    yield request.param
    _native.use_instruction_set(before)


def assert_same_bytes(kind, x, importance, what):
    ours = _native.quantize(kind.id, x, importance, 1)
    reference = ggml.quantize(kind.id, x, importance)
    differing = np.flatnonzero((ours != reference).any(axis=1))
    assert not differing.size, f"{kind.name}, {what}: rows {differing[:5]} differ"
    return ours


def assert_same_values(kind, q, columns, what):
    """Every bit, the sign of zeros too; only a NaN may be another NaN."""
    ours = _native.dequantize(kind.id, q, columns, 1)
    reference = ggml.dequantize(kind.id, q, columns)
    same = (ours.view(np.uint32) == reference.view(np.uint32)) | (np.isnan(ours) & np.isnan(reference))
    assert same.all(), f"{kind.name}, {what}: {np.count_nonzero(~same)} values differ"


@pytest.mark.parametrize("name", ALL)
def test_every_kind_of_block(name):
    kind = dtype(name)
    for rows_name, x in rows_to_try(8, 512).items():
        for importance_name, importance in importances_to_try(512).items():
            what = f"{rows_name} rows, {importance_name} importance"
            q = assert_same_bytes(kind, x, importance, what)
            assert_same_values(kind, q, 512, what)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("blocks", [1, 3, 5])
@pytest.mark.parametrize("rows", [1, 2, 19])
def test_every_shape(name, blocks, rows):
    kind = dtype(name)
    columns = blocks * max(kind.block_size, 32)
    x = rows_to_try(rows, columns, seed=rows)["student-t"]
    for importance_name in ("none", "holes"):
        assert_same_bytes(kind, x, importances_to_try(columns, seed=blocks)[importance_name], importance_name)


@pytest.mark.parametrize("name", ALL)
def test_any_bytes_decode_alike(name):
    kind = dtype(name)
    q = np.random.default_rng(3).integers(0, 256, (64, kind.row_bytes(512)), dtype=np.uint8)
    assert_same_values(kind, q, 512, "random bytes")


@pytest.mark.parametrize("name", ["Q8_1", "Q8_K"])
def test_activation_types_decode(name, instruction_set):
    """ggml has no to_float for them: the formula is scale * code."""
    kind = dtype(name)
    q = np.random.default_rng(3).integers(0, 256, (4, kind.row_bytes(512)), dtype=np.uint8)
    blocks = q.reshape(-1, kind.block_bytes)
    if name == "Q8_1":
        scale = np.full(len(blocks), 0.25, np.float32)
        blocks[:, :2] = np.float16(0.25).tobytes()[0], np.float16(0.25).tobytes()[1]
        codes = blocks[:, 4:].view(np.int8)
    else:
        scale = np.full(len(blocks), 0.1, np.float32)
        blocks[:, :4] = np.frombuffer(np.float32(0.1).tobytes(), np.uint8)
        codes = blocks[:, 4 : 4 + 256].view(np.int8)
    expected = (scale[:, None] * codes.astype(np.float32)).reshape(4, 512)
    np.testing.assert_array_equal(_native.dequantize(kind.id, q, 512, 1), expected)


@pytest.mark.parametrize("name", ["F16", "BF16"])
def test_every_half(name):
    kind = dtype(name)
    q = np.arange(1 << 16, dtype=np.uint16).view(np.uint8).reshape(64, -1)
    assert_same_values(kind, q, 1024, "every bit pattern")
    back = _native.dequantize(kind.id, q, 1024, 1)
    back[~np.isfinite(back)] = 0
    assert_same_bytes(kind, back, None, "every finite value")
    near = np.nextafter(back, np.float32(np.inf), dtype=np.float32)
    assert_same_bytes(kind, near, None, "just above every value")


def check_model(path, names, tensor_names):
    tensors = open_model(path).tensors
    for tensor_name in tensor_names:
        x = np.ascontiguousarray(tensors[tensor_name].rows(0, 24))
        importance = importances_to_try(x.shape[1])["squares"]
        for name in names:
            kind = dtype(name)
            if x.shape[1] % kind.block_size:
                continue
            for given in (None, importance):
                q = assert_same_bytes(kind, x, given, tensor_name)
                assert_same_values(kind, q, x.shape[1], tensor_name)


def test_smollm2(smollm2):
    check_model(smollm2, ALL, ["token_embd.weight", "blk.0.attn_q.weight", "blk.11.ffn_down.weight"])


def test_minilm(minilm):
    layer = "encoder.layer.2"
    check_model(minilm, ALL, [f"{layer}.attention.self.query.weight", f"{layer}.output.dense.weight"])


def test_reference_9m(reference_9m):
    tensors = open_model(reference_9m).tensors
    matrices = [name for name, tensor in tensors.items() if len(tensor.shape) == 2][:4]
    check_model(reference_9m, ALL, matrices)
