"""One model in one engine process: starting it, asking it, noticing its death, ending it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
import tempfile
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from terazi.errors import EngineError
from terazi.serve import upstream
from terazi.serve.tracing import step

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from terazi.runtime.server import ServerOptions
    from terazi.serve.upstream import Reply

__all__ = ["SERVERS", "Engine"]

_START = 600.0  # seconds that loading may take
_GLANCE = 1.0  # seconds that an engine has to tell what it is doing

# Format -> module of the server that runs it, with the `ServerOptions` that it takes.
SERVERS: dict[str, str] = {
    "gguf": "terazi.runtime.llamacpp.server",
    "onnx": "terazi.runtime.onnxruntime.server",
    "mlx": "terazi.runtime.mlx.server",
}


class Engine:
    """A running server of one model that only this process can talk to."""

    def __init__(self, options: ServerOptions, process: asyncio.subprocess.Process, log: Any) -> None:
        self.options, self.process, self._log = options, process, log
        self.address = ("", 0)
        self._closing = False

    @staticmethod
    async def start(format: str, **fields: Any) -> Engine:
        """Load a model of a format; the keywords are the fields of its `ServerOptions` but ``key``.

        Raises `EngineError` with the engine's reason.
        """
        module = SERVERS[format]
        options = import_module(module).ServerOptions(key=secrets.token_urlsafe(24), **fields)
        log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the engine
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", module,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
        )  # fmt: skip
        engine = Engine(options, process, log)
        try:
            await asyncio.wait_for(engine._connect(), _START)
        except TimeoutError:
            await engine.close()
            raise EngineError(f"{options.alias} did not load within {_START:.0f} s") from None
        except BaseException:
            await engine.close()
            raise
        return engine

    async def _connect(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(ConnectionError):
            self.process.stdin.write(json.dumps(asdict(self.options)).encode() + b"\n")
            await self.process.stdin.drain()
        line = await self.process.stdout.readline()
        if not line:
            await self.process.wait()
            raise EngineError(f"{self.options.alias} does not load: {self.death}")
        answer = json.loads(line)
        if "error" in answer:
            raise EngineError(f"{self.options.alias} does not load: {answer['error']}{self._told()}")
        url = urlsplit(answer["address"])
        self.address = (url.hostname or "", url.port or 0)

    @property
    def alive(self) -> bool:
        """Whether it can take requests."""
        return self.process.returncode is None and not self._closing

    @property
    def memory(self) -> int:
        """Resident bytes, mapped weights included; 0 where the system does not tell."""
        try:
            pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        except (OSError, ValueError, IndexError):
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE")

    @property
    def death(self) -> str:
        """Why it ended, in words."""
        code = self.process.returncode
        if code is None:
            return "it is running"
        if code >= 0:
            return f"the engine ended with code {code}{self._told()}"
        name = signal.Signals(-code).name
        likely = ", most likely out of memory" if name == "SIGKILL" else ""
        return f"the engine was ended by {name}{likely}"

    @contextlib.asynccontextmanager
    async def ask(self, path: str, body: dict[str, Any]) -> AsyncIterator[Reply]:
        """Send a request and yield the reply, its body not read yet.

        Leaving the block closes the connection, and the engine stops working on the request. Raises
        `EngineError` when the engine dies meanwhile.
        """
        try:
            with step("engine"):
                async with upstream.ask(*self.address, path, self.options.key, body) as reply:
                    yield reply
        except ConnectionError as error:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.process.wait(), 2)
            if self.process.returncode is None:
                reason = str(error) or type(error).__name__
                raise EngineError(
                    f"{self.options.alias}: the engine broke the connection ({reason})"
                ) from None
            raise EngineError(f"{self.options.alias}: {self.death}") from None

    async def slots(self) -> list[dict[str, Any]]:
        """Return llama.cpp's places for answers as they are now; none where the engine does not tell soon."""
        try:
            async with (
                asyncio.timeout(_GLANCE),
                upstream.ask(*self.address, "/slots", self.options.key) as reply,
            ):
                return json.loads(await reply.body()) if reply.status == 200 else []
        except (OSError, TimeoutError, ValueError):
            return []

    async def close(self) -> None:
        """End the process; closing twice is harmless."""
        self._closing = True
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            await asyncio.wait_for(self.process.wait(), 3)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()
        self._log.close()

    def _told(self) -> str:
        """The last lines of the engine's log that say something, on one line."""
        if self._log.closed:
            return ""
        size = os.fstat(self._log.fileno()).st_size
        self._log.seek(max(size - 8192, 0))
        lines = [line.strip() for line in self._log.read().decode(errors="replace").splitlines()]
        told = [line[:200] for line in lines if " E " in line or "error" in line.lower()][-2:]
        return f": {' | '.join(told)}" if told else ""
