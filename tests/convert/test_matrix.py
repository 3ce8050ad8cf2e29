"""Every pair of formats, cell by cell: the converted model runs in its own runtime and says the same."""

import json
import re

import numpy as np
import pytest
from click.testing import CliRunner

from terazi import api
from terazi.cli.convert import command
from terazi.convert import CONVERSIONS, TARGETS, conversion_table
from terazi.errors import UnsupportedError, UsageError
from terazi.formats import open_model
from terazi.registry import Store

TOKENS = [5, 100, 200, 17, 300, 42]
DONE = [pair for pair, conversion in CONVERSIONS.items() if conversion.hint is None]
REFUSED = [pair for pair in CONVERSIONS if pair not in DONE]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, byte_level):
    """A Llama of two layers with rows of 64, large weights and a tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.15,
        bos_token_id=0,
        eos_token_id=0,
    )
    directory = tmp_path_factory.mktemp("matrix") / "tiny-llama"
    LlamaForCausalLM(config).save_pretrained(directory)
    (directory / "tokenizer.json").write_text(byte_level, "utf-8")
    names = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    (directory / "tokenizer_config.json").write_text(
        json.dumps(names | {"tokenizer_class": "PreTrainedTokenizerFast"})
    )
    return directory


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """An .onnx file whose second half is constant."""
    import torch

    from terazi.convert.onnx import export_module

    module = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Identity(), torch.nn.Linear(16, 4))
    path = tmp_path_factory.mktemp("graph") / "m.onnx"
    return export_module(module, {"x": torch.zeros(1, 8)}, path)


@pytest.fixture(scope="module")
def sources(checkpoint, graph, tmp_path_factory):
    """One model of every source format."""
    directory = tmp_path_factory.mktemp("sources")
    api.convert(checkpoint, "gguf", output=directory / "tiny.gguf", type="F16")
    api.convert(checkpoint, "mlx", output=directory / "tiny-mlx", bits=8)
    return {
        "huggingface": checkpoint,
        "gguf": directory / "tiny.gguf",
        "mlx": directory / "tiny-mlx",
        "onnx": graph,
    }


@pytest.fixture(scope="module")
def exact(checkpoint):
    return logits(checkpoint)


def logits(path):
    """float32[tokens, vocabulary] by the runtime of the model's format."""
    kind = open_model(path).format
    if kind == "huggingface":
        import torch
        from transformers import AutoModelForCausalLM

        with torch.inference_mode():
            network = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
            return network(torch.tensor([TOKENS])).logits[0].numpy()
    if kind == "mlx":
        mx = pytest.importorskip("mlx.core", reason="mlx is not installed on this platform")
        mlx_lm = pytest.importorskip("mlx_lm", reason="mlx-lm is not installed on this platform")
        network, _ = mlx_lm.load(str(path))
        return np.array(network(mx.array([TOKENS])).astype(mx.float32))[0]
    from terazi.runtime import llamacpp, onnxruntime

    engines = {"gguf": llamacpp, "onnx": onnxruntime}
    with engines[kind].open_engine(path, context=32, threads=1) as engine:
        return engine.logits(TOKENS)


def run_card(directory):
    """Run the Python of a model card as a reader would who stands beside the directory."""
    code = re.search(r"```python\n(.*?)```", (directory / "README.md").read_text(), re.DOTALL)
    assert code
    exec(code[1], {})


# Exporting a decoder takes seconds; once is enough by default.
LONG = [("gguf", "onnx"), ("mlx", "onnx")]
CELLS = [pytest.param(*pair, marks=[pytest.mark.slow] if pair in LONG else []) for pair in DONE]


@pytest.mark.parametrize(("source", "target"), CELLS)
def test_a_conversion(source, target, sources, exact, tmp_path, monkeypatch, capsys):
    output = tmp_path / ("out.gguf" if target == "gguf" else "out")
    options = {"bits": 8} if target == "mlx" else {}
    artifact = api.convert(sources[source], target, output=output, **options)
    made = open_model(output)
    assert made.format == artifact.format == ("huggingface" if target == "safetensors" else target)
    assert artifact.size == sum(file.stat().st_size for file in artifact.files)
    if source != "onnx":
        assert np.sqrt(((logits(output) - exact) ** 2).mean()) < 0.02 * exact.std()
        if target != "gguf":
            monkeypatch.chdir(tmp_path)
            run_card(output)
            assert len(capsys.readouterr().out.strip()) > 10


@pytest.mark.parametrize(("source", "target"), REFUSED)
def test_a_refusal_names_the_next_step(source, target, sources, tmp_path):
    output = tmp_path / "out"
    with pytest.raises(UnsupportedError, match=f"{source} does not convert to {target}") as caught:
        api.convert(sources[source], target, output=output)
    assert caught.value.hint
    assert not list(tmp_path.iterdir())


def test_every_pair_is_decided():
    assert {source for source, _ in CONVERSIONS} == {"huggingface", "gguf", "mlx", "onnx"}
    assert {target for _, target in CONVERSIONS} == set(TARGETS)
    assert len(CONVERSIONS) == 16


def test_the_page_shows_the_matrix(request):
    page = request.config.rootpath / "docs" / "formats" / "index.md"
    assert conversion_table() in page.read_text()


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("gguf", {"bits": 4}),
        ("gguf", {"group_size": 64}),
        ("safetensors", {"mode": "mxfp4"}),
        ("onnx", {"recipe": "mixed_4_6"}),
        ("mlx", {"pre": "qwen2"}),
        ("mlx", {"opset": 17}),
    ],
)
def test_options_of_another_target(target, options, checkpoint, tmp_path):
    with pytest.raises(UsageError, match="no option of a conversion to") as caught:
        api.convert(checkpoint, target, output=tmp_path / "out", **options)
    assert "type" in (caught.value.hint or "")


def test_command_line(sources, tmp_path, capsys):
    from terazi.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["convert", str(sources["huggingface"]), str(tmp_path / "o.gguf"), "--bits", "4"])
    assert ended.value.code == 2
    assert "bits: no option of a conversion to gguf" in capsys.readouterr().err
    done = CliRunner().invoke(
        command, [str(sources["onnx"]), str(tmp_path / "o"), "--to", "mlx", "--dry-run"]
    )
    assert isinstance(done.exception, UnsupportedError)
    done = CliRunner().invoke(command, [str(sources["mlx"]), str(tmp_path / "o.gguf"), "--dry-run"])
    assert "would take" in done.output
    assert not list(tmp_path.iterdir())


def test_optimizing_a_graph_shows_what_went(tmp_path):
    from onnx import TensorProto, helper, numpy_helper, save

    nodes = [
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Identity", ["x"], ["same"]),
        helper.make_node("Mul", ["same", "sum"], ["y"]),
    ]
    shape = helper.make_tensor_value_info
    constants = [numpy_helper.from_array(np.ones(4, np.float32), name) for name in "ab"]
    graph = helper.make_graph(
        nodes,
        "g",
        [shape("x", TensorProto.FLOAT, [4])],
        [shape("y", TensorProto.FLOAT, [4])],
        initializer=constants,
    )
    save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9),
        tmp_path / "m.onnx",
    )
    done = CliRunner().invoke(command, [str(tmp_path / "m.onnx"), str(tmp_path / "out"), "--to", "onnx"])
    assert done.exit_code == 0, done.output
    assert open_model(tmp_path / "out").metadata["operators"] == {"Mul": 1}
    assert ["all", "3", "1"] in [line.split() for line in done.output.splitlines()]


def test_a_graph_that_the_checker_refuses(graph, tmp_path):
    import onnx

    from terazi.errors import FormatError

    broken = onnx.load(graph)
    broken.graph.node[0].input[0] = "nowhere"
    onnx.save(broken, tmp_path / "m.onnx")
    with pytest.raises(FormatError, match="checker refuses"):
        api.convert(tmp_path / "m.onnx", "onnx", output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_stored_name_is_converted(sources, tmp_path):
    Store().add(sources["gguf"], "mine:1", share="link")
    done = CliRunner().invoke(command, ["mine:1", str(tmp_path / "out"), "--to", "safetensors"])
    assert done.exit_code == 0, done.output
    assert open_model(tmp_path / "out").config.block_count == 2
