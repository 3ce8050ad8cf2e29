"""MLX directories measured beside GGUF and Hugging Face, on one scale."""

import json
import shutil

import pytest

from terazi import api
from terazi.calibrate.corpus import evaluation_corpus, sentences
from terazi.cli import main
from terazi.evaluate import evaluate

pytest.importorskip("mlx.core", reason="mlx is not installed on this platform")
pytest.importorskip("mlx_lm", reason="mlx-lm is not installed on this platform")

QUALITY = ("perplexity", "kl_divergence", "agreement")
AMOUNT = {"tokens": 96, "context": 32, "threads": 1}


@pytest.fixture(scope="session")
def four_bits(reference_9m, made):
    api.convert(reference_9m, "mlx", output=made / "four", bits=4)
    return made / "four"


@pytest.fixture(scope="session")
def eight_bits(reference_9m, made):
    api.convert(reference_9m, "mlx", output=made / "eight", bits=8)
    return made / "eight"


@pytest.fixture(scope="session")
def short_sentences(made):
    """A few: MLX needs seconds for the usual 128 where there is no GPU."""
    found = [text for text in sentences(evaluation_corpus(), 128) if len(text) < 80]
    path = made / "sentences.txt"
    path.write_text("\n\n".join(found[:6]))
    return path


def values(measurements):
    return {measurement.metric: measurement for measurement in measurements}


def test_references_of_two_formats_agree(four_bits, eight_bits, reference_9m, reference_gguf, tmp_path):
    """The same weights in llama.cpp and in MLX are the same reference."""
    settings = {**AMOUNT, "metrics": QUALITY, "cache": tmp_path}
    by_gguf = values(evaluate(four_bits, reference=reference_gguf, **settings))
    by_checkpoint = values(evaluate(four_bits, reference=reference_9m, **settings))
    better = values(evaluate(eight_bits, reference=reference_gguf, **settings))
    assert by_gguf.keys() == set(QUALITY)
    divergence = by_gguf["kl_divergence"].value
    assert divergence == pytest.approx(by_checkpoint["kl_divergence"].value, rel=0.02)
    assert 0 < better["kl_divergence"].value < 0.1 * divergence
    assert better["agreement"].value >= by_gguf["agreement"].value
    conditions = by_checkpoint["kl_divergence"].conditions
    assert "mlx-lm" in conditions["runtime"]
    assert conditions["reference"] == reference_9m.name
    assert not conditions["reference_quantized"]
    gguf = values(evaluate(reference_gguf, reference=eight_bits, **settings))["kl_divergence"]
    assert gguf.conditions["reference_quantized"]
    assert gguf.value == pytest.approx(better["kl_divergence"].value, rel=0.2)


def test_encoders(minilm, minilm_gguf, short_sentences, made, tmp_path):
    settings = {"reference": minilm_gguf, "text": short_sentences, "context": 48, "cache": tmp_path}
    api.convert(minilm, "mlx", output=made / "minilm-4", bits=4)
    found = values(evaluate(made / "minilm-4", metrics=["cosine"], **settings))["cosine"]
    assert 0.93 < found.value < 0.99
    assert found.conditions["minimum"] < found.value
    assert found.conditions["runtime"].startswith("mlx ")
    metrics = ["latency", "prefill_speed", "peak_memory"]
    speed = values(evaluate(made / "minilm-4", metrics=metrics, **settings))
    assert 0 < speed["latency"].value <= speed["latency"].conditions["percentile_95"]
    assert speed["prefill_speed"].value > 0
    assert speed["peak_memory"].value > 20e6
    assert "decode_speed" not in speed


@pytest.fixture
def run(capsys):
    """Run ``terazi`` and return its exit code, what it printed and what it complained about."""

    def call(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return int(ended.value.code or 0), *capsys.readouterr()

    return call


def test_commands(four_bits, run):
    """What people type: evaluate, inspect and run an MLX directory."""
    code, out, err = run("evaluate", four_bits, "--tokens", 64, "--context", 32, "--json")
    assert code == 0, err
    found = {entry["metric"]: entry for entry in json.loads(out)["measurements"]}
    weights = (four_bits / "model.safetensors").stat().st_size
    assert weights < found["size"]["value"] < 1.2 * weights
    assert found["size"]["conditions"]["types"][0] == "affine 4-bit"
    assert 4.4 < found["bits_per_weight"]["value"] < 4.7
    assert found["perplexity"]["value"] < 4096
    assert "mlx-lm" in found["perplexity"]["conditions"]["runtime"]
    for metric in ("prefill_speed", "decode_speed", "load_time"):
        assert found[metric]["value"] > 0
    assert found["prefill_speed"]["conditions"]["tokens"] == 32
    assert found["peak_memory"]["value"] > weights
    code, out, _ = run("inspect", four_bits)
    assert "affine 4-bit" in out
    code, out, err = run("run", four_bits, "The king", "--max-tokens", 4, "--temperature", 0)
    assert code == 0, err
    assert out.strip()


def test_a_cut_file_gets_one_line(four_bits, tmp_path, run):
    copy = shutil.copytree(four_bits, tmp_path / "cut")
    with (copy / "model.safetensors").open("r+b") as file:
        file.truncate(50_000)
    for command in (("evaluate", copy), ("run", copy, "x")):
        code, _, err = run(*command)
        assert code == 1
        assert "model.safetensors" in err
        assert "Traceback" not in err
