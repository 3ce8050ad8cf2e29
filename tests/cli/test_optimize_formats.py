"""Picks of every format: from a study to the folder they are published in, and on to the engine."""

import json
from dataclasses import replace

import pytest

from terazi import api, devices, search
from terazi.devices import Budget
from terazi.devices.use_case import Weights
from terazi.evaluate import evaluate
from terazi.formats import open_model
from terazi.quantize import open_source

SETTINGS = search.Settings(tokens=64, window=32, threads=1, answer_tokens=4)
SMALLEST = replace(
    devices.use_case("chat"),
    floors=Budget(),
    prompts=("Say hello.",),
    context=256,
    weights=Weights(quality=0, speed=0, size=1),
)


@pytest.mark.parametrize(
    ("type", "label", "format", "engine"),
    [
        ("mlx:2bit", "MLX 2-bit", "mlx", "mlx-lm"),
        ("onnx:int4", "ONNX int4", "onnx", "onnxruntime-genai"),
    ],
)
def test_a_pick_of_another_format_runs_where_it_is_published(
    reference_9m, tmp_path, run, type, label, format, engine
):
    source = open_source(reference_9m)
    device = devices.device("apple-m-series")
    study = search.propose(source, str(reference_9m), device, SMALLEST, Budget(), types=(type,))
    found = api.optimize(study, settings=SETTINGS, output=tmp_path / "out")
    assert found.pick is not None, [entry.reasons for entry in found.rejected]
    assert found.pick.label == label
    directory = found.pick.candidate.path
    assert directory.parent == tmp_path / "out"
    assert open_model(directory).format == format

    report = json.loads((tmp_path / "out" / "report.json").read_text())
    pick = next(v for v in report["variants"] if v["status"] == "pick")
    assert pick["file"] == str(directory)
    assert pick["format"] == format
    assert pick["measurements"]["kl_divergence"]["conditions"]["runtime"].startswith(engine)
    assert pick["measurements"]["kl_divergence"]["value"] > 0
    assert pick["size"] == pick["measurements"]["size"]["value"]
    assert pick["device_speed"]["estimated"]
    assert pick["samples"][0]["answer"]
    assert report["recommendation"]["framework"]["name"] == ("mlx" if format == "mlx" else "onnxruntime")
    assert any(engine in line for line in report["method"])
    if format == "onnx":
        assert pick["operators"]
        assert "Operators of the ONNX graphs" in (tmp_path / "out" / "report.html").read_text()

    again = evaluate(directory, tokens=64, context=32, threads=1, metrics=("perplexity", "size"))
    assert again[0].artifact == pick["digest"]
    done = run("run", directory, "Say hello.", "--max-tokens", 4, "--temperature", 0)
    assert done.code == 0, done.err
    assert done.out.strip()


@pytest.mark.slow
def test_an_encoder_is_published_as_onnx(minilm, tmp_path, run):
    text = tmp_path / "text.txt"
    text.write_text(
        "\n\n".join(f"Sentence {n} tells of {n * 7} boats that crossed the bay." for n in range(12))
    )
    done = run(
        "optimize", minilm, "--use-case", "embeddings-search", "--device", "raspberry-pi-5",
        "--types", "onnx:w8", "--text", text, "--threads", 1, "--output", "out",
    )  # fmt: skip
    assert done.code == 0, done.err
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    variants = {v["label"]: v for v in report["variants"]}
    assert set(variants) == {"F32", "ONNX w8"}
    assert report["recommendation"]["pick"] == "ONNX w8"
    assert report["recommendation"]["framework"]["name"] == "onnxruntime"
    assert report["recommendation"]["framework"]["measured"]
    for variant in variants.values():
        latency = variant["measurements"]["latency"]
        assert 0 < latency["value"] <= latency["conditions"]["percentile_95"]
        assert variant["measurements"]["prefill_speed"]["value"] > 0
    assert variants["ONNX w8"]["exported"]["Erf"] == 6
    assert variants["ONNX w8"]["operators"]["BiasGelu"] == 6
    (directory,) = (tmp_path / "out").glob("*-ONNX-w8")
    again = evaluate(directory, reference=directory, text=text, threads=1, metrics=("size", "cosine"))
    assert again[0].artifact == variants["ONNX w8"]["digest"]
    assert again[1].value > 0.9999
