"""Packed integers of other quantizers, decoded as those quantizers' own definitions say."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from terazi.errors import FormatError, UnsupportedError
from terazi.formats import open_model

ROWS, COLUMNS, GROUP = 64, 96, 32
CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64}


@pytest.fixture
def checkpoint(tmp_path):
    def write(tensors, settings):
        save_file(tensors, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"quantization_config": settings}))
        return tmp_path

    return write


def pack_down(numbers, bits):
    """AutoGPTQ: numbers[n, columns] go into words[n * bits / 32, columns], lowest bits first."""
    count, columns = numbers.shape
    words = np.zeros((count * bits // 32, columns), np.uint32)
    for place in range(count):
        for bit in range(bits):
            position = place * bits + bit
            words[position // 32] |= ((numbers[place].astype(np.uint32) >> bit) & 1) << np.uint32(
                position % 32
            )
    return words.view(np.int32)


def random_parts(bits, rng):
    numbers = rng.integers(0, 1 << bits, (ROWS, COLUMNS))
    zeros = rng.integers(1, 1 << bits, (ROWS, COLUMNS // GROUP))
    scales = rng.uniform(0.001, 0.02, (ROWS, COLUMNS // GROUP)).astype(np.float16)
    return numbers, zeros, scales


def weights(numbers, zeros, scales, group):
    return ((numbers - zeros[:, group]) * scales.astype(np.float32)[:, group]).astype(np.float16)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("version", ["gptq", "gptq_v2"])
@pytest.mark.parametrize("order", ["plain", "act-order"])
def test_gptq(bits, version, order, checkpoint):
    rng = np.random.default_rng(bits)
    numbers, zeros, scales = random_parts(bits, rng)
    group = np.arange(COLUMNS) // GROUP
    group = rng.permutation(group) if order == "act-order" else group
    stored = zeros - (version == "gptq")
    tensors = {
        "model.q_proj.qweight": pack_down(numbers.T, bits),
        "model.q_proj.qzeros": np.ascontiguousarray(pack_down(stored, bits).T),
        "model.q_proj.scales": np.ascontiguousarray(scales.T),
        "model.q_proj.g_idx": group.astype(np.int32),
        "model.q_proj.bias": np.ones(ROWS, np.float16),
        "model.norm.weight": np.ones(8, np.float16),
    }
    settings = {"quant_method": "gptq", "bits": bits, "group_size": GROUP, "checkpoint_format": version}
    model = open_model(checkpoint(tensors, settings))
    assert set(model.tensors) == {"model.q_proj.weight", "model.q_proj.bias", "model.norm.weight"}
    tensor = model.tensors["model.q_proj.weight"]
    expected = weights(numbers, zeros, scales, group)
    assert (tensor.shape, tensor.type) == ((ROWS, COLUMNS), "F16")
    assert np.array_equal(tensor.rows(), expected.astype(np.float32))
    assert np.array_equal(tensor.rows(7, 23), expected[7:23].astype(np.float32))


@pytest.mark.parametrize("part", [(0, ROWS), (0, 8), (3, 13), (63, 64)])
def test_awq(part, checkpoint):
    """AutoAWQ's gemm packing: nibble i of a word is column [0, 2, 4, 6, 1, 3, 5, 7][i]."""
    numbers, zeros, scales = random_parts(4, np.random.default_rng(1))

    def pack(matrix):
        words = np.zeros((matrix.shape[0], matrix.shape[1] // 8), np.uint32)
        for nibble, column in enumerate([0, 2, 4, 6, 1, 3, 5, 7]):
            words |= matrix[:, column::8].astype(np.uint32) << np.uint32(4 * nibble)
        return words.view(np.int32)

    tensors = {
        "q_proj.qweight": pack(numbers.T),
        "q_proj.qzeros": pack(zeros.T),
        "q_proj.scales": np.ascontiguousarray(scales.T),
    }
    settings = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm", "zero_point": True}
    tensor = open_model(checkpoint(tensors, settings)).tensors["q_proj.weight"]
    expected = weights(numbers, zeros, scales, np.arange(COLUMNS) // GROUP).astype(np.float32)
    assert np.array_equal(tensor.rows(*part), expected[slice(*part)])


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("strategy", ["group", "channel"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_compressed_tensors(bits, strategy, symmetric, checkpoint):
    """Quantized and packed by the library itself."""
    torch = pytest.importorskip("torch")
    quantization = pytest.importorskip("compressed_tensors.quantization")
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
    from compressed_tensors.quantization.lifecycle.forward import dequantize, quantize

    torch.manual_seed(bits)
    groups = COLUMNS // GROUP if strategy == "group" else 1
    args = quantization.QuantizationArgs(
        num_bits=bits,
        symmetric=symmetric,
        strategy=strategy,
        group_size=GROUP if strategy == "group" else None,
    )
    scale = torch.rand(ROWS, groups) * 0.02 + 0.001
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    zero = torch.zeros(ROWS, groups, dtype=torch.int8)
    if not symmetric:
        zero = torch.randint(low, high, (ROWS, groups), dtype=torch.int8)
    numbers = quantize(torch.randn(ROWS, COLUMNS) * 0.05, scale, zero, args, dtype=torch.int8)
    expected = dequantize(numbers, scale, zero, args).numpy()
    tensors = {
        "q_proj.weight_packed": pack_to_int32(numbers, bits).numpy(),
        "q_proj.weight_scale": scale.numpy(),
        "q_proj.weight_shape": np.array([ROWS, COLUMNS], np.int64),
    }
    if not symmetric:
        tensors["q_proj.weight_zero_point"] = pack_to_int32(zero, bits, packed_dim=0).numpy()
    settings = {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"group_0": {"weights": json.loads(args.model_dump_json()), "targets": ["Linear"]}},
    }
    tensor = open_model(checkpoint(tensors, settings)).tensors["q_proj.weight"]
    assert np.abs(tensor.rows() - expected).max() < 1e-3 * np.abs(expected).max()
    assert np.array_equal(tensor.rows(5, 9), tensor.rows()[5:9])


def test_eight_bit_integers(checkpoint):
    rng = np.random.default_rng(0)
    numbers = rng.integers(-128, 128, (ROWS, COLUMNS)).astype(np.int8)
    scales = rng.uniform(0.001, 0.02, (ROWS, 1)).astype(np.float32)
    scheme = {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True}
    settings = {"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": scheme}}}
    tensors = {"q_proj.weight": numbers, "q_proj.weight_scale": scales}
    tensor = open_model(checkpoint(tensors, settings)).tensors["q_proj.weight"]
    assert np.array_equal(tensor.rows(), (numbers * scales).astype(np.float16).astype(np.float32))


def good():
    numbers, zeros, scales = random_parts(4, np.random.default_rng(0))
    return {
        "q.qweight": pack_down(numbers.T, 4),
        "q.qzeros": np.ascontiguousarray(pack_down(zeros - 1, 4).T),
        "q.scales": np.ascontiguousarray(scales.T),
        "q.g_idx": (np.arange(COLUMNS) // GROUP).astype(np.int32),
    }


@pytest.mark.parametrize(
    ("changes", "settings", "problem"),
    [
        ({"q.scales": None}, {}, "q has no scales"),
        ({"q.scales": np.ones((2, 3), np.float16)}, {}, r"q.scales is \(2, 3\), not \(3, 64\)"),
        ({"q.g_idx": np.full(COLUMNS, 9, np.int32)}, {}, "do not fall into 3 groups"),
        ({"q.g_idx": np.full(COLUMNS, -1, np.int32)}, {}, "do not fall into 3 groups"),
        ({"q.qzeros": np.ones((3, 1), np.int32)}, {}, "words hold no 64 numbers"),
        ({"q.qweight": np.ones((3, 4), np.float32)}, {}, "not a matrix of 32-bit words"),
        ({}, {"bits": 5}, "bits is 5"),
        ({}, {"bits": True}, "bits is True"),
        ({"q.g_idx": None}, {"group_size": "all"}, "group_size is all"),
    ],
)
def test_parts_that_do_not_fit(changes, settings, problem, checkpoint):
    tensors = {name: array for name, array in (good() | changes).items() if array is not None}
    known = {"quant_method": "gptq", "bits": 4, "group_size": GROUP}
    with pytest.raises(FormatError, match=problem):
        open_model(checkpoint(tensors, known | settings))


@pytest.mark.parametrize("settings", [{"quant_method": "bitsandbytes"}, {}, [], "gptq"])
def test_other_methods(settings, checkpoint):
    with pytest.raises(UnsupportedError, match="quantized by") as caught:
        open_model(checkpoint(good(), settings))
    assert "original" in caught.value.hint


def test_other_methods_are_named_before_their_tensors_are_read(checkpoint):
    directory = checkpoint({"q.weight": np.ones((4, 1), np.uint8)}, {"quant_method": "bitsandbytes"})
    with pytest.raises(UnsupportedError, match="already quantized by bitsandbytes"):
        open_model(directory)
