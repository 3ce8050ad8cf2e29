"""Reading and writing ONNX: facts, weights that stay in files, files that must be refused, large models."""

import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from terazi.errors import FormatError
from terazi.formats import open_model
from terazi.formats.onnx import Spool, array, load_graph, write_graph


def build(weight, *, external=None):
    tensor = numpy_helper.from_array(weight, "w")
    if external:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in external.items():
            tensor.external_data.add(key=key, value=str(value))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", weight.shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", weight.shape[1]])],
        [tensor],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


@pytest.fixture
def weight():
    return np.arange(12, dtype=np.float32).reshape(3, 4)


def test_facts_and_weights(tmp_path, weight):
    path = tmp_path / "m.onnx"
    onnx.save(build(weight), path)
    model = open_model(path)
    assert model.format == "onnx"
    assert model.parameters == 12
    assert model.metadata["operators"] == {"MatMul": 1}
    assert model.metadata["inputs"] == ["x"]
    assert np.array_equal(model.tensors["w"].rows(1, 3), weight[1:])


def test_external_data_is_read_from_beside_the_model(tmp_path, weight):
    (tmp_path / "w.bin").write_bytes(b"\0" * 8 + weight.tobytes())
    path = tmp_path / "model.onnx"
    onnx.save(build(weight, external={"location": "w.bin", "offset": 8, "length": 48}), path)
    model = open_model(tmp_path)
    assert np.array_equal(model.tensors["w"].rows(), weight)
    assert tmp_path / "w.bin" in model.files


@pytest.mark.parametrize(
    "external",
    [
        {"location": "../secret"},
        {"location": "/etc/passwd"},
        {"location": "a\\..\\secret"},
        {"location": ""},
        {"location": "link"},
        {"location": "missing"},
        {"location": "w.bin", "offset": 40, "length": 48},
        {"location": "w.bin", "offset": -8},
        {"location": "w.bin", "offset": "x"},
        {"location": "pipe"},
    ],
)
def test_external_data_elsewhere_is_refused(tmp_path, weight, external):
    inside = tmp_path / "model"
    inside.mkdir()
    (tmp_path / "secret").write_bytes(b"\0" * 64)
    (inside / "w.bin").write_bytes(weight.tobytes())
    (inside / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(inside / "pipe")
    onnx.save(build(weight, external=external), inside / "model.onnx")
    with pytest.raises(FormatError, match="tensor 'w'"):
        open_model(inside)


@pytest.mark.parametrize("content", [b"", b"\x08", b"not a model at all", b"\xff" * 100])
def test_what_is_no_model_gets_one_line(tmp_path, content):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(FormatError, match="ONNX model"):
        open_model(path)


def test_truncated_models_never_crash(tmp_path, weight):
    whole = build(weight).SerializeToString()
    for length in range(0, len(whole), 7):
        path = tmp_path / "m.onnx"
        path.write_bytes(whole[:length])
        try:
            open_model(path)
        except FormatError:
            continue


@pytest.fixture
def large():
    """Weights over a kilobyte, which stay in the file."""
    return np.random.default_rng(0).standard_normal((64, 96)).astype(np.float32)


def test_large_weights_stay_in_the_file(tmp_path, large):
    path = tmp_path / "m.onnx"
    onnx.save(build(large), path)
    graph = load_graph(path)
    (tensor,) = graph.graph.initializer
    assert graph.ByteSize() < 1000
    assert not tensor.raw_data
    assert np.array_equal(array(path, tensor), large)


@pytest.mark.parametrize("largest", [1 << 30, 1000])
def test_what_is_written_is_what_was_read(tmp_path, large, largest):
    source, target = tmp_path / "m.onnx", tmp_path / "out" / "model.onnx"
    target.parent.mkdir()
    onnx.save(build(large), source)
    graph = load_graph(source)
    spool = Spool(tmp_path / "spool")
    more = spool.add(numpy_helper.from_array(large.T.copy(), "more"))
    graph.graph.initializer.append(more)
    files = write_graph(graph, target, origin=source, spooled=spool.places, largest=largest)
    assert [file.name for file in files] == ["model.onnx", "model.onnx.data"][: 1 + (largest == 1000)]
    onnx.checker.check_model(str(target))
    whole = onnx.load(target)
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in whole.graph.initializer}
    assert np.array_equal(found["w"], large)
    assert np.array_equal(found["more"], large.T)
    model = open_model(target.parent)
    assert model.files[: len(files)] == files
    assert np.array_equal(model.tensors["w"].rows(), large)


def test_a_failure_leaves_no_file(tmp_path, large):
    source = tmp_path / "m.onnx"
    onnx.save(build(large), source)
    graph = load_graph(source)
    source.write_bytes(source.read_bytes()[:200])
    (tmp_path / "out").mkdir()
    with pytest.raises(FormatError, match="ends past"):
        write_graph(graph, tmp_path / "out" / "model.onnx", origin=source, largest=1)
    assert not list((tmp_path / "out").iterdir())


def test_external_data_in_inner_graphs_is_refused(tmp_path, weight):
    model = build(weight)
    value = model.graph.initializer[0]
    inner = helper.make_node("Constant", [], ["c"], name="c", value=value)
    hidden = inner.attribute[0].t
    hidden.ClearField("raw_data")
    hidden.data_location = TensorProto.EXTERNAL
    hidden.external_data.add(key="location", value="../secret")
    model.graph.node.append(inner)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(FormatError, match="external data at"):
        load_graph(tmp_path / "m.onnx")


def test_a_wrong_length_is_refused(tmp_path, weight):
    (tmp_path / "w.bin").write_bytes(weight.tobytes())
    onnx.save(
        build(weight, external={"location": "w.bin", "offset": 0, "length": 44}), tmp_path / "model.onnx"
    )
    with pytest.raises(FormatError, match="do not fit"):
        open_model(tmp_path).tensors["w"].rows()
