"""Real checkpoints and the whole command: the result runs in llama.cpp and computes the same."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import terazi
from terazi.cli.convert import command
from terazi.convert.gguf import to_gguf
from terazi.errors import ExistsError, FormatError, UnsupportedError, UsageError
from terazi.formats import open_model
from terazi.runtime.llamacpp import open_engine

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SENTENCES = [
    "A man is eating food.",
    "Héllo, WORLD! 中文 naïve don't [x] e-mail@test.com 3.14",
    "The quick brown fox jumps over the lazy dog; unaffable, antidisestablishmentarianism.",
    "x",
]


def test_llama_checkpoint_gives_the_logits_of_transformers(reference_9m, hamlet, convert, llama_cpp):
    """In float32 throughout, the largest difference is below 1e-4 of the logits' spread."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(reference_9m)
    tokens = tokenizer(hamlet.read_text("utf-8")[2000:5000])["input_ids"][:256]
    model = transformers.AutoModelForCausalLM.from_pretrained(reference_9m, dtype=torch.float32)
    with torch.no_grad():
        expected = model(torch.tensor([tokens])).logits[0].numpy()
    logits = llama_cpp(convert(reference_9m), tokens)
    assert np.abs(logits - expected).max() < 1e-4 * expected.std()


def test_as_users_run_it_the_likeliest_token_stays(reference_9m, hamlet, convert):
    """With llama.cpp's default F16 cache: KL divergence below 1e-5, the same top token everywhere."""
    path = convert(reference_9m)
    model = transformers.AutoModelForCausalLM.from_pretrained(reference_9m, dtype=torch.float32)
    with open_engine(path, context=512, threads=1) as engine:
        tokens = engine.tokenize(hamlet.read_text("utf-8")[2000:5000])[:400]
        logits = torch.tensor(engine.logits(tokens))
    with torch.no_grad():
        expected = model(torch.tensor([tokens])).logits[0]
    ours, theirs = logits.log_softmax(-1), expected.log_softmax(-1)
    assert (theirs.exp() * (theirs - ours)).sum(-1).mean() < 1e-5
    assert (logits.argmax(-1) == expected.argmax(-1)).float().mean() > 0.99


def test_minilm_gives_the_vectors_of_transformers(minilm, convert):
    """Mean-pooled unit vectors agree to 1e-5 per component... in llama.cpp's default precision, to 1e-3."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    model = transformers.AutoModel.from_pretrained(minilm, dtype=torch.float32)
    with open_engine(convert(minilm), context=512, threads=1, embedding=True) as engine:
        vectors = engine.embed(SENTENCES)
        tokens = [engine.tokenize(sentence) for sentence in SENTENCES]
    assert tokens == [tokenizer(sentence)["input_ids"] for sentence in SENTENCES]
    for vector, sentence in zip(vectors, SENTENCES, strict=True):
        with torch.no_grad():
            pooled = model(**tokenizer(sentence, return_tensors="pt")).last_hidden_state[0].mean(0).numpy()
        assert np.abs(vector - pooled / np.linalg.norm(pooled)).max() < 1e-3


def test_minilm_is_described(minilm):
    model = to_gguf(open_model(minilm))
    assert model.metadata["general.architecture"] == "bert"
    assert model.metadata["general.license"] == "apache-2.0"
    assert model.metadata["bert.pooling_type"] == 1
    assert model.metadata["bert.attention.causal"] is False
    assert model.config.block_count == 6
    assert model.tokenizer.kind == "bert"
    assert model.variant == "embedding"


@pytest.mark.parametrize("type", ["F32", "F16", "BF16"])
def test_types(reference_9m, type):
    model = to_gguf(open_model(reference_9m), type=type)
    assert {tensor.type for tensor in model.tensors.values() if len(tensor.shape) > 1} == {type}
    assert {tensor.type for tensor in model.tensors.values() if len(tensor.shape) == 1} == {"F32"}
    original = open_model(reference_9m).tensors["model.layers.3.mlp.down_proj.weight"].rows()
    kept = model.tensors["blk.3.ffn_down.weight"].rows()
    assert (
        np.abs(kept - original).max() <= np.abs(original).max() * {"F32": 0, "F16": 1e-3, "BF16": 4e-3}[type]
    )


def test_a_converted_model_is_returned_as_it_is(smollm2):
    model = open_model(smollm2)
    assert to_gguf(model) is model


def test_verb_and_command(reference_9m, tmp_path):
    artifact = terazi.convert(reference_9m, output=tmp_path / "a.gguf", type="F16")
    assert artifact.size == (tmp_path / "a.gguf").stat().st_size
    assert artifact.label == "F16"
    runner = CliRunner()
    arguments = [str(reference_9m), str(tmp_path / "b.gguf"), "--type", "f16", "--json"]
    dry = json.loads(runner.invoke(command, [*arguments, "--dry-run"]).stdout)
    assert not (tmp_path / "b.gguf").exists()
    done = json.loads(runner.invoke(command, arguments).stdout)
    assert dry["size"] == done["size"] == artifact.size
    assert done["digest"] == artifact.digest
    with pytest.raises(ExistsError):
        terazi.convert(reference_9m, output=tmp_path / "a.gguf")
    with pytest.raises(UnsupportedError, match="gguf does not convert to gguf"):
        terazi.convert(tmp_path / "a.gguf", output=tmp_path / "c.gguf")
    with pytest.raises(UsageError, match="convert to"):
        terazi.convert(reference_9m, to="flac", output=tmp_path / "c.gguf")


@pytest.fixture
def damaged(reference_9m, tmp_path):
    """Copy the small checkpoint with changes to config.json."""

    def make(**changes):
        directory = tmp_path / "damaged"
        shutil.copytree(reference_9m, directory)
        config = json.loads((directory / "config.json").read_text())
        (directory / "config.json").write_text(json.dumps(config | changes))
        return directory

    return make


def test_unknown_architecture_names_the_nearest(damaged):
    with pytest.raises(
        UnsupportedError, match="nearest supported architecture is Qwen3ForCausalLM"
    ) as caught:
        to_gguf(open_model(damaged(architectures=["Qwen33ForCausalLM"])))
    assert "convert.md" in caught.value.hint


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"architectures": []}, "no architectures"),
        ({"num_attention_heads": 0}, "heads"),
        ({"num_attention_heads": 7}, "q_proj.weight: 256 rows are not 7 heads"),
        ({"num_key_value_heads": -2}, "num_key_value_heads"),
        ({"max_position_embeddings": True}, "max_position_embeddings"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps"),
        ({"rope_parameters": {"rope_type": "spiral"}}, "spiral"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 0}}, "impossible"),
        ({"rope_parameters": [1]}, "rope_parameters"),
    ],
)
def test_senseless_configurations(damaged, changes, problem):
    with pytest.raises((FormatError, UnsupportedError), match=problem):
        to_gguf(open_model(damaged(**changes)))


def test_a_tensor_without_a_place_is_an_error(damaged):
    with pytest.raises(UnsupportedError, match="bert table does not name this tensor"):
        to_gguf(open_model(damaged(architectures=["BertModel"], hidden_act="gelu")))


def test_without_tokenizer(damaged):
    directory = damaged()
    (directory / "tokenizer.json").unlink()
    with pytest.raises(UnsupportedError, match="has no tokenizer"):
        to_gguf(open_model(directory))


def test_a_gptq_checkpoint_becomes_gguf(reference_9m, tmp_path, llama_cpp, convert):
    """Packed integers, decoded on the way, give the logits of the same integers in transformers."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(reference_9m / "model.safetensors")
    plain, packed = {}, {}
    for name, weight in tensors.items():
        if not name.endswith("proj.weight"):
            plain[name] = packed[name] = weight
            continue
        scale = (weight.abs().amax(1, keepdim=True) / 7).half()
        numbers = torch.clamp((weight / scale.float()).round() + 8, 0, 15).int()
        plain[name] = ((numbers - 8) * scale.float()).half().float()
        base = name.removesuffix(".weight")
        shifts = torch.arange(0, 32, 4)
        words = (numbers.T.reshape(-1, 8, numbers.shape[0]).long() << shifts[None, :, None]).sum(1)
        packed[f"{base}.qweight"] = words.to(torch.int32)
        packed[f"{base}.qzeros"] = torch.full((1, weight.shape[0] // 8), 0x77777777, dtype=torch.int32)
        packed[f"{base}.scales"] = scale.T.contiguous()
    for kind, parts in (("plain", plain), ("packed", packed)):
        shutil.copytree(reference_9m, tmp_path / kind)
        save_file({n: t.contiguous() for n, t in parts.items()}, tmp_path / kind / "model.safetensors")
    config = json.loads((reference_9m / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4, "group_size": -1}
    (tmp_path / "packed" / "config.json").write_text(json.dumps(config))
    tokens = np.arange(100, 164)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "plain", dtype=torch.float32)
    with torch.no_grad():
        expected = model(torch.tensor(tokens[None])).logits[0].numpy()
    logits = llama_cpp(convert(tmp_path / "packed", type="F32"), tokens)
    assert np.abs(logits - expected).max() < 1e-4 * expected.std()


GOLDEN = Path(__file__).parents[1] / "golden" / "quantizers"


def quantized_to_fp8(directory):
    """Quantize the layers of a checkpoint to FP8 in blocks; returns what they stand for."""
    from safetensors.torch import load_file, save_file

    tensors, values = load_file(GOLDEN / "nf4-nested" / "model.safetensors"), {}
    packed = {name: tensor for name, tensor in tensors.items() if "proj" not in name}
    torch.manual_seed(0)
    for name in load_file(GOLDEN / "nf4-nested" / "expected.safetensors"):
        rows, columns = load_file(GOLDEN / "nf4-nested" / "expected.safetensors")[name].shape
        weight = (torch.randn(rows, columns) * 100).to(torch.float8_e4m3fn)
        scale = torch.rand(-(-rows // 16), -(-columns // 32)) * 0.004 + 0.001
        whole = scale.repeat_interleave(16, 0).repeat_interleave(32, 1)[:rows, :columns]
        packed |= {f"{name}.weight": weight, f"{name}.weight_scale_inv": scale}
        values[name] = (weight.float() * whole).bfloat16()
    directory.mkdir()
    save_file(packed, directory / "model.safetensors")
    config = json.loads((GOLDEN / "nf4-nested" / "config.json").read_text())
    settings = {"quant_method": "fp8", "weight_block_size": [16, 32]}
    (directory / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    return values


@pytest.mark.parametrize("source", ["nf4-nested", "fp4", "int8", "hqq", "fp8"])
def test_checkpoints_quantized_by_others(source, tmp_path, byte_level, convert, llama_cpp):
    """llama.cpp gives the logits of transformers with the weights that the quantizer's library decoded."""
    from safetensors.torch import load_file

    directory = tmp_path / "quantized"
    if source == "fp8":
        values = quantized_to_fp8(directory)
    else:
        shutil.copytree(GOLDEN / source, directory, ignore=shutil.ignore_patterns("expected*"))
        values = load_file(GOLDEN / source / "expected.safetensors")
    (directory / "tokenizer.json").write_text(byte_level, "utf-8")
    plain = load_file(directory / "model.safetensors")
    plain = {name: tensor for name, tensor in plain.items() if "proj" not in name}
    plain |= {f"{name}.weight": tensor for name, tensor in values.items()}
    config = json.loads((directory / "config.json").read_text())
    del config["quantization_config"]
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config)).eval()
    missing, unexpected = model.load_state_dict({n: t.float() for n, t in plain.items()}, strict=False)
    assert (missing, unexpected) == (["lm_head.weight"], [])
    model.tie_weights()
    tokens = np.arange(30, 94)
    with torch.no_grad():
        expected = model(torch.tensor(tokens[None])).logits[0].numpy()
    logits = llama_cpp(convert(directory, type="F32"), tokens)
    # HQQ and LLM.int8() round to 16 bits in other places than Terazi.
    assert np.abs(logits - expected).max() < (5e-3 if source in ("hqq", "int8") else 2e-4) * expected.std()
    assert values


@pytest.fixture
def packed(tmp_path, byte_level):
    """Copy a checkpoint that bitsandbytes quantized, with a tokenizer."""
    shutil.copytree(GOLDEN / "nf4-nested", tmp_path / "nf4", ignore=shutil.ignore_patterns("expected*"))
    (tmp_path / "nf4" / "tokenizer.json").write_text(byte_level, "utf-8")
    return tmp_path / "nf4"


def test_a_quantized_checkpoint_becomes_a_plain_one(packed, tmp_path):
    terazi.convert(packed, to="safetensors", output=tmp_path / "plain")
    assert "quantization_config" not in json.loads((tmp_path / "plain" / "config.json").read_text())
    made, source = open_model(tmp_path / "plain").tensors, open_model(packed).tensors
    assert made.keys() == source.keys()
    assert all(np.array_equal(made[name].rows(), source[name].rows()) for name in made)


@pytest.mark.slow
def test_a_quantized_checkpoint_becomes_onnx(packed, tmp_path):
    pytest.importorskip("onnxruntime_genai")
    artifact = terazi.convert(packed, to="onnx", output=tmp_path / "onnx")
    assert artifact.label == "F32"
