"""``terazi inspect`` and ``terazi types`` as a user sees them."""

import json

import pytest
from click.testing import CliRunner

import terazi
from terazi.cli.inspect import command as inspect
from terazi.cli.types import command as types


def test_a_real_model(smollm2):
    done = CliRunner().invoke(inspect, [str(smollm2), "--context", "8192"])
    assert done.exit_code == 0
    for words in (
        "llama: 30 blocks, 9 heads, 3 for keys and values",
        "instruct",
        "135 M",
        "5.74 bits per weight",
        "low (most weights)",
        "Apache License 2.0; commercial use allowed",
        "memory at 8192",
        "KV cache 188.7 MB",
        "llama.cpp",
        "Q4_1",
    ):
        assert words in done.output


def test_json_has_the_documented_keys(smollm2):
    done = CliRunner().invoke(inspect, [str(smollm2), "--json", "--tensors"])
    found = json.loads(done.output)
    assert set(found) == {
        "path", "format", "name", "variant", "config", "tokenizer", "parameters", "nbytes", "bits_per_weight",
        "precision", "types", "license", "runtimes", "context", "memory", "tensors",
    }  # fmt: skip
    assert found["memory"]["total"] == sum(found["memory"][k] for k in ("weights", "kv_cache", "compute"))
    assert found["memory"]["estimated"] is True
    assert sum(entry["weights"] for entry in found["types"]) == found["parameters"] == 134515008
    assert len(found["tensors"]) == 272


@pytest.mark.parametrize(("use", "verdict"), [("commercial", "yes"), ("redistribution", "yes")])
def test_the_verb(use, verdict, minilm):
    found = terazi.inspect(minilm, use=use)
    assert found.license.verdict == verdict
    assert (found.variant, found.precision, found.memory.kv_cache) == ("embedding", "full", 0)


def test_a_licence_that_is_not_stated_is_unknown(reference_9m):
    done = CliRunner().invoke(inspect, [str(reference_9m)])
    assert "not stated; commercial use unknown" in done.output


def test_types():
    listed = json.loads(CliRunner().invoke(types, ["--json"]).output)
    assert {entry["name"] for entry in listed} == set(terazi.TYPES)
    text = CliRunner().invoke(types).output
    assert all(name in text for name in terazi.TYPES)


def fits(model):
    return {fit.runtime: fit.note for fit in terazi.inspect(model).runtimes}


def test_runtimes_depend_on_what_is_inside(reference_9m, tmp_path):
    assert "llama.cpp" in fits(reference_9m)
    made = terazi.quantize(reference_9m, "Q2_0", output=tmp_path / "q2_0.gguf")
    assert fits(made.path)["llama.cpp"].endswith("a recent version, for Q2_0")
    made = terazi.quantize(reference_9m, "IQ4_XS", output=tmp_path / "iq4_xs.gguf")
    assert fits(made.path)["wllama"] == "IQ types are slow there"
    other = tmp_path / "other"
    other.mkdir()
    config = json.loads((reference_9m / "config.json").read_text()) | {"architectures": ["UnheardOfModel"]}
    (other / "config.json").write_text(json.dumps(config))
    (other / "model.safetensors").symlink_to(reference_9m / "model.safetensors")
    assert "llama.cpp" not in fits(other)
