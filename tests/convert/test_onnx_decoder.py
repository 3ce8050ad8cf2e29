"""Language models that onnxruntime-genai's builder does not know: the logits and the text of transformers."""

import json

import numpy as np
import onnxruntime
import pytest

from terazi import api
from terazi.convert import onnx_decoder
from terazi.convert.onnx import convert, export_module
from terazi.errors import UnsupportedError
from terazi.formats import open_model
from terazi.runtime.onnxruntime import open_engine

pytest.importorskip("onnxruntime_genai")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
USUAL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
FALCON = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
# model_type -> config; windows of 5 tokens, so that the oldest ones are out of sight.
FAMILIES = {
    "gpt_neox": USUAL,
    "stablelm": USUAL,
    "starcoder2": USUAL | {"sliding_window": 5},
    "falcon": FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2, "alibi": False},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64},
    "opt": USUAL | {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "gptj": GPT2 | {"rotary_dim": 4},
    "gpt_bigcode": GPT2,
    "olmo2": USUAL,
    "olmo3": USUAL | {"sliding_window": 5},
    "cohere": USUAL | {"logit_scale": 1.0},
    "cohere2": USUAL | {"sliding_window": 5, "logit_scale": 1.0},
    "glm4": USUAL | {"head_dim": 8},
    "helium": USUAL | {"head_dim": 8},
    "apertus": USUAL,
    "exaone4": USUAL | {"sliding_window": 5, "sliding_window_pattern": 2},
}
TEXT = "The value of the expression is an object"


def network(family, **values):
    values |= {"vocab_size": 320, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    config = transformers.AutoConfig.for_model(family, **values)
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


def compare(model, source, directory):
    """Convert, then compare the engine's tokens, logits and greedy text with those of transformers."""
    convert(open_model(source), directory)
    prompt = torch.tensor([transformers.AutoTokenizer.from_pretrained(source)(TEXT)["input_ids"]])
    with torch.inference_mode():
        expected = model(prompt).logits[0].numpy()
        made = model.generate(prompt, max_new_tokens=12, do_sample=False)[0, prompt.shape[1] :]
    with open_engine(directory, threads=1) as engine:
        assert engine.tokenize(TEXT) == prompt[0].tolist()
        seen = engine.logits(prompt[0].tolist())
        assert np.abs(seen - expected).max() < 1e-4 * np.abs(expected).max()
        written = engine.generate(TEXT, max_tokens=12, temperature=0)
        assert written.text == engine.detokenize([token for token in made.tolist() if token])


def test_gpt2_writes_what_transformers_writes(save, tmp_path):
    model = network("gpt2", **GPT2)
    compare(model, save(model), tmp_path / "onnx")
    exported = open_model(tmp_path / "onnx")
    assert exported.metadata["outputs"][0] == "logits"
    assert exported.config.architecture == "gpt2"
    settings = json.loads((tmp_path / "onnx" / "genai_config.json").read_text())["model"]
    assert settings["context_length"] == 64
    assert settings["eos_token_id"] == [0]
    assert settings["decoder"]["num_key_value_heads"] == 4
    assert settings["decoder"]["head_size"] == 8
    # padded on the left, two at a time
    tokens = np.random.default_rng(1).integers(1, 320, (2, 9))
    mask = np.ones_like(tokens)
    mask[0, :4] = 0
    positions = np.maximum(mask.cumsum(1) - 1, 0)
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "model.onnx")
    feeds = {"input_ids": tokens, "attention_mask": mask, "position_ids": positions}
    feeds |= {
        value.name: np.zeros((2, 4, 0, 8), np.float32)
        for value in session.get_inputs()
        if value.name.startswith("past")
    }
    seen = np.asarray(session.run(["logits"], feeds)[0])
    with torch.inference_mode():
        expected = model(torch.from_numpy(tokens[:1, 4:])).logits.numpy()
    assert np.abs(seen[0, 4:] - expected[0]).max() < 1e-4 * np.abs(expected).max()


def test_a_trace_of_one_length_is_refused(save, tmp_path, monkeypatch):
    source = save(network("gpt2", **GPT2))
    wrapped = onnx_decoder._wrapped

    def frozen(network, names):
        module = wrapped(network, names)
        forward = module.forward
        module.forward = lambda *values: forward(torch.ones_like(values[0]), *values[1:])
        return module

    monkeypatch.setattr(onnx_decoder, "_wrapped", frozen)
    with pytest.raises(UnsupportedError, match="GPT2LMHeadModel: the trace is off by"):
        convert(open_model(source), tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def test_other_types_come_from_quantize(save, tmp_path):
    source = save(network("gpt2", **GPT2))
    with pytest.raises(UnsupportedError, match="exported in F32, not INT4") as caught:
        convert(open_model(source), tmp_path / "onnx", type="INT4")
    assert "terazi quantize" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("family", "values", "reason"),
    [
        ("mamba", {"hidden_size": 32, "num_hidden_layers": 2}, "not a cache of keys and values"),
        ("mixtral", USUAL | {"num_local_experts": 4}, "histc"),
    ],
)
@pytest.mark.slow
def test_what_neither_exporter_has_gets_one_line(family, values, reason, save, tmp_path, capfd):
    source = save(network(family, **values))
    capfd.readouterr()
    with pytest.raises(UnsupportedError, match=reason) as caught:
        convert(open_model(source), tmp_path / "onnx")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "onnx").exists()
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.slow
def test_families(family, save, tmp_path):
    model = network(family, **FAMILIES[family])
    compare(model, save(model), tmp_path / "onnx")


@pytest.mark.slow
def test_a_gguf_file_is_decoded_and_exported(save, tmp_path):
    model = network("starcoder2", **USUAL)
    api.convert(save(model), output=tmp_path / "model.gguf", type="F32")
    convert(open_model(tmp_path / "model.gguf"), tmp_path / "onnx")
    tokens = [5, 9, 200, 31, 7]
    with torch.inference_mode():
        expected = model(torch.tensor([tokens])).logits[0].numpy()
    with open_engine(tmp_path / "onnx", threads=1) as engine:
        assert np.abs(engine.logits(tokens) - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("recipe", ["w8", "w4"])
@pytest.mark.slow
def test_quantized_exports_run(recipe, save, tmp_path):
    model = network("gpt2", **GPT2 | {"n_embd": 128})
    convert(open_model(save(model)), tmp_path / "onnx")
    api.quantize(open_model(tmp_path / "onnx"), recipe, output=tmp_path / recipe, threads=1)
    with (
        open_engine(tmp_path / "onnx", threads=1) as full,
        open_engine(tmp_path / recipe, threads=1) as small,
    ):
        tokens = full.tokenize(TEXT)
        expected, seen = full.logits(tokens), small.logits(tokens)
        assert small.generate(TEXT, max_tokens=4, temperature=0).tokens == 4
    assert np.abs(seen - expected).max() > 0
    assert np.corrcoef(seen.ravel(), expected.ravel())[0, 1] > {"w8": 0.999, "w4": 0.9}[recipe]


@pytest.mark.slow
def test_a_module_over_2_gb_keeps_its_weights_beside_the_graph(tmp_path):
    module = torch.nn.Embedding(4_500_000, 120)
    file = export_module(module, {"x": torch.tensor([0, 4_499_999])}, tmp_path / "module.onnx")
    assert file.stat().st_size < 1 << 20
    session = onnxruntime.InferenceSession(file)
    seen = np.asarray(session.run(None, {"x": np.array([7, 4_000_000])})[0])
    assert np.array_equal(seen, module.weight[[7, 4_000_000]].detach().numpy())
