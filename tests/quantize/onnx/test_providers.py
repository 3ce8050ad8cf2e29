"""What each execution provider is given: only operators and types that it runs. None but `cpu` runs here."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

from terazi.convert.onnx import export_module
from terazi.errors import FormatError, NotFoundError, UnsupportedError, UsageError
from terazi.formats import open_model
from terazi.quantize.onnx import ONNX_RECIPES, PROVIDERS, quantize_onnx
from terazi.quantize.onnx.providers import legal
from terazi.runtime.onnxruntime import open_engine

PAIRS = [(name, recipe) for name, entry in PROVIDERS.items() for recipe in legal(entry)]


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """An embedding table and two matrices; its inputs are no text."""
    import torch

    torch.manual_seed(0)

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Embedding(2048, 64)
            self.first, self.last = torch.nn.Linear(64, 128), torch.nn.Linear(128, 32)

        def forward(self, ids, scale):
            return self.last(torch.relu(self.first(self.table(ids) * scale)))

    inputs = {"ids": torch.zeros(2, 6, dtype=torch.int64), "scale": torch.ones(2, 6, 64)}
    axes = {0: "batch"}
    path = tmp_path_factory.mktemp("providers") / "m.onnx"
    return export_module(Network(), inputs, path, dynamic={"ids": axes, "scale": axes, "output": axes})


def feeds(count=2, seed=0):
    random = np.random.default_rng(seed)
    for _ in range(count):
        yield {
            "ids": random.integers(0, 2048, (8, 6)),
            "scale": random.standard_normal((8, 6, 64)).astype(np.float32),
        }


def outputs(path):
    (batch,) = feeds(1, seed=9)
    with open_engine(path, threads=1) as engine:
        return engine.run(batch)[0]


def types(path):
    """Operators of the graph, and its initializers' types."""
    proto = onnx.load(path / "model.onnx")
    kinds = {onnx.TensorProto.DataType.Name(tensor.data_type) for tensor in proto.graph.initializer}
    bits = {
        attribute.i
        for node in proto.graph.node
        for attribute in node.attribute
        if node.op_type == "MatMulNBits" and attribute.name == "bits"
    }
    return {node.op_type for node in proto.graph.node}, kinds, bits


@pytest.mark.parametrize(("name", "recipe"), PAIRS)
def test_only_what_the_provider_runs(name, recipe, graph, tmp_path):
    provider = PROVIDERS[name]
    quantize_onnx(open_model(graph), recipe, tmp_path / "out", data=feeds(), on=name, threads=1)
    onnx.checker.check_model(str(tmp_path / "out" / "model.onnx"), full_check=True)
    operators, kinds, bits = types(tmp_path / "out")
    assert bits <= set(provider.blocks)
    assert provider.tables or "GatherBlockQuantized" not in operators
    assert provider.dynamic or not operators & {"DynamicQuantizeMatMul", "MatMulInteger"}
    assert bool(provider.static) or "QuantizeLinear" not in operators
    if provider.whole:
        # Every product reads what DequantizeLinear gives, and nothing large stays in floats.
        proto = onnx.load(tmp_path / "out" / "model.onnx")
        made = {output: node.op_type for node in proto.graph.node for output in node.output}
        inputs = [
            i for node in proto.graph.node if node.op_type in ("MatMul", "Gemm") for i in node.input[:2]
        ]
        assert {made[name] for name in inputs} == {"DequantizeLinear"}
        floats = [t for t in proto.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
        assert max(int(np.prod(t.dims)) for t in floats) <= 64
        assert ("UINT16" in kinds) == (recipe == "w8a16")
    worst = {"w2": 0.7, "w4": 0.15, "int4": 0.25}.get(recipe, 0.06)
    exact = outputs(graph)
    assert np.sqrt(((outputs(tmp_path / "out") - exact) ** 2).mean()) < worst * exact.std()


def test_what_a_provider_lacks_is_refused(graph, tmp_path):
    with pytest.raises(UnsupportedError, match="qnn does not run int4") as caught:
        quantize_onnx(open_model(graph), "int4", tmp_path / "out", on="qnn")
    assert caught.value.hint == "it runs int8-static, w8a16"
    with pytest.raises(NotFoundError, match="tpu"):
        quantize_onnx(open_model(graph), "int4", tmp_path / "out", on="tpu")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ranges", ["minmax", "entropy", "percentile"])
def test_ranges(ranges, graph, tmp_path):
    recipe = replace(ONNX_RECIPES["int8-static"], ranges=ranges)
    quantize_onnx(open_model(graph), recipe, tmp_path / "out", data=feeds(), threads=1)
    exact = outputs(graph)
    assert np.sqrt(((outputs(tmp_path / "out") - exact) ** 2).mean()) < 0.3 * exact.std()


def test_ranges_differ(graph, tmp_path):
    seen = []
    for ranges in ("minmax", "percentile"):
        recipe = replace(ONNX_RECIPES["int8-static"], ranges=ranges)
        quantize_onnx(open_model(graph), recipe, tmp_path / ranges, data=feeds(), threads=1)
        seen.append(outputs(tmp_path / ranges))
    assert np.abs(seen[0] - seen[1]).max() > 0


def test_the_worst_matrix_is_excluded(graph, tmp_path):
    recipe = replace(ONNX_RECIPES["int8-static"], spared=0.7)
    quantize_onnx(open_model(graph), recipe, tmp_path / "out", data=feeds(), threads=1)
    operators, _, bits = types(tmp_path / "out")
    assert bits == {8}
    assert "QuantizeLinear" in operators


def test_arrays_from_a_file(graph, tmp_path):
    (batch,) = feeds(1)
    np.savez(tmp_path / "data.npz", **batch)
    quantize_onnx(open_model(graph), "int4", tmp_path / "a", data=tmp_path / "data.npz", threads=1)
    quantize_onnx(open_model(graph), "int4", tmp_path / "b", data=[batch], threads=1)
    assert (tmp_path / "a/model.onnx").read_bytes() == (tmp_path / "b/model.onnx").read_bytes()


def test_bad_data_gets_one_line(graph, tmp_path):
    model = open_model(graph)
    with pytest.raises(UnsupportedError, match="texts") as caught:
        quantize_onnx(model, "int4", tmp_path / "out")
    assert "npz" in (caught.value.hint or "")
    with pytest.raises(UsageError, match="lacks scale"):
        quantize_onnx(model, "int4", tmp_path / "out", data=[{"ids": np.zeros((1, 6), np.int64)}])
    with pytest.raises(UsageError, match="no calibration data"):
        quantize_onnx(model, "int8-static", tmp_path / "out", data=[])
    (tmp_path / "x.npz").write_bytes(b"PK nothing")
    with pytest.raises(FormatError, match="plain arrays"):
        quantize_onnx(model, "int4", tmp_path / "out", data=tmp_path / "x.npz")
    np.savez(tmp_path / "y.npz", ids=np.zeros((3, 6)), scale=np.zeros((4, 6, 64)))
    with pytest.raises(FormatError, match="same number of samples"):
        quantize_onnx(model, "int4", tmp_path / "out", data=tmp_path / "y.npz")
    assert not (tmp_path / "out").exists()


def test_command_line(graph, tmp_path, smollm2):
    from click.testing import CliRunner

    from terazi.cli.quantize import command

    np.savez(tmp_path / "data.npz", **next(feeds(1)))
    run = [str(graph), str(tmp_path / "out"), "--type", "w8a16", "--provider", "qnn"]
    done = CliRunner().invoke(command, [*run, "--data", str(tmp_path / "data.npz"), "--threads", "1"])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(command, [str(smollm2), str(tmp_path / "o.gguf"), "--provider", "qnn"])
    assert done.exit_code == 2
    assert "--provider: for ONNX types only" in done.output
    listed = CliRunner().invoke(command, ["--list-types"]).output
    assert all(name in listed for name in (*PROVIDERS, *ONNX_RECIPES))
