"""Record small checkpoints of bitsandbytes, HQQ, ModelOpt and AutoRound, and what those decode.

Too large for the test environment, so run by hand in one of its own, on a CPU:

    python -m venv --system-site-packages /tmp/quantizers   # with torch, transformers, safetensors
    /tmp/quantizers/bin/pip install bitsandbytes==0.50.2 hqq==0.2.8.post1 nvidia-modelopt==0.47.0 \\
        auto-round==0.16.1 accelerate
    /tmp/quantizers/bin/python tests/golden/record_quantizers.py

Each directory of tests/golden/quantizers is a checkpoint; ``expected.safetensors`` beside it has what the
library's own dequantize gives for every packed layer.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).with_name("quantizers")
CONFIG = LlamaConfig(
    vocab_size=320,
    hidden_size=32,
    intermediate_size=96,
    num_hidden_layers=1,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    tie_word_embeddings=True,
    bos_token_id=0,
    eos_token_id=0,
)
BITSANDBYTES = {
    "nf4-nested": (
        {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
        torch.bfloat16,
    ),
    "fp4": ({"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"}, torch.float16),
    "nf4-stored-as-bf16": (
        {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_quant_storage": torch.bfloat16,
            "bnb_4bit_use_double_quant": True,
        },
        torch.float32,
    ),
    "int8": ({"load_in_8bit": True}, torch.float16),
}
# Name -> bits, group size, axis, type, packed words seen as floats.
HQQ = {
    "w8": (8, 32, 1, torch.float32, False),
    "w4": (4, 32, 1, torch.float32, False),
    "w4_half": (4, 64, 1, torch.float16, False),
    "w4_axis_0": (4, 64, 0, torch.float32, False),
    "w3": (3, 32, 1, torch.float32, False),
    "w3_axis_0": (3, 64, 0, torch.bfloat16, False),
    "w2": (2, 16, 1, torch.float32, True),
    "w2_axis_0": (2, 64, 0, torch.float32, False),
    "w1": (1, 32, 1, torch.float32, False),
    "w5": (5, 32, 1, torch.float32, False),
}


def base(directory):
    torch.manual_seed(0)
    model = LlamaForCausalLM(CONFIG)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.copy_(torch.randn_like(parameter) * 1.5 / parameter.shape[-1] ** 0.5)
    model.save_pretrained(directory)
    return model


def keep(name, tensors, config, expected):
    directory = HERE / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    save_file({n: t.contiguous() for n, t in tensors.items()}, directory / "model.safetensors")
    save_file({n: t.contiguous() for n, t in expected.items()}, directory / "expected.safetensors")
    (directory / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def record_bitsandbytes(source):
    import bitsandbytes
    from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
    from bitsandbytes.functional import dequantize_blockwise, int8_vectorwise_dequant

    for name, (options, kind) in BITSANDBYTES.items():
        model = AutoModelForCausalLM.from_pretrained(
            source, quantization_config=BitsAndBytesConfig(**options), dtype=kind
        )
        expected = {}
        for layer, module in model.named_modules():
            if isinstance(module, bitsandbytes.nn.Linear4bit):
                state = module.weight.quant_state
                # Its portable code: the AVX-512 kernel of 0.50.2 is wrong for rows of no whole blocks.
                codes, table = module.weight.data.view(torch.uint8).reshape(-1), state.code
                scales = state.absmax
                if state.nested:
                    scales = dequantize_blockwise(scales, state.state2) + state.offset
                expected[layer] = _dequantize_4bit_compute(
                    codes, scales, table, state.blocksize, state.shape, state.dtype
                )
            elif isinstance(module, bitsandbytes.nn.Linear8bitLt):
                expected[layer] = int8_vectorwise_dequant(module.weight.data, module.weight.SCB)
        with tempfile.TemporaryDirectory() as made:
            model.save_pretrained(made)
            config = json.loads((Path(made) / "config.json").read_text())
            keep(name, load_file(Path(made) / "model.safetensors"), config, expected)


def record_hqq(model):
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear

    def packed(weight, bits, group, axis, kind, as_float):
        linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=kind)
        linear.weight.data = weight.to(kind)
        settings = BaseQuantizeConfig(nbits=bits, group_size=group, axis=axis, view_as_float=as_float)
        return HQQLinear(linear, settings, compute_dtype=kind, device="cpu")

    config = json.loads(CONFIG.to_json_string(use_diff=False)) | {"architectures": ["LlamaForCausalLM"]}
    settings = {"nbits": 4, "group_size": 32, "axis": 1, "view_as_float": False}
    config["quantization_config"] = {
        "quant_method": "hqq",
        "quant_config": {"weight_quant_params": settings},
        "skip_modules": ["lm_head"],
    }
    layers, expected = {}, {}
    for name, options in HQQ.items():
        layer = packed(torch.randn(24, 96) * 0.1, *options)
        layers |= {f"{name}.{key}": value for key, value in layer.state_dict().items()}
        expected[name] = layer.dequantize()
    keep("hqq-layers", layers, config, expected)
    tensors = {n: t for n, t in model.state_dict().items() if "proj" not in n and n != "lm_head.weight"}
    tensors = {name: tensor.half() for name, tensor in tensors.items()}
    expected = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            layer = packed(module.weight.data, 4, 32, 1, torch.float16, False)
            tensors |= {f"{name}.{key}": value for key, value in layer.state_dict().items()}
            expected[name] = layer.dequantize()
    keep("hqq", tensors, config, expected)


def record_modelopt():
    """Pack with the quantized tensors that ModelOpt's export uses."""
    from modelopt.torch.quantization.qtensor import FP8QTensor, NVFP4QTensor

    torch.manual_seed(1)
    weight = torch.randn(24, 96) * 0.1
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 32}
    config["quantization_config"] = {"quant_method": "modelopt", "quant_algo": "NVFP4"}
    packed, scales, whole = NVFP4QTensor.quantize(weight, 16)
    half, _ = FP8QTensor.quantize(weight)
    fp8, scale = half, _
    tensors = {
        "nvfp4.weight": packed._quantized_data,
        "nvfp4.weight_scale": scales,
        "nvfp4.weight_scale_2": whole,
        "fp8.weight": fp8._quantized_data,
        "fp8.weight_scale": scale,
    }
    expected = {
        "nvfp4": packed.dequantize(torch.float32, scale=scales, double_scale=whole, block_sizes={-1: 16}),
        "fp8": fp8.dequantize(torch.float32, scale=scale),
    }
    keep("modelopt", tensors, config, expected)


def record_auto_round():
    """Pack with the layers that AutoRound's export uses; an identity matrix shows what they stand for."""
    from auto_round.export.export_to_awq.utils import WQLinear_GEMM
    from auto_round_extension.torch.qlinear_torch_zp import QuantLinear

    torch.manual_seed(3)
    rows, columns, group = 64, 96, 32
    tensors, expected = {}, {}
    for bits in (2, 3, 4, 8):
        linear = torch.nn.Linear(columns, rows, bias=False)
        scales = (torch.rand(rows, columns // group) * 0.02 + 0.001).half().float()
        zeros = torch.randint(1, 1 << bits, scales.shape)
        layer = QuantLinear(bits, group, columns, rows, False)
        layer.pack(linear, scales, zeros.float(), None)
        tensors |= {f"w{bits}.{name}": tensor for name, tensor in layer.state_dict().items()}
        expected[f"w{bits}"] = layer(torch.eye(columns)).T
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 32}
    settings = {
        "quant_method": "auto-round",
        "bits": 4,
        "group_size": group,
        "sym": False,
        "data_type": "int",
    }
    settings["packing_format"] = "auto_round:auto_gptq"
    keep("auto-round", tensors, config | {"quantization_config": settings}, expected)
    linear = torch.nn.Linear(columns, rows, bias=False).half()
    scales = (torch.rand(rows, columns // group) * 0.02 + 0.001).half()
    zeros = torch.randint(1, 16, scales.shape).half()
    layer = WQLinear_GEMM.from_linear(
        linear, 4, group, scales=scales.T.contiguous(), zeros=zeros.T.contiguous(), device="cpu"
    )
    numbers = (linear.weight / scales.repeat_interleave(group, 1) + zeros.repeat_interleave(group, 1)).round()
    stands = (numbers.clamp(0, 15) - zeros.repeat_interleave(group, 1)) * scales.repeat_interleave(group, 1)
    tensors = {f"q.{name}": tensor for name, tensor in layer.state_dict().items()}
    settings = settings | {"packing_format": "auto_round:auto_awq"}
    keep("auto-round-awq", tensors, config | {"quantization_config": settings}, {"q": stands})


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as source:
        model = base(source)
        for what in sys.argv[1:] or ["bitsandbytes", "hqq", "modelopt", "auto-round"]:
            {
                "bitsandbytes": lambda: record_bitsandbytes(source),
                "hqq": lambda: record_hqq(model),
                "modelopt": record_modelopt,
                "auto-round": record_auto_round,
            }[what]()
