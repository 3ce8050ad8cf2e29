"""Graphs of scikit-learn, TensorFlow and Keras: inspected, checked, optimized, quantized, run."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from terazi import api
from terazi.errors import UnsupportedError
from terazi.formats import open_model
from terazi.runtime.onnxruntime import open_engine

REQUIREMENTS = ("tensorflow-cpu==2.21.*", "tf2onnx==1.17.*", "onnx", "onnxruntime")
TENSORFLOW = os.environ.get("TERAZI_TENSORFLOW_PYTHON", "")

SCRIPT = """
import sys
import numpy as np, onnx, tensorflow as tf, tf2onnx
tf.random.set_seed(0)
layers = tf.keras.layers
model = tf.keras.Sequential([
    tf.keras.Input((16, 16, 3)), layers.Conv2D(8, 3, activation="relu", padding="same"),
    layers.BatchNormalization(), layers.MaxPooling2D(), layers.Flatten(),
    layers.Dense(64, activation="relu"), layers.Dense(5, activation="softmax"),
])
x = np.random.default_rng(0).standard_normal((16, 16, 16, 3)).astype("float32")
call = tf.function(lambda x: model(x, training=False),
                   input_signature=[tf.TensorSpec((None, 16, 16, 3), tf.float32, name="x")])
directory = sys.argv[1]
for opset in (13, 17):
    proto, _ = tf2onnx.convert.from_function(call, input_signature=call.input_signature, opset=opset)
    onnx.save(proto, f"{directory}/tf2onnx-{opset}.onnx")
model.export(f"{directory}/keras.onnx", format="onnx", verbose=False)
np.savez(f"{directory}/expected.npz", x=x, y=call(x).numpy())
"""


@pytest.fixture(scope="module")
def sklearn(tmp_path_factory):
    """A trained perceptron and a scaled logistic regression as skl2onnx writes them, with the samples."""
    skl2onnx = pytest.importorskip("skl2onnx")
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    digits = load_digits()
    x, y = digits.data[:600].astype(np.float32) / 16, digits.target[:600]
    network = MLPClassifier((64, 32), max_iter=40, tol=0.05, n_iter_no_change=3, random_state=0).fit(x, y)
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)).fit(x, y)
    directory = tmp_path_factory.mktemp("sklearn")
    for name, estimator in (("network", network), ("linear", linear)):
        proto = skl2onnx.to_onnx(estimator, x[:1], options={"zipmap": False}, target_opset=18)
        (directory / f"{name}.onnx").write_bytes(proto.SerializeToString())
    return directory, x, {"network": network.predict_proba(x), "linear": linear.predict_proba(x)}


def probabilities(path, x):
    with open_engine(path, threads=1) as engine:
        found = dict(zip(engine.outputs, engine.run({engine.inputs[0]: x}), strict=True))
    return found["probabilities"]


@pytest.mark.parametrize("name", ["network", "linear"])
def test_scikit_learn_is_optimized_and_still_right(name, sklearn, tmp_path):
    directory, x, expected = sklearn
    api.convert(directory / f"{name}.onnx", "onnx", output=tmp_path / "out")
    onnx.checker.check_model(str(tmp_path / "out" / "model.onnx"))
    assert np.abs(probabilities(tmp_path / "out", x) - expected[name]).max() < 1e-4


@pytest.mark.parametrize("recipe", ["int8", "int8-static", "w8", "int4"])
def test_scikit_learn_is_quantized_by_feeds(recipe, sklearn, tmp_path):
    directory, x, expected = sklearn
    source = open_model(directory / "network.onnx")
    feeds = [{source.metadata["inputs"][0]: x[start : start + 16]} for start in range(0, 64, 16)]
    api.quantize(source, recipe, output=tmp_path / "out", data=feeds, threads=1)
    onnx.checker.check_model(str(tmp_path / "out" / "model.onnx"))
    seen = probabilities(tmp_path / "out", x)
    assert (seen.argmax(1) == expected["network"].argmax(1)).mean() > 0.97
    operators = open_model(tmp_path / "out").metadata["operators"]
    assert operators.keys() & {"DynamicQuantizeMatMul", "MatMulNBits", "DequantizeLinear"}


def test_a_model_without_matrices_is_said_so(sklearn, tmp_path):
    directory, _, _ = sklearn
    with pytest.raises(UnsupportedError, match="no matrix product"):
        api.quantize(directory / "linear.onnx", "w8", output=tmp_path / "out")


def test_inspect_shows_the_operators(sklearn):
    from terazi.cli.inspect import command

    directory, _, _ = sklearn
    done = CliRunner().invoke(command, [str(directory / "linear.onnx")])
    assert done.exit_code == 0, done.output
    assert "LinearClassifier" in done.output
    assert "ai.onnx.ml" in done.output


@pytest.fixture(scope="module")
def tensorflow():
    """The Python of an environment with the exporters, made once: they need 1.3 GB and older libraries."""
    if TENSORFLOW:
        return TENSORFLOW
    cache = Path(os.environ.get("TERAZI_TEST_CACHE", Path.home() / ".cache" / "terazi-tests"))
    directory = cache / "tensorflow-2.21"
    python = directory / "bin" / "python"
    if not (directory / "complete").is_file():
        cache.mkdir(parents=True, exist_ok=True)
        venv.create(directory, clear=True, with_pip=True)
        command = [python, "-m", "pip", "install", "--quiet", *REQUIREMENTS]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"cannot install TensorFlow: {done.stderr.strip().splitlines()[-1]}")
        (directory / "complete").touch()
    return str(python)


@pytest.mark.slow
def test_tensorflow_and_keras(tensorflow, tmp_path):
    command = [tensorflow, "-c", SCRIPT, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_quiet(tensorflow))
    assert done.returncode == 0, done.stderr[-2000:]
    expected = np.load(tmp_path / "expected.npz")
    for name in ("tf2onnx-13", "tf2onnx-17", "keras"):
        source = open_model(tmp_path / f"{name}.onnx")
        (entry,) = source.metadata["inputs"]
        api.convert(source, "onnx", output=tmp_path / f"{name}-o")
        feeds = [{entry: expected["x"]}]
        for recipe in (None, "int8-static", "int8", "w8", "float16"):
            made = tmp_path / f"{name}-{recipe or 'o'}"
            if recipe:
                api.quantize(tmp_path / f"{name}-o", recipe, output=made, data=feeds, threads=1)
            onnx.checker.check_model(str(made / "model.onnx"))
            with open_engine(made, threads=1) as engine:
                (seen,) = engine.run({entry: expected["x"]})
            assert np.abs(seen - expected["y"]).max() < (0.05 if recipe else 1e-5), (name, recipe)
        assert (tmp_path / f"{name}-w8/model.onnx").stat().st_size < Path(source.path).stat().st_size / 2.5


def _quiet(python):
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": "", "PYTHONWARNINGS": "ignore"} | (
        {"PATH": f"{Path(python).parent}:{os.environ['PATH']}"} if sys.platform != "win32" else {}
    )
