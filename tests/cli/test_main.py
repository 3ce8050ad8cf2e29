"""What holds for every command: wrong usage in one line, pipes that close, signals."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ENTRY = [sys.executable, "-m", "terazi"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nosuch"], "No such command 'nosuch'"),
        (["inspect"], "Missing argument 'MODEL'"),
        (["inspect", "a", "b"], "unexpected extra argument"),
        (["inspect", "a", "--context", "-1"], "not in the range"),
        (["inspect", "--hlep"], "No such option"),
        (["optimize", "a", "--min-speed", "nan"], "not a finite number"),
        (["optimize", "a", "--max-kl", "inf"], "not in the range"),
        (["run", "a", "b", "--temperature", "nan"], "not a finite number"),
    ],
)
def test_wrong_usage_is_one_line_and_a_next_step(run, arguments, said):
    done = run(*arguments)
    assert done.code == 2
    error, hint = done.err.splitlines()
    assert error.startswith("error: ")
    assert said in error
    assert hint.startswith("hint: terazi")
    assert hint.endswith("--help")


def test_a_closed_pipe_ends_quietly():
    with subprocess.Popen([*ENTRY, "types"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(60) == 1
        assert process.stderr.read() == b""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_command_leaves_no_half_file(tmp_path, reference_9m, sent):
    out = tmp_path / "out"
    out.mkdir()
    command = ["quantize", str(reference_9m), "out", "--collection", "--threads", "1"]
    with subprocess.Popen([*ENTRY, *command], cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not any(file.stat().st_size for file in out.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(sent)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in err
    assert not any(out.iterdir())


@pytest.mark.parametrize("encoding", ["utf-8:strict", "utf-8:surrogateescape", "ascii:strict"])
def test_names_that_are_no_text_print_as_json(tmp_path, encoding, smollm2):
    name = os.fsencode(tmp_path) + b"/\xc3\xb6 \xff.gguf"
    Path(os.fsdecode(name)).symlink_to(smollm2)
    done = subprocess.run(
        [*ENTRY, "inspect", name, "--json"],
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert os.fsencode(json.loads(done.stdout.decode())["path"]) == name


def test_a_full_disk_says_what_to_do(run, monkeypatch):
    def fill(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("terazi.registry.Store.__init__", fill)
    done = run("list")
    assert done.code == 1
    assert done.err.splitlines() == [
        "error: No space left on device",
        "hint: make room or choose another output",
    ]
