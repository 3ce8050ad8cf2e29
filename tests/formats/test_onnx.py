"""Reading and writing ONNX: facts, weights that stay in files, files that must be refused, large models."""

import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from terazi.errors import ExistsError, FormatError
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


CRASHES = """
import os, sys
import numpy as np
from onnx import TensorProto, helper, numpy_helper
from terazi.formats.onnx import array, load_graph, write_graph

def graph(value, size=2048):
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [size]) for name in "xy")
    weight = numpy_helper.from_array(np.full(size, value, np.float32), "w")
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    return helper.make_model(helper.make_graph(nodes, str(value), [x], [y], [weight]))

def before(number, action):
    def counted(*arguments, **options):
        steps.append(action)
        if len(steps) > number:
            os._exit(9)
        return action(*arguments, **options)
    return counted

from pathlib import Path
for first, second in ((1, 1), (1, 1 << 30), (1 << 30, 1)):
    for number in range(100):
        folder = Path(sys.argv[1]) / f"{first}-{second}-{number}"
        folder.mkdir()
        output = folder / "m.onnx"
        write_graph(graph(1), output, largest=first)
        child = os.fork()
        if child == 0:
            steps = []
            for name in ("replace", "rename", "link", "unlink"):
                setattr(os, name, before(number, getattr(os, name)))
            write_graph(graph(2), output, largest=second, force=True)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        found = load_graph(output)
        values = array(output, found.graph.initializer[0])
        assert values.shape == (2048,)
        assert (values == int(found.graph.name)).all(), (first, second, number)
        if code == 0:
            assert values[0] == 2
            break
        assert code == 9
    print(number, *sorted(file.name for file in folder.iterdir()))
"""


def test_a_crash_leaves_a_whole_pair(tmp_path):
    """Killed before each rename, link or removal in turn, the graph has its own weights, old or new."""
    done = subprocess.run(
        [sys.executable, "-c", CRASHES, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    both, to_one, to_two = [line.split() for line in done.stdout.splitlines()]
    assert int(both[0]) >= 6
    assert both[1:] == to_two[1:] == ["m.onnx", "m.onnx.data"]
    assert "m.onnx" in to_one


def test_other_files_are_kept(tmp_path, large):
    """Weights would replace a file that belongs to no graph here."""
    source, data = tmp_path / "m.onnx", tmp_path / "out.onnx.data"
    onnx.save(build(large), source)
    data.write_bytes(b"mine")
    with pytest.raises(ExistsError):
        write_graph(load_graph(source), tmp_path / "out.onnx", origin=source, largest=1)
    assert data.read_bytes() == b"mine"
    assert not (tmp_path / "out.onnx").exists()


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
