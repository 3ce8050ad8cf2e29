"""MiniLM through every ONNX recipe, run in onnxruntime and compared with the original's vectors."""

import numpy as np
import onnx
import pytest

from terazi.calibrate.corpus import Corpus, evaluation_corpus, sentences
from terazi.convert.onnx import convert, export_module
from terazi.errors import ExistsError, NotFoundError, UnsupportedError
from terazi.formats import open_model
from terazi.quantize.onnx import ONNX_RECIPES, quantize_onnx
from terazi.runtime.onnxruntime import open_engine


@pytest.fixture(scope="module")
def exported(minilm, tmp_path_factory):
    output = tmp_path_factory.mktemp("onnx") / "minilm"
    artifact = convert(open_model(minilm), output)
    assert artifact.format == "onnx"
    return output


@pytest.fixture(scope="module")
def texts():
    """Held out: calibration uses the other half of the default text."""
    return sentences(evaluation_corpus(), 64)


def vectors(path, texts):
    with open_engine(path, threads=1) as engine:
        return engine.embed(texts)


@pytest.fixture(scope="module")
def original(exported, texts):
    return vectors(exported, texts)


def test_export_equals_transformers(minilm, original, texts):
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(minilm)
    network = AutoModel.from_pretrained(minilm).eval()
    batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        states = network(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    pooled = ((states * mask).sum(1) / mask.sum(1)).numpy()
    pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
    assert np.abs(pooled - original).max() < 2e-5


# Recipe -> (largest bytes, lowest mean cosine to the original), as docs/formats/onnx.md states them.
EXPECTED = {
    "float16": (46_000_000, 0.9999),
    "int8": (23_000_000, 0.995),
    "int8-dynamic": (23_000_000, 0.99),
    "int8-static": (23_500_000, 0.97),
    "w8a16": (23_500_000, 0.98),
    "w8": (23_500_000, 0.999),
    "int4": (16_000_000, 0.98),
    "w4": (15_000_000, 0.95),
    "w2": (13_000_000, 0.3),
}


def test_every_recipe_is_measured():
    assert EXPECTED.keys() == ONNX_RECIPES.keys()


@pytest.mark.parametrize(
    "recipe",
    [
        "int8-dynamic",
        "w8",
        "w4",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("float16", "int8", "int8-static", "w8a16", "int4", "w2")
        ),
    ],
)
def test_size_and_quality(exported, original, texts, tmp_path, recipe):
    quantize_onnx(open_model(exported), recipe, tmp_path / "out", threads=1)
    size, cosine = EXPECTED[recipe]
    assert (tmp_path / "out" / "model.onnx").stat().st_size <= size
    onnx.checker.check_model(str(tmp_path / "out" / "model.onnx"))
    ours = vectors(tmp_path / "out", texts)
    assert (ours * original).sum(1).mean() >= cosine


def test_output_is_kept_unless_forced(exported, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(ExistsError):
        quantize_onnx(open_model(exported), "w8", tmp_path / "out")
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_unknown_recipe_names_the_known(exported, tmp_path):
    with pytest.raises(NotFoundError) as caught:
        quantize_onnx(open_model(exported), "int5", tmp_path / "out")
    assert "int4" in (caught.value.hint or "")


def test_gemm_with_bias_from_any_module(tmp_path):
    import torch

    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(64, 96), torch.nn.GELU(), torch.nn.Linear(96, 32))
    inputs = torch.randn(5, 64)
    path = export_module(module, {"x": inputs}, tmp_path / "m.onnx", dynamic={"x": {0: "batch"}})
    assert "Gemm" in open_model(path).metadata["operators"]
    expected = module(inputs).detach().numpy()
    for recipe, tolerance in (("int8-dynamic", 0.02), ("w8", 0.005), ("w4", 0.1)):
        quantize_onnx(open_model(path), recipe, tmp_path / recipe)
        with open_engine(tmp_path / recipe, threads=1) as engine:
            (seen,) = engine.run({"x": inputs.numpy()})
        assert np.abs(seen - expected).max() < tolerance
        operators = open_model(tmp_path / recipe).metadata["operators"]
        assert operators["DynamicQuantizeMatMul" if recipe == "int8-dynamic" else "MatMulNBits"] == 2


@pytest.mark.parametrize(
    ("recipe", "precision", "low", "high"),
    [
        ("w2", "ultra-low", 2, 4.5),
        ("w4", "low", 4, 6),
        ("w8", "medium", 8, 9),
        ("int8-dynamic", "medium", 8, 9),
    ],
)
def test_inspect_tells_what_is_stored(tmp_path, recipe, precision, low, high):
    import torch

    from terazi import api

    path = export_module(
        torch.nn.Linear(128, 256, bias=False), {"x": torch.zeros(4, 128)}, tmp_path / "m.onnx"
    )
    feeds = [{"x": np.random.default_rng(0).standard_normal((4, 128)).astype(np.float32)}]
    quantize_onnx(open_model(path), recipe, tmp_path / "out", data=feeds, threads=1)
    found = api.inspect(tmp_path / "out")
    assert found.precision == precision
    assert low <= found.bits_per_weight <= high
    assert 128 * 256 <= found.parameters < 1.1 * 128 * 256


def test_nothing_to_quantize_is_said(tmp_path):
    import torch

    path = export_module(torch.nn.ReLU(), {"x": torch.zeros(2, 3)}, tmp_path / "m.onnx")
    with pytest.raises(UnsupportedError, match="no matrix product"):
        quantize_onnx(open_model(path), "w8", tmp_path / "out")


def test_sentences_come_from_the_text():
    corpus = Corpus(
        "t", "One two three four five six seven eight nine ten. " * 3 + "Short. " + "A " * 30 + "."
    )
    with pytest.raises(Exception, match="fewer than three"):
        sentences(corpus, 5)
