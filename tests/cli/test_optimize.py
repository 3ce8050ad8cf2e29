"""``terazi optimize`` and ``terazi compare`` on a real model in the real engine, as a user sees them."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from terazi.formats import open_model
from terazi.registry.reports import kept_reports

USE_CASE = """
title = "Greeting"
comfortable_speed = 10
context = 256
prompts = ["Say hello."]
[weights]
quality = {quality}
speed = 0.1
size = {size}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """One store for this module, so that what one test measured the next one reuses."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def _shared_home(home, monkeypatch):
    monkeypatch.setenv("TERAZI_HOME", str(home))


@pytest.fixture
def greeting(tmp_path):
    """A use case that wants the smallest file, with one short prompt."""
    path = tmp_path / "greeting.toml"
    path.write_text(USE_CASE.format(quality=0, size=0.9))
    return path


@pytest.fixture
def arguments(two_layers, greeting):
    return (
        "optimize", two_layers, "--device", "raspberry-pi-5", "--use-case", greeting, "--types", "Q8_0,Q4_0",
        "--tokens", "64", "--threads", "1",
    )  # fmt: skip


def test_it_measures_recommends_and_delivers(run, arguments, tmp_path):
    done = run(*arguments, "--output", "out")
    assert done.code == 0, done.err
    assert "recommended" in done.out
    assert "Q4_0 scores highest for greeting" in done.out
    assert "Traceback" not in done.err
    assert len(kept_reports()) == 1, "`terazi serve` shows the report"
    report = json.loads(Path("out/report.json").read_text())
    page = Path("out/report.html").read_text()
    pick = report["recommendation"]["pick"]
    assert pick == "Q4_0"
    (file,) = Path("out").glob("*.gguf")
    assert file.name == "two-layers-Q4_0.gguf"
    assert report["recommendation"]["run"] == f"terazi run {shlex.quote(str(file))} 'Say hello.'"
    assert done.out.rstrip().endswith(report["recommendation"]["run"])
    assert open_model(file).tensors["blk.0.attn_q.weight"].type == "Q4_0"
    assert {v["label"] for v in report["variants"]} == {"Q4_1", "Q8_0", "Q4_0"}
    assert all(v["samples"] for v in report["variants"])
    assert "Say hello." in page
    assert report["model"]["quantized"]
    assert "already quantized" in done.out
    assert not list(Path(os.environ["TERAZI_HOME"]).glob("work/*/Q*.gguf")), "variants were left behind"


def test_again_for_another_device_reuses_what_was_measured(run, arguments, monkeypatch):
    assert run(*arguments, "--output", "first").code == 0
    for name in ("terazi.evaluate.language", "terazi.evaluate.speed", "terazi.runtime.llamacpp"):
        monkeypatch.setattr(sys.modules[name], "open_engine", None)
    done = run(*arguments[:3], "workstation", *arguments[4:], "--output", "out", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["device"]["name"] == "workstation"


def test_the_command_in_the_report_repeats_it(run, arguments):
    first = run(*arguments, "--output", "out", "--json")
    (command,) = json.loads(first.out)["commands"]
    words = shlex.split(command)
    assert words[:2] == ["terazi", "optimize"]
    words[words.index("--use-case") + 1] = str(arguments[5])
    again = run(*words[1:], "--force", "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out)["variants"] == json.loads(first.out)["variants"]


def test_an_earlier_report_stays_without_force(run, arguments):
    Path("out").mkdir()
    Path("out/report.json").write_text("mine")
    started = time.process_time()
    done = run(*arguments, "--output", "out")
    assert (done.code, Path("out/report.json").read_text()) == (1, "mine")
    assert "--force" in done.err
    assert time.process_time() - started < 5


def test_nothing_fits_is_code_3_with_what_would_have_to_change(run, arguments):
    done = run(*arguments, "--max-size", "1MB", "--output", "out")
    assert done.code == 3
    assert "No variant keeps every limit" in done.err
    assert "would need a size limit of" in done.err
    assert "Nothing fits" in Path("out/report.html").read_text()
    assert not list(Path("out").glob("*.gguf"))


def test_dry_run_writes_nothing(run, arguments, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    done = run(*arguments, "--max-size", "25MB", "--dry-run")
    assert done.code == 0
    assert "skip: its" in done.out
    assert "would be measured" in done.out
    found = json.loads(run(*arguments, "--dry-run", "--json").out)
    assert [v["label"] for v in found["variants"]] == ["Q4_1", "Q8_0", "Q4_0"]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("extra", "code", "words"),
    [
        (("--device", "toaster"), 1, "no device is called 'toaster'"),
        (("--use-case", "daydreaming"), 1, "no use case is called"),
        (("--types", "Q4_9"), 2, "unknown preset 'Q4_9'"),
        (("--max-size", "big"), 2, "is not a size"),
        (("--min-agreement", "1.5"), 2, "not in the range"),
        (("--max-kl", "0"), 2, "not in the range"),
        (("--context", "5"), 2, "not in the range"),
        (("--text", "absent.txt"), 1, "absent.txt"),
    ],
)
def test_mistakes_get_one_clear_line(run, arguments, extra, code, words):
    done = run(*arguments, *extra)
    assert done.code == code
    assert words in done.err
    assert "Traceback" not in done.err


def test_a_model_that_is_not_there(run):
    done = run("optimize", "absent.gguf")
    assert done.code == 1
    assert "absent.gguf" in done.err


def test_interrupted_and_repeated(arguments, tmp_path):
    """Ctrl-C ends with 130 and a hint, leaves no report, and the next run goes on."""
    environment = os.environ | {"TERAZI_HOME": str(tmp_path / "own-home")}
    words = [sys.executable, "-m", "terazi", *map(str, arguments), "--output", str(tmp_path / "out")]
    words[words.index("--types") + 1] = "Q8_0"
    records = tmp_path / "own-home" / "work"
    process = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not list(records.glob("*/*.json")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert b"run the same command again to continue" in said
    assert b"Traceback" not in said
    assert not (tmp_path / "out").exists()
    finished = {path: path.stat().st_mtime_ns for path in records.glob("*/*.json")}
    assert finished
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr
    assert all(path.stat().st_mtime_ns == changed for path, changed in finished.items())
    assert (tmp_path / "out" / "report.html").is_file()


def test_compare(run, two_layers, greeting):
    from terazi.api import quantize

    quantize(two_layers, "Q4_0", output="small.gguf")
    quick = ("--use-case", greeting, "--tokens", "64", "--threads", "1")
    done = run("compare", two_layers, "small.gguf", *quick, "--html", "page.html")
    assert done.code == 0, done.err
    assert "two-layers-Q4_1 (source)" in done.out
    assert "small" in done.out
    page = Path("page.html").read_text()
    assert "variants compared" in page
    assert ">recommended</span>" not in page.split("<tbody>")[1].split("</tbody>")[0]
    assert run("compare", two_layers, "small.gguf", "--html", "page.html").code == 1
    assert run("compare", two_layers).code == 2


def test_the_plan_of_an_encoder_has_onnx_variants(run, minilm):
    done = run(
        "optimize", minilm, "--use-case", "embeddings-search", "--types", "q8_0,INT8,onnx:f32", "--dry-run"
    )
    assert done.code == 0, done.err
    assert "ONNX int8" in done.out
    assert "ONNX F32" in done.out
    assert "> 22.6 MB" in done.out  # a lower bound until it is made
    assert "3 variants" not in done.out
    assert "4 variants would be measured" in done.out


def test_unknown_onnx_recipes_are_usage_errors(run, two_layers):
    done = run("optimize", two_layers, "--types", "onnx:int3", "--dry-run")
    assert done.code == 2
    assert "onnx:int8" in done.err
    assert "Traceback" not in done.err
