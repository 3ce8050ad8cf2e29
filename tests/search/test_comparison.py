"""Finished models of several formats side by side, each in its own engine."""

from dataclasses import replace

import pytest

from terazi import devices, search
from terazi.api import convert, quantize
from terazi.errors import EngineError, UsageError
from terazi.formats import gguf, open_model

SETTINGS = search.Settings(tokens=128, window=32, threads=1, answer_tokens=4)
PI = devices.device("raspberry-pi-5")
EMBED = devices.use_case("embeddings-search")
CHAT = replace(devices.use_case("chat"), prompts=("Say hello.",), context=256)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A dozen sentences, so that encoders are measured quickly."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(
        "\n\n".join(f"Sentence {n} tells of {n * 7} boats that crossed the bay." for n in range(12))
    )
    return path


@pytest.fixture(scope="module")
def graph(minilm, tmp_path_factory):
    """MiniLM's ONNX export."""
    return convert(minilm, "onnx", output=tmp_path_factory.mktemp("graph") / "minilm-onnx").path


def test_an_encoder_in_three_shapes(minilm, graph, text, tmp_path):
    quantize(graph, "w8", output=tmp_path / "minilm-w8")
    paths = {
        "source": minilm,
        "a": graph,
        "b": tmp_path / "minilm-w8" / "model.onnx",
    }
    settings = search.Settings(tokens=64, text=text, threads=1)
    found, source = search.compare(paths, PI, EMBED, settings)
    assert not found.rejected
    assert source.path == minilm
    by_label = {entry.label: entry.candidate for entry in found.ranked}
    assert set(by_label) == {"model", "minilm-onnx", "minilm-w8"}
    assert [c.format for c in by_label.values()].count("onnx") == 2
    reference = by_label["model"]
    assert reference.source
    assert "Run as GGUF in llama.cpp, types kept: model." in found.caveats
    assert reference.path == minilm
    for label, candidate in by_label.items():
        assert candidate.measured("latency").value > 0, label
        assert candidate.memory_needed > 20e6, label
        if not candidate.source:
            assert candidate.value("cosine") > 0.995, label
    assert by_label["minilm-onnx"].value("cosine") > by_label["minilm-w8"].value("cosine")
    assert 8 < by_label["minilm-w8"].bits_per_weight < 9
    assert by_label["minilm-onnx"].exported["Add"] > by_label["minilm-onnx"].operators["Add"]
    assert {m.conditions["runtime"].split()[0] for c in by_label.values() for m in c.measurements[2:]} > {
        "onnxruntime"
    }


def test_an_encoder_against_a_writer_is_refused(two_layers, graph):
    with pytest.raises(UsageError, match=r"minilm-onnx makes embeddings, and .*Q4_1.gguf writes text"):
        search.compare({"a": two_layers, "b": graph}, PI, CHAT, SETTINGS)


def test_one_that_does_not_run_is_kept_with_the_reason(two_layers, tmp_path):
    model = open_model(two_layers)
    kept = [tensor for name, tensor in model.tensors.items() if name != "output_norm.weight"]
    broken = gguf.write(tmp_path / "broken.gguf", model.metadata, kept)
    found, _ = search.compare({"a": two_layers, "b": broken}, PI, CHAT, SETTINGS)
    (rejection,) = found.rejected
    assert rejection.candidate.label == "broken"
    assert "output_norm" in rejection.reasons[0]
    assert found.ranked[0].candidate.samples[0].answer
    with pytest.raises(EngineError, match="output_norm"):
        search.compare({"b": broken, "a": two_layers}, PI, CHAT, SETTINGS)
