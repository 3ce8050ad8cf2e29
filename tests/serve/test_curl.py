"""curl, as the guides show it."""

import json
import shutil
import subprocess

import pytest

MODEL = "smollm2:135m"


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
