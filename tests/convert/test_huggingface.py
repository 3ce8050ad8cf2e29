"""From GGUF back to a directory that transformers loads: the same logits, the same tokens."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from terazi.convert import huggingface
from terazi.convert.gguf import to_gguf
from terazi.convert.huggingface_tokenizer import tokenizer_files
from terazi.errors import ExistsError, UnsupportedError, UsageError
from terazi.formats import gguf, open_model
from terazi.model.arch import architectures

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def _families():
    spec = importlib.util.spec_from_file_location("families", Path(__file__).with_name("test_families.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FAMILIES = _families()
ROUND_TRIPS = [
    "llama-tied",
    "llama-biases",
    "llama-llama3",
    "llama-head-size",
    "mixtral",
    "smollm3",
    "qwen2",
    "qwen2-yarn",
    "qwen3",
    "qwen2moe",
    "qwen3moe",
    "gemma",
    "gemma2",
    "gemma2-no-softcaps",
    "gemma3",
    "phi2",
    "phi3",
    "phi3-long-context",
    "olmo2",
    "granite",
    "starcoder2",
    "gpt2",
    "gptneox",
    "mamba",
    "ernie4_5",
    "nemotron",
    "arcee",
    "stablelm",
    "olmo",
    "olmoe",
    "command-r",
    "cohere2",
    "exaone4",
    "glm4",
    "hunyuan-dense",
    "seed_oss",
]


QUICK = {"llama-llama3", "mixtral", "gemma3", "phi3", "gpt2"}


@pytest.mark.parametrize(
    "family", [pytest.param(f, marks=() if f in QUICK else pytest.mark.slow) for f in ROUND_TRIPS]
)
def test_there_and_back(family, save, convert, tmp_path):
    model = FAMILIES.build(*FAMILIES.DECODERS[family])
    path = convert(save(model))
    huggingface.convert(open_model(path), tmp_path / "back")
    again, loading = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "back", attn_implementation="eager", output_loading_info=True
    )
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    tokens = torch.tensor(FAMILIES.TOKENS[None])
    with torch.no_grad():
        expected, logits = model(tokens).logits, again.eval()(tokens).logits
    assert (logits - expected).abs().max() < 1e-5 * expected.std()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    original = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    text = "It's 12345 words;  naïve 中文\n\n x = y[1]"
    assert tokenizer(text)["input_ids"] == original(text)["input_ids"]
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


ENCODERS = [
    "bert",
    "roberta",
    "xlm-roberta",
    "distilbert",
    "modern-bert",
    "nomic-bert",
    "jina-bert-v3",
    "eurobert",
]


@pytest.mark.parametrize("family", [pytest.param(f, marks=pytest.mark.slow) for f in ENCODERS])
def test_encoders_there_and_back(family, save, convert, tmp_path):
    model = FAMILIES.build_encoder(*FAMILIES.ENCODERS[family])
    path = convert(save(model))
    huggingface.convert(open_model(path), tmp_path / "back")
    again, loading = transformers.AutoModel.from_pretrained(
        tmp_path / "back", attn_implementation="eager", output_loading_info=True
    )
    assert not [name for name in loading["missing_keys"] if "pooler" not in name]
    assert not loading["unexpected_keys"]
    tokens = torch.tensor(np.maximum(FAMILIES.TOKENS, 3)[None])
    with torch.no_grad():
        expected, states = model(tokens).last_hidden_state, again.eval()(tokens).last_hidden_state
    assert (states - expected).abs().max() < 1e-5 * expected.std()


def test_every_way_back_is_tested():
    tested = {FAMILIES.DECODERS[family][0] for family in ROUND_TRIPS}
    tested |= {FAMILIES.ENCODERS[family][0] for family in ENCODERS}
    for table in architectures():
        if table.back:
            assert any(table.classes[0].startswith(name) for name in tested), table.classes[0]


def test_bert(minilm, convert, tmp_path):
    path = convert(minilm)
    huggingface.convert(open_model(path), tmp_path / "back")
    again = transformers.AutoModel.from_pretrained(tmp_path / "back", add_pooling_layer=False).eval()
    model = transformers.AutoModel.from_pretrained(minilm, add_pooling_layer=False).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    original = transformers.AutoTokenizer.from_pretrained(minilm)
    text = "Héllo, WORLD! 中文 unaffable don't 3.14"
    assert tokenizer(text)["input_ids"] == original(text)["input_ids"]
    with torch.no_grad():
        tokens = original(text, return_tensors="pt")["input_ids"]
        difference = again(tokens).last_hidden_state - model(tokens).last_hidden_state
    assert difference.abs().max() < 1e-5


def test_a_quantized_file_is_decoded(smollm2, tmp_path):
    """SmolLM2 in Q4_1: transformers with the decoded weights ranks tokens as llama.cpp does."""
    from terazi.runtime.llamacpp import open_engine

    artifact = huggingface.convert(open_model(smollm2), tmp_path / "back", type="F32")
    assert artifact.label == "F32"
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    text = "The capital of France is Paris, and the capital of Italy is"
    with open_engine(smollm2, context=256, threads=1) as engine:
        tokens = engine.tokenize(text)
        logits = engine.logits(tokens)
    assert tokenizer(text)["input_ids"] == tokens
    with torch.no_grad():
        expected = model(torch.tensor([tokens])).logits[0].numpy()
    # llama.cpp rounds activations to 8 bits for a Q4_1 matrix, so the logits differ a little.
    assert np.corrcoef(logits.reshape(-1), expected.reshape(-1))[0, 1] > 0.999
    assert tokenizer.decode(int(expected[-1].argmax())) == " Rome"
    assert tokenizer.chat_template


@pytest.mark.parametrize("type", ["F16", "BF16"])
def test_types_and_shards(type, save, convert, tmp_path):
    from terazi.formats.huggingface import writer

    model = FAMILIES.build("Qwen3", {"head_dim": 16})
    made = huggingface.to_huggingface(open_model(convert(save(model))), type=type)
    tensors = list(made.tensors.values())
    assert {tensor.type for tensor in tensors} == {type}
    files = writer.write(
        tmp_path / "b", tensors, {"config.json": json.dumps(made.metadata)}, shard_bytes=50_000
    )
    assert len([file for file in files if file.suffix == ".safetensors"]) > 2
    again = open_model(tmp_path / "b")
    assert list(again.tensors) == [tensor.name for tensor in tensors]
    for tensor in tensors:
        assert np.array_equal(again.tensors[tensor.name].encoded(), tensor.encoded())
    with pytest.raises(ExistsError):
        writer.write(tmp_path / "b", tensors, {})
    writer.write(tmp_path / "b", tensors, {}, force=True)
    assert (tmp_path / "b" / "config.json").exists()
    assert len(list((tmp_path / "b").glob("*.safetensors"))) == 1


def test_no_way_back(reference_9m, tmp_path):
    with pytest.raises(UsageError, match="cannot convert to Q4_K"):
        huggingface.convert(open_model(reference_9m), tmp_path / "back", type="Q4_K")
    model = to_gguf(open_model(reference_9m))
    renamed = {key.replace("llama.", "rwkv6."): value for key, value in model.metadata.items()}
    renamed["general.architecture"] = "rwkv6"
    path = gguf.write(tmp_path / "odd.gguf", renamed, list(model.tensors.values()))
    with pytest.raises(UnsupportedError, match="rwkv6 has no way back to Hugging Face; these have: arcee"):
        huggingface.convert(open_model(path), tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_odd_vocabularies(reference_9m):
    metadata = dict(to_gguf(open_model(reference_9m)).metadata)
    with pytest.raises(UnsupportedError, match="tokenizer has no counterpart"):
        tokenizer_files(metadata | {"tokenizer.ggml.model": "rwkv"})
    with pytest.raises(UnsupportedError, match="pre-tokenizer 'kimi-k2'"):
        tokenizer_files(metadata | {"tokenizer.ggml.pre": "kimi-k2"})
