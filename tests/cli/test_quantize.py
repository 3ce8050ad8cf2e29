"""``terazi quantize`` from the outside: files, plans, series, JSON, and one clear line for each mistake."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from parity_models import MODELS

from terazi.api import quantize_collection
from terazi.cli import main
from terazi.formats import open_model


@pytest.fixture
def directory(tmp_path):
    MODELS["llama"].write(tmp_path / "tiny-F16.gguf")
    return tmp_path


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def terazi(directory, monkeypatch, capsys):
    """Run the command in a directory that holds tiny-F16.gguf; returns how it ended."""
    monkeypatch.chdir(directory)

    def run(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["quantize", *arguments])
        said = capsys.readouterr()
        return Done(int(ended.value.code or 0), said.out, said.err)

    return run


def test_a_file_is_written(terazi, directory):
    done = terazi("tiny-F16.gguf", "small.gguf", "--type", "q4_k")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("small.gguf: Q4_K_M, ")
    assert int(open_model(directory / "small.gguf").metadata["general.file_type"]) == 15


def test_a_dry_run_says_the_exact_size_and_writes_nothing(terazi, directory):
    said = json.loads(terazi("tiny-F16.gguf", "--dry-run", "--json", "--type", "Q5_0").stdout)
    assert [file.name for file in directory.iterdir()] == ["tiny-F16.gguf"]
    made = json.loads(terazi("tiny-F16.gguf", "out.gguf", "--json", "--type", "Q5_0").stdout)
    assert said["size"] == made["size"] == (directory / "out.gguf").stat().st_size
    assert said["plan_digest"] == made["plan_digest"]
    assert sum(entry["tensors"] for entry in said["types"]) == len(open_model(directory / "out.gguf").tensors)
    assert "would take" in terazi("tiny-F16.gguf", "--dry-run").stdout


def test_a_saved_plan_is_edited_and_carried_out(terazi, directory):
    assert terazi("tiny-F16.gguf", "--dry-run", "--save-plan", "plan.json").returncode == 0
    plan = directory / "plan.json"
    lines = [line.replace('"type": "Q4_K"', '"type": "Q8_0"') if "ffn_up" in line else line
             for line in plan.read_text().splitlines()]  # fmt: skip
    plan.write_text("\n".join(lines))
    done = terazi("tiny-F16.gguf", "out.gguf", "--plan", "plan.json")
    assert done.returncode == 0, done.stderr
    tensors = open_model(directory / "out.gguf").tensors
    assert {tensors[name].type for name in tensors if "ffn_up" in name} == {"Q8_0"}
    assert tensors["blk.5.ffn_gate.weight"].type == "Q4_K"


def test_a_series_goes_into_a_directory(terazi, directory):
    done = terazi("tiny-F16.gguf", "series", "--collection", "--type", "Q8_0", "--type", "Q2_K", "--json")
    assert done.returncode == 0, done.stderr
    assert [Path(entry["path"]).name for entry in json.loads(done.stdout)] == [
        "tiny-Q8_0.gguf",
        "tiny-Q2_K.gguf",
    ]
    assert sorted(file.name for file in (directory / "series").iterdir()) == [
        "tiny-Q2_K.gguf",
        "tiny-Q8_0.gguf",
    ]


def test_types_are_listed(terazi):
    done = terazi("--list-types")
    assert done.returncode == 0
    assert "Q4_K_M" in done.stdout
    assert "IQ1_S" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["tiny-F16.gguf"], 2, "OUTPUT"),
        (["missing.gguf", "out.gguf"], 1, "missing.gguf"),
        (["tiny-F16.gguf", "out.gguf", "--type", "Q4_K_X"], 2, "did you mean"),
        (["tiny-F16.gguf", "out.gguf", "--type", "Q8_0", "--type", "Q4_0"], 2, "--collection"),
        (["tiny-F16.gguf", "out.gguf", "--type", "IQ2_XXS"], 2, "terazi calibrate"),
        (["tiny-F16.gguf", "out.gguf", "--tensor-type", "ffn_up"], 2, "REGEX=TYPE"),
        (["tiny-F16.gguf", "out.gguf", "--tensor-type", "(=Q8_0"], 2, "regular expression"),
        (["tiny-F16.gguf", "out.gguf", "--keep-split"], 2, "split"),
        (["tiny-F16.gguf", "tiny-F16.gguf"], 1, "--force"),
        (["tiny-F16.gguf", "out.gguf", "--plan", "missing.json"], 1, "missing.json"),
        (["tiny-F16.gguf", "out.gguf", "--plan", "tiny-F16.gguf"], 1, "not a plan"),
        (["tiny-F16.gguf", "out.gguf", "--plan", "p.json", "--type", "Q8_0"], 2, "--plan"),
        (["tiny-F16.gguf", "no/such/directory/out.gguf"], 1, "no such directory"),
    ],
)
def test_mistakes_get_one_clear_line(terazi, directory, arguments, code, words):
    done = terazi(*arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert done.stderr.count("error:") + done.stderr.count("Error:") == 1
    assert not (directory / "out.gguf").exists()


def test_the_source_is_never_lost(terazi, directory):
    """Even with --force onto itself: the source is whole, or the new file is."""
    before = open_model(directory / "tiny-F16.gguf").parameters
    done = terazi("tiny-F16.gguf", "tiny-F16.gguf", "--force", "--type", "Q8_0")
    assert done.returncode == 0, done.stderr
    assert open_model(directory / "tiny-F16.gguf").parameters == before


def test_a_series_from_python_makes_its_directory(tmp_path, reference_9m):
    artifacts = quantize_collection(reference_9m, ["Q8_0", "Q4_0"], output=tmp_path / "new" / "series")
    assert [artifact.path.parent for artifact in artifacts] == [tmp_path / "new" / "series"] * 2
    assert all(artifact.path.is_file() for artifact in artifacts)


def test_a_series_without_room_leaves_no_directory(terazi, directory, monkeypatch):
    usage = shutil.disk_usage(directory)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    done = terazi("tiny-F16.gguf", "a/b", "--collection", "--type", "Q8_0")
    assert done.returncode == 1
    assert "are needed, 1.0 kB are free" in done.stderr
    assert [file.name for file in directory.iterdir()] == ["tiny-F16.gguf"]


def test_a_series_needs_a_directory(terazi, directory):
    done = terazi("tiny-F16.gguf", "tiny-F16.gguf", "--collection")
    assert done.returncode == 2
    assert "tiny-F16.gguf: is a file" in done.stderr


def test_importance_is_no_directory(terazi, directory):
    done = terazi("tiny-F16.gguf", "out.gguf", "--importance", str(directory))
    assert done.returncode == 2
    assert f"{directory}: is a directory" in done.stderr


@pytest.mark.parametrize("share", ["nan", "inf", "2", "-0.1"])
def test_a_share_is_a_number_from_0_to_1(terazi, share):
    done = terazi("model.onnx", "out", "--type", "int4", "--spare", share)
    assert done.returncode == 2
    assert "--spare" in done.stderr
