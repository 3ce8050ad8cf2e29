"""The store's commands, as a user types them."""

import json

import pytest

from terazi import cli
from terazi.registry import Store


@pytest.fixture
def terazi(capsys, monkeypatch, tmp_path):
    """Run a command line; returns exit code, stdout and stderr."""
    monkeypatch.setenv("TERAZI_HOME", str(tmp_path / "home"))

    def run(*arguments):
        with pytest.raises(SystemExit) as exit:
            cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return exit.value.code, captured.out, captured.err

    return run


def test_the_life_of_a_model(terazi, make_gguf):
    path = make_gguf()
    code, out, err = terazi("pull", path, "--name", "tiny:1")
    assert (code, "Next: terazi inspect tiny:1" in err) == (0, True)
    assert "licence mit" in out
    assert terazi("tag", "tiny:1", "team/alias:x")[0] == 0
    code, out, _ = terazi("list", "--json")
    assert [entry["name"] for entry in json.loads(out)] == ["team/alias:x", "tiny:1"]
    assert "tiny:1" in terazi("list", "tiny")[1]
    assert "alias" not in terazi("list", "tiny")[1]
    assert "None of the 2 models' names contains big" in terazi("list", "big")[2]
    shown = json.loads(terazi("show", "tiny:1", "--json")[1])
    assert shown["license"] == "mit"
    assert shown["path"].endswith("tiny.gguf")
    assert "tiny.gguf" in terazi("show", "tiny:1")[1]
    assert "would remove tiny:1" in terazi("remove", "tiny:1", "--dry-run")[1]
    would = json.loads(terazi("remove", "tiny:1", "--dry-run", "--json")[1])
    assert [row["name"] for row in would["removed"]] == ["tiny:1"]
    assert "other names still use its content" in terazi("remove", "tiny:1")[1]
    assert terazi("remove", "team/alias:x")[0] == 0
    assert "No models" in terazi("list")[2]
    assert terazi("remove", "tiny:1")[0] == 1
    assert terazi("remove")[0] == 2
    assert terazi("remove", "--unfinished")[0] == 0


def test_a_damaged_model_is_named_and_goes(terazi, make_gguf):
    terazi("pull", make_gguf("a.gguf"), "--name", "a:1")
    terazi("pull", make_gguf("b.gguf", seed=1), "--name", "b:1")
    Store().blob(Store().entry("b:1").digest).unlink()
    code, out, err = terazi("list", "--json")
    assert (code, [entry["name"] for entry in json.loads(out)]) == (0, ["a:1"])
    assert "note: b:1 is damaged" in err
    assert terazi("catalog")[0] == 0
    assert terazi("remove", "b:1", "a:2")[0] == 1
    assert "removed b:1" in terazi("remove", "b:1")[1]
    assert terazi("list")[2] == ""


def test_verify_reports_damage(terazi, make_gguf):
    terazi("pull", make_gguf(), "--name", "tiny")
    assert terazi("verify", "--store")[0] == 0
    assert terazi("verify")[0] == 2
    store = Store()
    blob = store.blob(store.entry("tiny").manifest.files[0].digest)
    blob.chmod(0o600)
    blob.write_bytes(b"GGUF")
    code, out, err = terazi("verify", "--store", "--json")
    assert code == 1
    assert "tiny:latest" in json.loads(out)["problems"]
    assert "--discard-damaged" in err
    terazi("verify", "--store", "--discard-damaged")
    assert "missing" in terazi("verify", "--store")[1]


def test_catalog_filters(terazi):
    code, out, _ = terazi("catalog", "--use", "commercial", "--json")
    found = json.loads(out)
    assert code == 0
    assert "smollm2:135m" in [entry["name"] for entry in found]
    assert all(entry["use"] in ("yes", "conditions") for entry in found)
    assert "smollm2:135m" in terazi("catalog")[1]


@pytest.mark.parametrize("name", ["../x", "a b", "x\ny", "oci:", "absent"])
def test_bad_names_are_one_line(terazi, name):
    for command in ("show", "remove", "pull", "run"):
        code, _, err = terazi(command, name, *(["hi"] if command == "run" else []))
        assert code in (1, 2)
        assert err.startswith("error: ")
        assert len(err.splitlines()) <= 2


def test_run_answers_and_makes_variants(terazi, smollm2):
    terazi("pull", smollm2, "--name", "smollm2:135m")
    asked = ("What is 2 + 2?", "--max-tokens", 12, "--temperature", 0, "--threads", 1, "--context", 256)
    code, out, err = terazi("run", "smollm2:135m-q8_0", *asked)
    assert (code, "add --make" in err) == (1, True)
    code, out, _ = terazi("run", "smollm2:135m-q8_0", "--make", *asked)
    assert code == 0
    assert "4" in out
    code, out, _ = terazi("run", "smollm2:135m-q8_0", "--json", *asked)
    answer = json.loads(out)
    assert (answer["model"], 0 < answer["tokens"] <= 12) == ("smollm2:135m-q8_0", True)
    assert Store().entry("smollm2:135m-q8_0").manifest.lineage["base"] == "smollm2:135m"


def test_run_continues_the_text_of_a_base_model(terazi, reference_9m, minilm, tmp_path):
    from terazi.api import convert

    base = convert(reference_9m, output=tmp_path / "base.gguf").path
    asked = ("In the beginning", "--max-tokens", 4, "--temperature", 0, "--threads", 1, "--context", 64)
    code, out, err = terazi("run", base, *asked)
    assert code == 0, err
    assert out.strip()
    assert "continues your text" in err
    assert terazi("run", reference_9m, *asked)[:2] == (0, out)  # a directory runs as the same GGUF
    embedder = convert(minilm, output=tmp_path / "minilm.gguf").path
    code, _, err = terazi("run", embedder, *asked)
    assert (code, "an embedding model" in err) == (1, True)
