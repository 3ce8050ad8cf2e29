"""The examples of the guide as they are written there, and curl."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MODEL = "smollm2:135m"
GUIDE = (Path(__file__).parents[2] / "docs" / "guides" / "serve.md").read_text()
ADDRESS = "http://127.0.0.1:11434"
CURLS = re.findall(r"^curl .*", GUIDE, re.MULTILINE)


@pytest.fixture
def curl():
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")

    def run(*arguments):
        return subprocess.run(
            ["curl", "-sS", "--fail-with-body", *arguments], capture_output=True, text=True, check=True
        ).stdout

    return run


def test_both_protocols(curl, server):
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3, "stream": True}
    events = curl(f"{server.url}/v1/chat/completions", "-d", json.dumps(body)).strip().split("\n\n")
    assert events[-1] == "data: [DONE]"
    assert all(json.loads(event.removeprefix("data: ")) for event in events[:-1])
    body = {"model": MODEL, "prompt": "Hi", "options": {"num_predict": 3}}
    lines = [
        json.loads(line) for line in curl(f"{server.url}/api/generate", "-d", json.dumps(body)).splitlines()
    ]
    assert lines[-1]["done"]
    assert curl(f"{server.url}/") == "Terazi is running"
    assert "<title>" in curl(f"{server.url}/", "-H", "Accept: text/html")


def test_the_guide_has_examples():
    assert len(CURLS) >= 3
    assert all(ADDRESS in example for example in CURLS)


@pytest.mark.parametrize("example", CURLS, ids=lambda example: example.split()[1].removeprefix(ADDRESS))
def test_curl_as_the_guide_shows_it(curl, server, example):
    command = example.replace("curl", "curl -sS --fail-with-body", 1).replace(ADDRESS, server.url)
    answer = json.loads(subprocess.run(command, shell=True, capture_output=True, check=True).stdout)
    assert answer.get("choices") or answer.get("response") or answer["data"][0]["embedding"]


def test_python_as_the_guide_shows_it(server):
    (example,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", example.replace(ADDRESS, server.url)],
        env=os.environ | {"OLLAMA_HOST": server.url},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
