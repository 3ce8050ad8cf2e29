"""Real servers on this machine, with the faults that networks have."""

import hashlib
import json
import random
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from terazi.formats import gguf
from terazi.model import Tensor
from terazi.registry import Store


@dataclass
class FileServer:
    """Serves ``files`` by path. The switches below make it misbehave."""

    files: dict[str, bytes] = field(default_factory=dict)
    refusals: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    breaks: int = 0  # how many more responses end at a random byte
    busy: int = 0  # how many more requests get 503
    ranges: bool = True
    etags: bool = True
    versions: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    sent: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    dice: random.Random = field(default_factory=lambda: random.Random(1))
    url: str = ""
    on_request: object = None

    def etag(self, path: str) -> str:
        return f'"{self.versions.get(path) or hashlib.sha256(self.files[path]).hexdigest()[:16]}"'

    def take(self, counter: str) -> bool:
        with self.lock:
            left = getattr(self, counter)
            setattr(self, counter, max(left - 1, 0))
            return left > 0


class Handler(BaseHTTPRequestHandler):
    site: FileServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.partition("?")[0]
        with self.site.lock:
            self.site.requests.append((self.path, dict(self.headers)))
        if self.site.on_request:
            self.site.on_request(path)
        if path in self.site.refusals:
            status, headers = self.site.refusals[path]
            return self.reply(status, b"{}", **headers)
        if path in self.site.redirects:
            return self.reply(302, b"", Location=self.site.redirects[path])
        if path not in self.site.files:
            return self.reply(404, b"{}")
        if self.site.take("busy"):
            return self.reply(503, b"", **{"Retry-After": "0"})
        return self.send_file(path)

    def send_file(self, path):
        data = self.site.files[path]
        extra = {"ETag": self.site.etag(path)} if self.site.etags else {}
        asked = self.headers.get("Range")
        guard = self.headers.get("If-Range")
        status = 200
        if self.site.ranges and asked and guard in (None, extra.get("ETag")):
            low, _, high = asked.removeprefix("bytes=").partition("-")
            start, stop = int(low), min(int(high or len(data) - 1) + 1, len(data))
            if start >= len(data):
                return self.reply(416, b"")
            extra["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
            data, status = data[start:stop], 206
        return self.reply(status, data, **extra)

    def reply(self, status, data, **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = len(data)
        if cut > 1 and self.site.take("breaks"):
            cut = self.site.dice.randrange(cut)
            self.close_connection = True
        self.wfile.write(data[:cut])
        with self.site.lock:
            self.site.sent += cut
        if cut < len(data):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def serve():
    """Start file servers; each call returns another one, on its own port."""
    running = []

    def start(**options) -> FileServer:
        server = FileServer(**options)
        http = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"site": server}))
        http.daemon_threads = True
        http.handle_error = lambda *arguments: None  # clients may leave at any time
        server.url = f"http://127.0.0.1:{http.server_port}"
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        running.append(http)
        return server

    yield start
    for http in running:
        http.shutdown()
        http.server_close()


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def make_gguf(tmp_path):
    """Write a small GGUF file whose content depends on ``seed``."""

    def make(name: str = "tiny.gguf", *, seed: int = 0, rows: int = 64, directory: Path = tmp_path) -> Path:
        weights = np.random.default_rng(seed).standard_normal((rows, 32)).astype(np.float32)
        metadata = {"general.architecture": "llama", "general.license": "mit", "test.seed": seed}
        return gguf.write(
            directory / name, metadata, [Tensor.from_array("token_embd.weight", weights)], force=True
        )

    return make


@pytest.fixture(scope="session")
def oci_host(tmp_path_factory):
    """Debian's docker-registry, as ``host:port``."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("docker-registry is not installed (Debian: apt install docker-registry)")
    directory = tmp_path_factory.mktemp("docker-registry")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    configuration = {
        "version": "0.1",
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    (directory / "config.yml").write_text(json.dumps(configuration))
    with (directory / "log").open("w") as log:
        process = subprocess.Popen([program, "serve", directory / "config.yml"], stdout=log, stderr=log)
    for _ in range(200):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=1).close()
            break
        except OSError:
            time.sleep(0.05)
    yield f"127.0.0.1:{port}"
    process.terminate()
    process.wait(10)
