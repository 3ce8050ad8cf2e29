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
    "bfloat16": (46_000_000, 0.999),
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
        "bfloat16",
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
    for recipe, tolerance in (("int8-dynamic", 0.02), ("w8", 0.02), ("w4", 0.1)):
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


def test_bfloat16_is_stored_and_widened(tmp_path):
    """Every weight is the nearest bfloat16, also one that a graph lists as an input; small ones stay."""
    from ml_dtypes import bfloat16
    from onnx import TensorProto, helper, numpy_helper

    from terazi import api

    random = np.random.default_rng(0)
    weight, bias = random.standard_normal((48, 64)).astype(np.float32), np.ones(64, np.float32)
    floats = [("x", ["n", 48]), ("w", [48, 64]), ("b", [64])]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in floats]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 64])
    weights = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")]
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"])], "g", inputs, [output], weights
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    quantize_onnx(open_model(path), "bfloat16", tmp_path / "out", threads=1)
    onnx.checker.check_model(str(tmp_path / "out" / "model.onnx"), full_check=True)
    rounded = weight.astype(bfloat16)
    made = {
        t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "out/model.onnx").graph.initializer
    }
    assert made.keys() == {"w_bfloat16", "b"}
    assert (made["w_bfloat16"].view(np.uint16) == rounded.view(np.uint16)).all()
    x = random.standard_normal((3, 48)).astype(np.float32)
    with open_engine(tmp_path / "out", threads=1) as engine:
        (seen,) = engine.run({"x": x})
    np.testing.assert_allclose(seen, x @ rounded.astype(np.float32) + bias, rtol=1e-4, atol=1e-5)
    found = api.inspect(tmp_path / "out")
    assert found.types[0].type == "BF16"
    with pytest.raises(UnsupportedError, match="no float32 weights"):
        quantize_onnx(open_model(tmp_path / "out"), "bfloat16", tmp_path / "again")
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8), path)
    with pytest.raises(UnsupportedError, match="opset 11"):
        quantize_onnx(open_model(path), "bfloat16", tmp_path / "again")


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


def test_methods_from_the_command_line(tmp_path):
    import json

    import torch
    from click.testing import CliRunner

    from terazi.cli.quantize import command

    torch.manual_seed(0)
    module, inputs = torch.nn.Linear(256, 96), torch.randn(32, 256)
    path = export_module(module, {"x": inputs}, tmp_path / "m.onnx", dynamic={"x": {0: "batch"}})
    np.savez(tmp_path / "x.npz", x=inputs.numpy())
    errors = {}
    for method in ("rtn", "hqq", "gptq"):
        run = [
            str(path),
            str(tmp_path / method),
            "--type",
            "w2",
            "--spare",
            "0",
            "--method",
            method,
            "--json",
        ]
        done = CliRunner().invoke(command, [*run, "--data", str(tmp_path / "x.npz")])
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["operators"] == {"before": {"Gemm": 1}, "after": {"MatMulNBits": 1}}
        with open_engine(tmp_path / method, threads=1) as engine:
            (seen,) = engine.run({"x": inputs.numpy()})
        errors[method] = float(((seen - module(inputs).detach().numpy()) ** 2).mean())
    assert errors["gptq"] < errors["hqq"] < errors["rtn"]
    done = CliRunner().invoke(command, [str(path), str(tmp_path / "o"), "--type", "w8", "--method", "hqq"])
    assert isinstance(done.exception, UnsupportedError)


def deep(path, *, matrices, kept=0, width):
    """Write products by float32 weights in a file beside the graph, one by one: ``kept`` are no matrices."""
    from onnx import TensorProto, helper

    random, nodes, weights = np.random.default_rng(0), [], []
    nbytes = 4 * width * width
    with (path.parent / "weights").open("wb") as file:
        for number in range(matrices + kept):
            values = random.standard_normal((width, width), np.float32) / np.float32(width**0.5)
            file.write(values)
            dims = [width, width] if number < matrices else [1, width, width]
            tensor = TensorProto(name=f"w{number}", dims=dims, data_type=TensorProto.FLOAT)
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", "weights"), ("offset", number * nbytes), ("length", nbytes)):
                tensor.external_data.add(key=key, value=str(value))
            weights.append(tensor)
            names = [f"x{number}", f"w{number}"], [f"x{number + 1}"]
            nodes.append(helper.make_node("MatMul", *names, name=f"m{number}"))
    first = helper.make_tensor_value_info("x0", TensorProto.FLOAT, ["n", width])
    shape = [*([1] if kept else []), "n", width]
    last = helper.make_tensor_value_info(f"x{matrices + kept}", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "g", [first], [last], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


@pytest.mark.parametrize(
    "recipe", ["bfloat16", "w8", "int8-dynamic", "int8", "int4", "float16", "int8-static"]
)
def test_external_data_in_and_out(recipe, tmp_path, monkeypatch):
    """The limit of one file lowered: weights are read from and written to files beside the graphs."""
    deep(tmp_path / "model.onnx", matrices=3, width=128)
    feeds = [{"x0": np.random.default_rng(1).standard_normal((16, 128)).astype(np.float32)}]
    monkeypatch.setattr("terazi.formats.onnx.writer.LARGEST_FILE", 10_000)
    artifact = quantize_onnx(open_model(tmp_path), recipe, tmp_path / "out", data=feeds, threads=1)
    assert {file.name for file in artifact.files} >= {"model.onnx", "model.onnx.data"}
    onnx.checker.check_model(str(tmp_path / "out" / "model.onnx"))
    results = []
    for path in (tmp_path, tmp_path / "out"):
        with open_engine(path, threads=1) as engine:
            results.append(engine.run(feeds[0])[0])
    exact, seen = results
    assert np.sqrt(((seen - exact) ** 2).mean()) < (0.3 if recipe == "int4" else 0.05) * exact.std()


def test_export_and_optimization_write_external_data(tmp_path, monkeypatch):
    import torch

    from terazi import api

    monkeypatch.setattr("terazi.formats.onnx.writer.LARGEST_FILE", 10_000)
    deep(tmp_path / "model.onnx", matrices=2, width=128)
    artifact = api.convert(tmp_path, "onnx", output=tmp_path / "optimized")
    module, x = torch.nn.Linear(128, 64), torch.randn(2, 128)
    path = export_module(module, {"x": x}, tmp_path / "module.onnx")
    assert {file.name for file in artifact.files} >= {"model.onnx", "model.onnx.data"}
    assert (tmp_path / "module.onnx.data").stat().st_size == 128 * 64 * 4
    results = []
    for graph, name in ((tmp_path, "x0"), (tmp_path / "optimized", "x0"), (path, "x")):
        with open_engine(graph, threads=1) as engine:
            results.append(engine.run({name: x.numpy()})[0])
    assert np.abs(results[1] - results[0]).max() < 1e-5
    assert np.abs(results[2] - module(x).detach().numpy()).max() < 1e-5


QUANTIZE = """
import resource, sys, time
import numpy as np
from terazi.formats import open_model
from terazi.quantize.onnx import quantize_onnx
source, output, recipe, width = sys.argv[1:]
feeds = [{"x0": np.random.default_rng(1).standard_normal((4, int(width))).astype(np.float32)}]
started = time.perf_counter()
quantize_onnx(open_model(source), recipe, output, data=feeds, threads=1)
print(time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["w8", "int8", "bfloat16"])
def test_over_two_gigabytes(recipe, tmp_path):
    """Weights of 3 GB become 2.5 GB (bfloat16: 1.5); the largest, not their sum, bounds the memory."""
    import subprocess
    import sys

    width = 8192
    deep(tmp_path / "model.onnx", matrices=2, kept=9, width=width)
    command = [sys.executable, "-c", QUANTIZE, tmp_path, tmp_path / "out", recipe, str(width)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    seconds, peak = map(float, done.stdout.split())
    print(f"{recipe}: {seconds:.0f} s, {peak / 1e9:.2f} GB at most")
    assert peak < 6 * 4 * width**2
    least = 1_470_000_000 if recipe == "bfloat16" else 2_400_000_000
    assert sum(file.stat().st_size for file in (tmp_path / "out").iterdir()) > least
    onnx.checker.check_model(str(tmp_path / "out" / "model.onnx"))
    x = np.random.default_rng(2).standard_normal((4, width)).astype(np.float32)
    results = []
    for path in (tmp_path, tmp_path / "out"):
        with open_engine(path, threads=1) as engine:
            results.append(engine.run({"x0": x})[0])
    exact, seen = results
    assert np.sqrt(((seen - exact) ** 2).mean()) < 0.05 * exact.std()
