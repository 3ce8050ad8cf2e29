"""Packed integers of other quantizers, decoded as those quantizers' own definitions say."""

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from terazi.errors import FormatError, TeraziError, UnsupportedError
from terazi.formats import open_model

ROWS, COLUMNS, GROUP = 64, 96, 32
CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64}


def load_file(path):
    """Read tensors as arrays; bfloat16 becomes float32."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    return {
        name: (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        for name, tensor in load_file(path).items()
    }


@pytest.fixture
def checkpoint(tmp_path):
    def write(tensors, settings):
        if any(not isinstance(tensor, np.ndarray) for tensor in tensors.values()):
            from safetensors.torch import save_file as save
        else:
            save = save_file
        save(tensors, tmp_path / "model.safetensors")
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


@pytest.mark.parametrize("settings", [{"quant_method": "quanto"}, {}, [], "gptq"])
def test_other_methods(settings, checkpoint):
    with pytest.raises(UnsupportedError, match="quantized by") as caught:
        open_model(checkpoint(good(), settings))
    assert "original" in caught.value.hint


def test_other_methods_are_named_before_their_tensors_are_read(checkpoint):
    directory = checkpoint({"q.weight": np.ones((4, 1), np.uint8)}, {"quant_method": "eetq"})
    with pytest.raises(UnsupportedError, match="already quantized by eetq"):
        open_model(directory)


GOLDEN = Path(__file__).parents[2] / "golden" / "quantizers"


@pytest.mark.parametrize("name", sorted(path.name for path in GOLDEN.iterdir()))
def test_as_the_library_decodes(name):
    """What the quantizers made of their codes themselves, see tests/golden/record_quantizers.py."""
    model = open_model(GOLDEN / name)
    expected = load_file(GOLDEN / name / "expected.safetensors")
    assert expected
    for layer, weight in expected.items():
        tensor = model.tensors[f"{layer}.weight"]
        assert tensor.shape == weight.shape
        values = tensor.rows()
        if name in ("fp4", "nf4-nested", "nf4-stored-as-bf16"):
            assert np.array_equal(values, weight.astype(np.float32))
        # HQQ rounds each step to a layer's 16-bit type; Terazi rounds once.
        steps = {"F32": 3e-7, "F16": 2e-3, "BF16": 2**-8 if name == "modelopt" else 1.6e-2}[tensor.type]
        assert np.abs(values - weight).max() <= steps * np.abs(weight).max()
        for start, stop in ((0, 1), (3, 8), (tensor.row_count - 1, tensor.row_count), (2, 2)):
            assert np.array_equal(tensor.rows(start, stop), values[start:stop])


@pytest.mark.parametrize("name", ["int8", "nf4-nested", "hqq", "modelopt"])
def test_what_the_file_takes_is_described(name):
    model = open_model(GOLDEN / name)
    packed = [tensor for tensor in model.tensors.values() if tensor.packed]
    bits = sum(tensor.stored_bytes for tensor in packed) * 8 / sum(tensor.size for tensor in packed)
    assert {tensor.packed.bits for tensor in packed} <= {4, 8}
    assert 4 < bits < 12


def fp8(rng, *shape):
    torch = pytest.importorskip("torch")
    return (torch.from_numpy(rng.standard_normal(shape).astype(np.float32)) * 60).to(torch.float8_e4m3fn)


@pytest.mark.parametrize("kind", ["blocks", "ragged", "one", "experts", "powers-of-two"])
def test_fine_grained_fp8(kind, checkpoint):
    """Against transformers' own dequantization, but for blocks that it does not split evenly."""
    torch = pytest.importorskip("torch")
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    rng = np.random.default_rng(3)
    shape = {"ragged": (40, 72), "experts": (3, 32, 64)}.get(kind, (64, 96))
    weight, block = fp8(rng, *shape), [16, 32]
    grid = (*shape[:-2], -(-shape[-2] // 16), -(-shape[-1] // 32)) if kind != "one" else ()
    scale = torch.from_numpy(rng.uniform(1e-3, 1e-2, grid).astype(np.float32)).reshape(grid)
    if kind == "powers-of-two":
        scale = scale.to(torch.float8_e8m0fnu)
    if kind == "ragged":
        whole = scale.repeat_interleave(16, 0).repeat_interleave(32, 1)[:40, :72]
        expected = (weight.float() * whole).bfloat16()
    else:
        plain = scale.float()
        expected = Fp8Dequantize(None)._dequantize_one(weight, plain, torch.bfloat16)
    name = "experts.gate_up_proj" if kind == "experts" else "q.weight"
    tensors = {name: weight, f"{name}_scale_inv": scale, "q.activation_scale": torch.ones(1)}
    settings = {"quant_method": "fp8", "weight_block_size": None if kind == "one" else block}
    model = open_model(checkpoint(tensors, settings))
    assert set(model.tensors) == {name}
    assert np.array_equal(model.tensors[name].rows(), expected.float().numpy().reshape(-1, shape[-1]))
    assert np.array_equal(model.tensors[name].rows(17, 19), model.tensors[name].rows()[17:19])


@pytest.mark.parametrize("strategy", ["tensor", "channel", "block", "nvfp4", "mxfp4", "mxfp8"])
def test_compressed_floats(strategy, checkpoint):
    """Packed and decoded by compressed-tensors itself."""
    torch = pytest.importorskip("torch")
    quantization = pytest.importorskip("compressed_tensors.quantization")
    from compressed_tensors.compressors import BaseCompressor

    formats = {"nvfp4": "nvfp4-pack-quantized", "mxfp4": "mxfp4-pack-quantized", "mxfp8": "mxfp8-quantized"}
    options = {
        "block": {"block_structure": [32, 32]},
        "nvfp4": {"num_bits": 4, "strategy": "tensor_group", "group_size": 16},
        "mxfp4": {"num_bits": 4, "strategy": "group", "group_size": 32, "scale_dtype": torch.uint8},
        "mxfp8": {"strategy": "group", "group_size": 32, "scale_dtype": torch.uint8},
    }
    plain = {"num_bits": 8, "strategy": strategy, "type": "float", "symmetric": True}
    args = quantization.QuantizationArgs(**(plain | options.get(strategy, {})))
    scheme = quantization.QuantizationScheme(targets=["Linear"], weights=args)
    torch.manual_seed(0)
    grid = {"tensor": (1,), "channel": (64, 1), "block": (2, 3), "nvfp4": (64, 6)}.get(strategy, (64, 3))
    state = {"weight": torch.randn(64, 96)}
    if strategy.startswith("mx"):
        state["weight_scale"] = torch.exp2(torch.randint(-9, -4, grid).float())
    else:
        state["weight_scale"] = torch.rand(grid) * 0.01 + 0.001
    if strategy == "nvfp4":
        state["weight_scale"] = (state["weight_scale"] * 1e4).to(torch.float8_e4m3fn).float()
        state["weight_global_scale"] = torch.tensor([3000.0])
    compressor = BaseCompressor.get_value_from_registry(formats.get(strategy, "float-quantized"))
    packed = compressor.compress(state, scheme)
    expected = compressor.decompress(packed, scheme)["weight"].float().numpy()
    settings = {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": json.loads(scheme.model_dump_json())},
    }
    model = open_model(checkpoint({f"q.{name}": t.contiguous() for name, t in packed.items()}, settings))
    assert set(model.tensors) == {"q.weight"}
    values = model.tensors["q.weight"].rows()
    assert np.abs(values - expected).max() <= 2**-8 * np.abs(expected).max()
    assert np.array_equal(model.tensors["q.weight"].rows(5, 9), values[5:9])


def test_blocks_of_gpt_oss(checkpoint):
    """The same values in ggml's MXFP4, nothing rounded."""
    torch = pytest.importorskip("torch")
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    torch.manual_seed(0)
    blocks = torch.randint(0, 256, (3, 8, 4, 16), dtype=torch.uint8)
    scales = torch.randint(110, 130, (3, 8, 4), dtype=torch.uint8)
    expected = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
    parts = {"experts.up_proj_blocks": blocks, "experts.up_proj_scales": scales}
    tensor = open_model(checkpoint(parts, {"quant_method": "mxfp4"})).tensors["experts.up_proj_blocks"]
    assert (tensor.type, tensor.shape) == ("MXFP4", (3, 8, 128))
    values = tensor.rows().reshape(tensor.shape)
    assert np.array_equal(values.swapaxes(1, 2), expected.reshape(3, 128, 8).numpy())
    assert np.array_equal(tensor.rows(9, 11), tensor.rows()[9:11])


def golden(name):
    return load_file(GOLDEN / name / "model.safetensors")


@pytest.mark.parametrize(
    ("source", "part", "value", "problem"),
    [
        ("nf4-nested", "weight.absmax", None, "U8, packed as no layer of bitsandbytes"),
        ("nf4-nested", "weight.quant_map", None, "q_proj has no weight.quant_map"),
        ("nf4-nested", "weight.quant_map", np.ones(4, np.float32), "not .1, 16."),
        ("nf4-nested", "weight.absmax", np.ones(3, np.uint8), "3 scales for 16 blocks"),
        ("nf4-nested", "weight", np.ones((9, 1), np.uint8), "9 bytes do not hold a weight of"),
        ("nf4-nested", "weight.quant_state.bitsandbytes__nf4", np.ones(9, np.uint8), "not a JSON object"),
        ("nf4-nested", "weight.nested_absmax", np.ones(2, np.float32), "not .1, 1."),
        ("int8", "SCB", np.ones(3, np.float32), "not .1, 32."),
        ("int8", "weight_format", np.uint8(1), "not row-major"),
        ("int8", "weight", np.ones((32, 32), np.float32), "not a matrix of 8-bit integers"),
        ("auto-round", "qzeros", np.ones((3, 1), np.int32), "bits is 0"),
        ("auto-round", "scales", None, "has no scales"),
        ("hqq", "packing", np.frombuffer(b"5bit_u8", np.uint8), "packing '5bit_u8'"),
        ("hqq", "shape", np.array([3, 5]), "do not divide"),
        ("hqq", "shape", np.array([64, 32]), "W_q has 512 bytes"),
        ("hqq", "axis", np.int32(2), "along axis 2"),
        ("hqq", "group_size", np.int32(0), "groups of 0"),
        ("hqq", "scale", np.ones(3, np.float16), "not .32, 1."),
        ("hqq", "quant_scale", np.uint8(1), "quantized themselves"),
        ("hqq", "zero", None, "has no zero"),
    ],
)
def test_damaged_layers(source, part, value, problem, checkpoint):
    name = f"{'w4' if source == 'auto-round' else 'model.layers.0.self_attn.q_proj'}.{part}"
    tensors = {key: tensor for key, tensor in golden(source).items() if key != name or value is not None}
    tensors = tensors if value is None else tensors | {name: np.asarray(value)}
    settings = json.loads((GOLDEN / source / "config.json").read_text())["quantization_config"]
    with pytest.raises((FormatError, UnsupportedError), match=problem):
        open_model(checkpoint(tensors, settings))


def test_hqq_s_own_file_is_a_pickle(tmp_path):
    import pickle

    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "qmodel.pt").write_bytes(pickle.dumps({"W_q": [1]}))
    with pytest.raises(UnsupportedError, match=r"qmodel\.pt: a pickle"):
        open_model(tmp_path)


KINDS = st.sampled_from([np.uint8, np.int8, np.int32, np.int64, np.float16, np.float32])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_part_may_be_anything(data, checkpoint):
    """Another shape, another type, any bytes, or nothing: one error, or weights of the stated shape."""
    source = data.draw(st.sampled_from(["nf4-nested", "int8", "hqq", "hqq-layers", "modelopt"]))
    config = json.loads((GOLDEN / source / "config.json").read_text())
    kind = "pt" if source in ("nf4-nested", "modelopt") else "np"
    tensors = torch_tensors(source) if kind == "pt" else golden(source)
    name = data.draw(st.sampled_from(sorted(tensors)))
    if data.draw(st.booleans()):
        del tensors[name]
    else:
        shape = data.draw(st.lists(st.integers(1, 40), max_size=3))
        odd = np.random.default_rng(0).integers(0, 256, shape).astype(data.draw(KINDS))
        tensors[name] = odd if kind == "np" else as_torch(odd)
    with contextlib.suppress(TeraziError), np.errstate(all="ignore"):
        model = open_model(checkpoint(tensors, config["quantization_config"]))
        for tensor in model.tensors.values():
            assert tensor.encoded().shape == (tensor.row_count, tensor.row_bytes)


def torch_tensors(source):
    from safetensors.torch import load_file

    return load_file(GOLDEN / source / "model.safetensors")


def as_torch(array):
    import torch

    return torch.from_numpy(array)


def test_auto_round_s_other_packings_are_named(checkpoint):
    settings = {"quant_method": "auto-round", "packing_format": "auto_round:llm_compressor"}
    with pytest.raises(FormatError, match="packing_format is auto_round:llm_compressor, not"):
        open_model(checkpoint(golden("auto-round"), settings))
