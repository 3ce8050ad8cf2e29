"""A running server with a small real model, started as a user starts it."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

from terazi.registry import Store
from terazi.serve.create import create
from terazi.serve.modelfile import Modelfile

MODEL = "smollm2:135m"


@dataclass
class Running:
    process: subprocess.Popen
    url: str
    home: Path
    log: list[str]

    def get(self, path, **headers):
        request = urllib.request.Request(self.url + path, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read().decode()

    def metric(self, name, **labels):
        """The sum of a metric's samples that have these labels."""
        total = 0.0
        for line in self.get("/metrics").splitlines():
            match = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
            if match and match[1] == name:
                found = dict(re.findall(r'(\w+)="([^"]*)"', match[2] or ""))
                if labels.items() <= found.items():
                    total += float(match[3])
        return total

    def engines(self):
        """Process ids of the engines."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def events(self):
        return [json.loads(line)["event"] for line in self.log if line.startswith("{")]


@pytest.fixture(scope="session")
def home(tmp_path_factory, smollm2):
    """A store with the model, shared by the servers."""
    directory = tmp_path_factory.mktemp("serve-home")
    Store(directory).add(smollm2, MODEL, share="copy", license="Apache-2.0")
    return directory


@pytest.fixture(scope="session")
def start(home):
    """Start a server with options; all end with the session."""
    running = []

    def begin(*options, environment=None):
        process = subprocess.Popen(
            [sys.executable, "-m", "terazi", "serve", "--port", "0", "--threads", "1", *map(str, options)],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"TERAZI_HOME": str(home)} | (environment or {}),
        )
        address = ""
        while not address.startswith("listening on "):
            address = process.stderr.readline()
            assert address, "the server did not start"
        server = Running(process, address.removeprefix("listening on ").strip(), home, [])
        threading.Thread(target=lambda: server.log.extend(process.stderr), daemon=True).start()
        for _ in range(200):
            try:
                server.get("/health")
                break
            except OSError:
                time.sleep(0.05)
        running.append(process)
        return server

    yield begin
    for process in running:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    for process in running:
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stderr.close()


@pytest.fixture(scope="module")
def calling(home):
    """The model with a template that has a place for tools."""
    template = Path(__file__).with_name("tools.jinja").read_text()
    create(Modelfile(base=MODEL, template=template), "calling", store=Store(home))
    yield "calling"
    Store(home).remove("calling")


@pytest.fixture(scope="session")
def server(start):
    """One server for all tests that leave it as it was."""
    return start("--context", 512, "--parallel", 2)
