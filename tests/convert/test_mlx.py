"""MLX directories: loaded and run by stock mlx-lm, read back, and the same bytes as mlx-lm's own."""

import dataclasses
import json

import numpy as np
import pytest

from terazi import api
from terazi.convert.mlx import RECIPES, convert
from terazi.errors import ExistsError, FormatError, UnsupportedError, UsageError
from terazi.formats import open_model

mx = pytest.importorskip("mlx.core", reason="mlx is not installed on this platform")
mlx_lm = pytest.importorskip("mlx_lm", reason="mlx-lm is not installed on this platform")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A small random Llama with rows of 128, saved by transformers, with a tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(5)
    directory = tmp_path_factory.mktemp("mlx") / "tiny-llama"
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    words = {f"t{i}": i for i in range(320)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="t0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="t1").save_pretrained(directory)
    return directory


def logits(directory):
    model, _ = mlx_lm.load(str(directory))
    return np.array(model(mx.array([[3, 77, 200, 5, 9]])).astype(mx.float32))[0]


CHOICES = [
    *(
        {"bits": bits, "group_size": group}
        for bits, group in ((2, 32), (3, 64), (4, 64), (5, 64), (6, 128), (8, 64))
    ),
    {"mode": "mxfp4"},
    {"mode": "nvfp4"},
    {"mode": "mxfp8"},
    {"recipe": "mixed_4_6"},
]


@pytest.mark.parametrize("options", CHOICES, ids=lambda options: "-".join(map(str, options.values())))
def test_same_model_as_mlx_lm_makes(checkpoint, tmp_path, options):
    """mlx-lm loads it; its logits are those of its own conversion; every array is the same."""
    convert(open_model(checkpoint), tmp_path / "ours", **options)
    theirs = {"q_bits": options.get("bits"), "q_group_size": options.get("group_size")}
    mlx_lm.convert(
        str(checkpoint),
        str(tmp_path / "theirs"),
        quantize=True,
        dtype="float16",
        q_mode=options.get("mode", "affine"),
        quant_predicate=options.get("recipe"),
        **theirs,
    )
    ours, expected = (
        mx.load(str(tmp_path / "ours/model.safetensors")),
        mx.load(str(tmp_path / "theirs/model.safetensors")),
    )
    assert ours.keys() == expected.keys()
    for name in expected:
        assert ours[name].dtype == expected[name].dtype, name
        assert np.array_equal(np.array(ours[name]), np.array(expected[name])), name
    assert np.array_equal(logits(tmp_path / "ours"), logits(tmp_path / "theirs"))


def test_more_bits_are_closer_to_the_original(checkpoint, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    with torch.inference_mode():
        exact = AutoModelForCausalLM.from_pretrained(checkpoint)(torch.tensor([[3, 77, 200, 5, 9]])).logits[0]
    errors = []
    for bits in (8, 6, 4, 2):
        convert(open_model(checkpoint), tmp_path / str(bits), bits=bits)
        errors.append(np.sqrt(((logits(tmp_path / str(bits)) - exact.numpy()) ** 2).mean()))
    assert errors == sorted(errors)
    assert errors[0] < 0.15 * errors[2]


@pytest.mark.parametrize("options", [{"bits": 4}, {"bits": 3}, {"mode": "mxfp4"}, {"mode": "mxfp8"}])
def test_reading_back_gives_what_mlx_dequantizes(checkpoint, tmp_path, options):
    convert(open_model(checkpoint), tmp_path / "out", **options)
    model = open_model(tmp_path / "out")
    assert model.format == "mlx"
    settings = json.loads((tmp_path / "out/config.json").read_text())["quantization"]
    stored = mx.load(str(tmp_path / "out/model.safetensors"))
    layer = "model.layers.3.mlp.down_proj"
    parts = [
        stored[f"{layer}.{part}"] for part in ("weight", "scales", "biases") if f"{layer}.{part}" in stored
    ]
    expected = mx.dequantize(*parts, **{key: settings[key] for key in ("group_size", "bits", "mode")})
    ours = model.tensors[f"{layer}.weight"].rows()
    assert np.allclose(ours, np.array(expected.astype(mx.float32)), rtol=4e-3, atol=2e-3)


def test_inspect_tells_what_is_stored(checkpoint, tmp_path):
    convert(open_model(checkpoint), tmp_path / "out", bits=4, group_size=64)
    found = api.inspect(tmp_path / "out")
    assert found.precision == "low"
    assert found.types[0].type == "affine 4-bit"
    assert 4.5 <= found.bits_per_weight < 4.6  # 4 bits, a scale and a bias of 16 per 64, and the norms
    assert found.parameters == api.inspect(checkpoint).parameters
    stored = (tmp_path / "out/model.safetensors").stat().st_size
    assert 0 <= stored - found.nbytes < 20_000  # the header


def test_to_gguf_and_from_gguf(checkpoint, reference_9m, tmp_path):
    """HF -> GGUF -> MLX and HF -> MLX -> GGUF keep the model."""
    api.convert(reference_9m, output=tmp_path / "m.gguf", type="F16")
    api.convert(tmp_path / "m.gguf", "mlx", output=tmp_path / "mlx", bits=8)
    prompt = mx.array([[5, 100, 900, 17, 3000, 42]])
    model, _ = mlx_lm.load(str(tmp_path / "mlx"))
    seen = np.array(model(prompt).astype(mx.float32))[0]
    api.convert(tmp_path / "mlx", output=tmp_path / "back.gguf")
    from terazi.runtime.llamacpp import open_engine

    with open_engine(tmp_path / "back.gguf", threads=1) as engine:
        back = engine.logits([5, 100, 900, 17, 3000, 42])
    assert np.sqrt(((seen - back) ** 2).mean()) < 0.02 * back.std()


def test_refusals(checkpoint, tmp_path):
    model = open_model(checkpoint)
    with pytest.raises(UsageError):
        convert(model, tmp_path / "o", bits=7)
    with pytest.raises(UsageError, match="recipe"):
        convert(model, tmp_path / "o", recipe="mixed_1_2")
    other = dataclasses.replace(model, metadata=model.metadata | {"model_type": "t5"})
    with pytest.raises(UnsupportedError, match="t5"):
        convert(other, tmp_path / "o")
    (tmp_path / "o").mkdir()
    (tmp_path / "o/file").write_text("x")
    with pytest.raises(ExistsError):
        convert(model, tmp_path / "o")
    assert sorted(RECIPES) == ["mixed_2_6", "mixed_3_4", "mixed_3_6", "mixed_4_6"]


@pytest.mark.parametrize(
    "change", [{"bits": 7}, {"bits": "4"}, {"group_size": 48}, {"mode": "nf4"}, {"bits": 8}, {"bits": 0}]
)
def test_settings_that_do_not_fit_get_one_line(checkpoint, tmp_path, change):
    convert(open_model(checkpoint), tmp_path / "out", bits=4)
    path = tmp_path / "out/config.json"
    config = json.loads(path.read_text())
    config["quantization"] |= change
    path.write_text(json.dumps(config))
    with pytest.raises(FormatError):
        open_model(tmp_path / "out")
