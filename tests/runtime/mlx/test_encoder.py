"""Embedding models in MLX: the vectors of transformers and of mlx-embeddings."""

import json
import shutil

import numpy as np
import pytest

from terazi import api
from terazi.errors import EngineError
from terazi.runtime.mlx import open_engine

mx = pytest.importorskip("mlx.core", reason="mlx is not installed on this platform")

TEXTS = ["The king hath sent for you.", "A cat", "Weights are stored in groups of sixty-four numbers."]


@pytest.fixture(scope="module")
def made(minilm, tmp_path_factory):
    """Directories by bits; that of 8 comes from a GGUF file, which has no pooler."""
    directory = tmp_path_factory.mktemp("mlx-encoder")
    api.convert(minilm, output=directory / "m.gguf", type="F32")
    api.convert(directory / "m.gguf", "mlx", output=directory / "8", bits=8)
    api.convert(minilm, "mlx", output=directory / "4", bits=4)
    return directory


@pytest.fixture(scope="module")
def expected(minilm):
    """What sentence-transformers would give: the mean over the tokens of transformers' states."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    inputs = AutoTokenizer.from_pretrained(minilm)(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        states = AutoModel.from_pretrained(minilm, dtype=torch.float32)(**inputs).last_hidden_state
    mask = inputs["attention_mask"][..., None]
    vectors = ((states * mask).sum(1) / mask.sum(1)).numpy()
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def embed(directory, texts=TEXTS, **options):
    with open_engine(directory, embedding=True, **options) as engine:
        return engine.embed(texts)


def test_vectors_are_those_of_transformers(minilm, expected):
    with open_engine(minilm, context=64, embedding=True) as engine:
        found = engine.embed(TEXTS)
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() < 2e-6
        assert np.allclose(engine.embed(TEXTS[1:2]), expected[1:2], atol=2e-6), "padding changes nothing"
        timings = engine.time(prompt_tokens=16, decode_tokens=0, repeats=3, seconds=0)
        assert len(timings.prompt_seconds) == 3
        assert timings.decode_seconds == ()
        assert engine.trained_context == 512
        weights = (minilm / "model.safetensors").stat().st_size
        assert weights < engine.peak_memory - engine.base_memory < 3 * weights
        with pytest.raises(EngineError, match="writes none"):
            engine.generate("text")


def test_more_bits_are_closer(made, expected):
    cosines = {bits: (embed(made / bits) * expected).sum(1).min() for bits in ("4", "8")}
    assert 0.94 < cosines["4"] < 0.99
    assert cosines["8"] > 0.9995
    sizes = {bits: (made / bits / "model.safetensors").stat().st_size for bits in cosines}
    assert sizes["4"] < 14e6
    assert sizes["8"] < 25.5e6


def test_the_directory_says_how_to_pool(made, tmp_path):
    copy = shutil.copytree(made / "8", tmp_path / "copy")
    settings = copy / "1_Pooling" / "config.json"
    assert json.loads(settings.read_text())["pooling_mode_mean_tokens"], "as the GGUF file says"
    settings.write_text(json.dumps({"pooling_mode_cls_token": True}))
    first = embed(copy)
    assert np.allclose(np.linalg.norm(first, axis=1), 1, atol=1e-5)
    assert np.abs(first - embed(made / "8")).max() > 0.01
    settings.write_text(json.dumps({"pooling_mode": "cls"}))
    assert np.array_equal(embed(copy), first)
    settings.write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(EngineError, match="pooling_mode_max_tokens"):
        embed(copy)
    (copy / "2_Dense").mkdir()
    (copy / "2_Dense" / "config.json").write_text("{}")
    with pytest.raises(EngineError, match="dense layer"):
        embed(copy)


def test_long_texts_are_cut(made):
    words = [f"word{number}" for number in range(60)]
    long, cut = embed(made / "8", [" ".join(words), " ".join(words[:30])], context=12)
    assert np.allclose(long, cut, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"hidden_act": "relu"}, "relu"),
        ({"num_attention_heads": 7}, "7 heads"),
        ({"model_type": "t5"}, "known: bert"),
        ({"num_hidden_layers": 7}, "Missing"),
        ({"hidden_size": None}, "cannot load"),
        ({"quantization": {"bits": 4}}, "group_size"),
    ],
)
def test_damaged_settings_get_one_line(made, tmp_path, change, reason):
    copy = shutil.copytree(made / "8", tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(EngineError, match=reason) as caught:
        open_engine(copy, embedding=True)
    assert "\n" not in caught.value.message


def test_cut_weights_get_one_line(made, tmp_path):
    copy = shutil.copytree(made / "8", tmp_path / "copy")
    with (copy / "model.safetensors").open("r+b") as file:
        file.truncate(100_000)
    with pytest.raises(EngineError, match="cannot load") as caught:
        open_engine(copy, embedding=True)
    assert "\n" not in caught.value.message


def test_mlx_embeddings_loads_the_directories(made):
    """It computes in the float16 of the scales; `pip install --no-deps mlx-embeddings mlx-vlm pillow`."""
    package = pytest.importorskip("mlx_embeddings", reason="mlx-embeddings is not installed")
    for bits in ("4", "8"):
        model, tokenizer = package.load(str(made / bits))
        inputs = tokenizer._tokenizer(TEXTS, return_tensors="np", padding=True)
        found = model(**{name: mx.array(values) for name, values in inputs.items()}).text_embeds
        assert np.abs(np.array(found.astype(mx.float32)) - embed(made / bits)).max() < 2e-3
