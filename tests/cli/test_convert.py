"""``terazi convert`` as a user sees it: options by the names they typed, and room on the disk."""

import shutil

import pytest
from parity_models import MODELS


@pytest.fixture
def tiny(tmp_path):
    MODELS["llama"].write(tmp_path / "tiny.gguf")
    return tmp_path / "tiny.gguf"


def test_a_foreign_option_is_named_as_it_was_typed(run, minilm):
    done = run("convert", minilm, "out.gguf", "--bits", 4, "--group-size", 64, "--dry-run")
    assert done.code == 2
    assert "--bits and --group-size: no option of a conversion to gguf" in done.err
    assert "gguf takes --type, --pre-tokenizer" in done.err


@pytest.mark.parametrize(
    ("target", "options"), [("safetensors", ()), ("mlx", ("--bits", "4")), ("onnx", ()), ("gguf", ())]
)
def test_a_full_disk_is_found_before_anything_is_written(run, minilm, tmp_path, monkeypatch, target, options):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    source = minilm
    done = run("convert", source, "out.gguf" if target == "gguf" else "out", "--to", target, *options)
    assert done.code == 1, done.err
    assert "are needed, 1.0 kB are free" in done.err
    assert list(tmp_path.iterdir()) == []


def test_an_empty_name_is_no_directory(run, tiny):
    for command in (("inspect", ""), ("convert", "", "out.gguf"), ("evaluate", " ")):
        done = run(*command)
        assert done.code == 2, command
        assert "the model's name is empty" in done.err


def test_a_broken_config_is_named(run, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": ')
    done = run("inspect", ".")
    assert done.code == 1
    assert "config.json: the file is not valid JSON" in done.err
    (tmp_path / "config.json").write_text("{}")
    assert "has a config.json, but no weights beside it" in run("inspect", ".").err


def test_examples_stand_on_lines_of_their_own(run):
    lines = [line.strip() for line in run("convert", "--help").out.splitlines()]
    assert "terazi convert model.gguf model-mlx --to mlx --bits 4" in lines
