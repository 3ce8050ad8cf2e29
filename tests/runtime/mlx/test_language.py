"""Language models in MLX: the logits of mlx-lm and llama.cpp, what is written, and how it fails."""

import json
import shutil

import numpy as np
import pytest

from terazi import api
from terazi.errors import EngineError, MissingExtraError, NotFoundError
from terazi.runtime import llamacpp
from terazi.runtime.child import Child
from terazi.runtime.mlx import open_engine

mx = pytest.importorskip("mlx.core", reason="mlx is not installed on this platform")
mlx_lm = pytest.importorskip("mlx_lm", reason="mlx-lm is not installed on this platform")

TEXT = "The king hath sent for you, and the queen is in her chamber."


@pytest.fixture(scope="module")
def quantized(reference_9m, tmp_path_factory):
    output = tmp_path_factory.mktemp("mlx") / "reference-4bit"
    api.convert(reference_9m, "mlx", output=output, bits=4)
    return output


@pytest.fixture(scope="module")
def engine(quantized):
    with open_engine(quantized, context=128) as opened:
        yield opened


@pytest.fixture(scope="module")
def chatty(two_layers, tmp_path_factory):
    """Two layers of a model with a chat template."""
    output = tmp_path_factory.mktemp("mlx") / "two-layers-4bit"
    api.convert(two_layers, "mlx", output=output, bits=4)
    return output


@pytest.fixture
def copy(quantized, tmp_path):
    """Return a directory that a test may damage."""
    return shutil.copytree(quantized, tmp_path / "copy")


def in_process(directory, tokens):
    model, _ = mlx_lm.load(str(directory))
    return np.array(model(mx.array([tokens])).astype(mx.float32))[0]


def deviation(ours, theirs):
    """Root mean square difference over the spread of the logits."""
    return np.sqrt(((ours - theirs) ** 2).mean()) / theirs.std()


def test_unquantized_logits_are_those_of_mlx_lm_and_llama_cpp(reference_9m, tmp_path):
    api.convert(reference_9m, output=tmp_path / "m.gguf", type="F32")
    with open_engine(reference_9m, context=64) as opened:
        tokens = opened.tokenize(TEXT)
        seen = opened.logits(tokens)
        assert opened.vocabulary == seen.shape[1] == 4096
        assert opened.trained_context == 1024
    assert deviation(seen, in_process(reference_9m, tokens)) < 1e-5
    with llamacpp.open_engine(tmp_path / "m.gguf", context=64, threads=1) as other:
        assert other.tokenize(TEXT) == tokens
        assert deviation(seen, other.logits(tokens)) < 1e-3


def test_quantized_logits_are_those_of_mlx_lm_and_llama_cpp(engine, quantized, tmp_path):
    """mlx-lm computes in the float16 of the scales, the engine in float32, llama.cpp on decoded weights."""
    api.convert(quantized, output=tmp_path / "decoded.gguf", type="F32")
    tokens = engine.tokenize(TEXT)
    seen = engine.logits(tokens)
    assert seen.dtype == np.float32
    assert deviation(seen, in_process(quantized, tokens)) < 5e-3
    with llamacpp.open_engine(tmp_path / "decoded.gguf", context=64, threads=1) as other:
        assert deviation(seen, other.logits(tokens)) < 1e-3


def test_windows_come_in_order_from_any_position(engine):
    windows = np.random.default_rng(1).integers(0, 4096, (3, 40), np.int32)
    whole = [engine.logits(window.tolist()) for window in windows]
    found = list(engine.stream_logits(windows, first=25))
    assert len(found) == 3
    for ours, expected in zip(found, whole, strict=True):
        assert np.allclose(ours, expected[25:], atol=1e-3)


@pytest.mark.parametrize("tokens", [[1] * 129, [4096], [-1]])
def test_tokens_that_do_not_fit(engine, tokens):
    with pytest.raises(EngineError, match=r"do not fit a context of 128|outside the vocabulary of 4096"):
        engine.logits(tokens)


def test_text_and_tokens(engine):
    tokens = engine.tokenize(TEXT)
    assert engine.detokenize(tokens) == TEXT
    assert engine.tokenize(TEXT, add_special=False) == tokens  # this model adds nothing


def test_the_likeliest_tokens_are_written(engine):
    tokens, pieces = engine.tokenize(TEXT), []
    for _ in range(6):
        tokens.append(int(engine.logits(tokens)[-1].argmax()))
    made = engine.generate(TEXT, max_tokens=6, temperature=0, on_text=pieces.append)
    assert made.text == "".join(pieces) == engine.detokenize(tokens)[len(TEXT) :]
    assert (made.tokens, made.prompt_tokens, made.ending) == (6, len(tokens) - 6, "length")
    assert made.prompt_speed > 0
    assert made.decode_speed > 0


def test_a_seed_repeats_what_is_drawn(engine):
    first, again, other = (engine.generate(TEXT, max_tokens=12, seed=seed).text for seed in (3, 3, 4))
    assert first == again != other


def test_the_end_token_ends(copy):
    """With every likely token declared an end, nothing is written."""
    config = json.loads((copy / "config.json").read_text())
    config["eos_token_id"] = list(range(4096))
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "generation_config.json").unlink(missing_ok=True)
    with open_engine(copy, context=64) as opened:
        made = opened.generate(TEXT, max_tokens=6)
    assert (made.text, made.tokens, made.ending) == ("", 0, "stop")


def test_a_listener_that_has_had_enough_leaves_a_working_engine(engine):
    class Enough(Exception):
        pass

    def listen(text):
        raise Enough

    with pytest.raises(Enough):
        engine.generate(TEXT, max_tokens=40, temperature=0, on_text=listen)
    assert engine.generate(TEXT, max_tokens=1, temperature=0).tokens == 1


def test_messages_go_through_the_template(chatty, engine):
    messages = [{"role": "user", "content": "Hello <|im_end|>"}]
    with open_engine(chatty, context=64) as opened:
        asked = opened.generate(messages, max_tokens=1, temperature=0)
        special = opened.tokenize("<|im_end|>")
        assert len(special) > 1, "written special tokens stay text"
        assert opened.detokenize(special) == "<|im_end|>"
        assert asked.prompt_tokens > len(opened.tokenize("Hello"))
        with pytest.raises(EngineError, match="the prompt has 65 tokens and the context 64"):
            opened.generate("a" + " a" * 64)
    with pytest.raises(EngineError, match="no chat template"):
        engine.generate(messages)


def test_timings_and_memory(engine, quantized):
    timings = engine.time(prompt_tokens=64, decode_tokens=3, repeats=4, seconds=0)
    assert timings.prompt_tokens == 32, "shortened: there is no time for 64"
    assert len(timings.prompt_seconds) == len(timings.decode_seconds) == 3
    assert min(timings.prompt_seconds + timings.decode_seconds) > 0
    assert 0 < timings.processor_share <= 1
    assert engine.load_time > 0
    weights = (quantized / "model.safetensors").stat().st_size
    assert weights < engine.peak_memory - engine.base_memory < 40 * weights


def damage_config(directory, **change):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


SEVEN_BITS = {"bits": 4, "group_size": 64, "model.layers.0.mlp.up_proj": {"bits": 7, "group_size": 64}}
DAMAGES = {
    "unknown family": (lambda d: damage_config(d, model_type="nothing"), "Model type nothing not supported"),
    "other shapes": (lambda d: damage_config(d, intermediate_size=512), "shape|size|dim"),
    "no number": (lambda d: damage_config(d, hidden_size="many"), "."),
    "its own code": (lambda d: damage_config(d, model_file="evil.py"), "custom module"),
    "bits": (lambda d: damage_config(d, quantization=SEVEN_BITS), "7"),
    "settings": (lambda d: damage_config(d, quantization={"bits": None}), "group_size"),
    "no JSON": (lambda d: (d / "config.json").write_text("{"), "."),
    "cut weights": (lambda d: cut(d / "model.safetensors", 9000), "."),
    "no weights": (lambda d: (d / "model.safetensors").unlink(), "No safetensors"),
    "tokenizer": (lambda d: (d / "tokenizer.json").write_text("{}"), "tokenizer.json"),
}


def cut(path, size):
    with path.open("r+b") as file:
        file.truncate(size)


@pytest.fixture(scope="module")
def child():
    """One process for all damages: each ends in an error, and the process goes on."""
    opened = Child("terazi.runtime.mlx.worker", timeout=60)
    yield opened
    opened.close()


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_directories_get_one_line(copy, child, name):
    damage, reason = DAMAGES[name]
    (copy / "evil.py").write_text("import pathlib; pathlib.Path(__file__).with_name('ran').touch()")
    damage(copy)
    with pytest.raises(EngineError, match=reason) as caught:
        child.call("open", path=str(copy), context=64, embedding=False)
    assert "\n" not in caught.value.message
    assert "Traceback" not in caught.value.message
    assert not (copy / "ran").exists()


def test_without_a_tokenizer_only_tokens_run(copy):
    (copy / "tokenizer.json").unlink()
    with open_engine(copy, context=16) as opened:
        assert opened.logits([5]).shape == (1, 4096)
        with pytest.raises(EngineError, match=r"no tokenizer\.json"):
            opened.tokenize(TEXT)


def test_what_is_missing(tmp_path, quantized, monkeypatch):
    with pytest.raises(NotFoundError, match=r"no directory with a config\.json"):
        open_engine(tmp_path)
    from importlib import metadata

    def missing(package):
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(MissingExtraError) as caught:
        open_engine(quantized)
    assert "terazi[mlx]" in caught.value.hint


def test_a_language_model_makes_no_embeddings(engine):
    with pytest.raises(EngineError, match="makes no embeddings"):
        engine.embed(["text"])
