"""Embedding models in onnxruntime and llama.cpp on one scale."""

import pytest

from terazi import api
from terazi.evaluate import evaluate


@pytest.fixture(scope="module")
def exported(minilm, tmp_path_factory):
    directory = tmp_path_factory.mktemp("formats")
    api.convert(minilm, "onnx", output=directory / "onnx")
    api.convert(minilm, output=directory / "minilm.gguf")
    return directory


def values(measurements):
    return {measurement.metric: measurement for measurement in measurements}


def test_variants_of_two_formats_share_one_reference(exported, tmp_path):
    api.quantize(exported / "onnx", "int8-dynamic", output=tmp_path / "int8")
    settings = {"reference": exported / "onnx", "threads": 1, "cache": tmp_path / "cache"}
    gguf = values(evaluate(exported / "minilm.gguf", **settings))
    int8 = values(evaluate(tmp_path / "int8", **settings))
    assert gguf["cosine"].value > 0.99999
    assert 0.98 < int8["cosine"].value < gguf["cosine"].value
    assert int8["size"].value < 0.3 * gguf["size"].value
    for found in (gguf, int8):
        assert found["latency"].value > 0
        assert found["latency"].conditions["percentile_95"] >= found["latency"].value
        assert found["peak_memory"].value > 20e6
    assert "onnxruntime" in int8["cosine"].conditions["runtime"]
    again = values(evaluate(tmp_path / "int8", **settings))
    assert again["latency"] == int8["latency"], "the second time comes from the cache"
