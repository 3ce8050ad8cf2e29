"""A child process that runs an engine: calls and arrays over pipes, and a reason when it dies.

A frame is its header's length (uint32, little-endian), a JSON header, then the bytes of the arrays which the
header lists. A call is one frame to the child; it answers with any number of events and one result or error.
The child is a fresh interpreter, so nothing of the parent is inherited, and nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import struct
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np

from terazi.errors import EngineError, TeraziError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from io import BufferedReader

__all__ = ["Child", "Message", "memory", "serve"]

_LENGTH = struct.Struct("<I")
_HEADER_LIMIT = 1 << 28
_CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class Message:
    """Plain values and arrays, one way or the other."""

    values: Mapping[str, Any] = field(default_factory=dict)
    arrays: Sequence[np.ndarray] = ()


def _write(file: IO[bytes], message: Message) -> None:
    arrays = [np.asarray(array, order="C") for array in message.arrays]
    header = json.dumps(
        {"values": dict(message.values), "arrays": [[a.dtype.str, list(a.shape)] for a in arrays]}
    ).encode()
    file.write(_LENGTH.pack(len(header)) + header)
    for array in arrays:
        file.write(array.reshape(-1).view(np.uint8).data)
    file.flush()


def _read(file: BufferedReader) -> Message | None:
    """Return the next message, or None at the end of the pipe."""
    start = file.read(_LENGTH.size)
    if len(start) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(start)
    if length > _HEADER_LIMIT:
        return None
    text = file.read(length)
    if len(text) < length:
        return None
    header = json.loads(text)
    arrays = []
    for kind, shape in header["arrays"]:
        array = np.empty(shape, np.dtype(kind))
        view = array.reshape(-1).view(np.uint8).data
        if len(view) and file.readinto(view) != len(view):
            return None
        arrays.append(array)
    return Message(header["values"], arrays)


class Child:
    """A running child, one call at a time; killed after ``timeout`` seconds of silence during a call.

    ``environment`` holds variables for the child which the user's own environment overrides.
    """

    def __init__(self, module: str, *, timeout: float, environment: Mapping[str, str] | None = None) -> None:
        self._timeout = timeout
        self._lock = threading.RLock()
        self._busy = False
        self._late = False
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=dict(environment or {}) | os.environ,
        )

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    def call(self, operation: str, *arrays: np.ndarray, **values: Any) -> Message:
        """Run one operation and return its result; raises `EngineError` with the reason when it fails."""
        *_, result = self.stream(operation, *arrays, **values)
        return result

    def open(self, *arrays: np.ndarray, **values: Any) -> Mapping[str, Any]:
        """Let the child load a model, and return what it says of it; a failure ends the child."""
        try:
            return self.call("open", *arrays, **values).values
        except BaseException:
            self.close()
            raise

    def stream(self, operation: str, *arrays: np.ndarray, **values: Any) -> Generator[Message]:
        """Run one operation and yield its events and then its result.

        A caller that stops listening at an event ends the operation. The child is killed when anything else
        interrupts the call, since half a message may have been read.
        """
        with self._lock:
            if self._busy:
                raise EngineError("the engine is busy with an unfinished call of the same thread")
            if self._process.poll() is not None:
                raise EngineError("the engine is closed")
            logged = os.fstat(self._log.fileno()).st_size
            self._busy, finished = True, False
            try:
                assert self._process.stdin is not None
                with contextlib.suppress(BrokenPipeError):
                    _write(self._process.stdin, Message({"operation": operation, **values}, arrays))
                while not finished:
                    message = self._receive()
                    if message is None:
                        finished = True
                        raise EngineError(self._death(operation) + self._reason(logged))
                    kind = message.values.get("kind")
                    finished = kind in ("result", "error")
                    if kind == "error":
                        reason = self._reason(logged) if message.values["log"] else ""
                        raise EngineError(message.values["message"] + reason, hint=message.values["hint"])
                    yield message
            except GeneratorExit:
                finished = self._cancel()
                raise
            finally:
                self._busy = False
                if not finished:
                    self._kill()

    def _cancel(self) -> bool:
        """Ask the child to end its operation at the next event; returns whether it did."""
        assert self._process.stdin is not None
        try:
            _write(self._process.stdin, Message({"operation": _CANCEL}))
        except (OSError, ValueError):  # the child is gone, or closed
            return False
        while (message := self._receive()) is not None:
            if message.values.get("kind") in ("result", "error"):
                return True
        return False

    def close(self) -> None:
        """End the child; waits at most two seconds for it to free its memory."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._kill()
        self._process.stdout.close()
        self._log.close()

    def _receive(self) -> Message | None:
        assert self._process.stdout is not None
        watchdog = threading.Timer(self._timeout, self._expire)
        watchdog.daemon = True
        watchdog.start()
        try:
            return _read(cast("BufferedReader", self._process.stdout))
        finally:
            watchdog.cancel()

    def _expire(self) -> None:
        self._late = True
        self._process.kill()

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _death(self, operation: str) -> str:
        code = self._process.wait()
        if self._late:
            return f"the engine gave no answer to {operation!r} for {self._timeout:g} s and was stopped"
        if code >= 0:
            return f"the engine ended with code {code} during {operation!r}"
        name = signal.Signals(-code).name
        if -code == getattr(signal, "SIGKILL", 9):
            return f"the engine was killed ({name}) during {operation!r}, most likely out of memory"
        return f"the engine crashed ({name}) during {operation!r}"

    def _reason(self, start: int) -> str:
        """Return what was logged since ``start``: the last lines, on one line."""
        size = os.fstat(self._log.fileno()).st_size
        start = max(start, size - 8192)
        self._log.seek(start)
        lines = [line.strip() for line in self._log.read().decode(errors="replace").splitlines()]
        told = [line[:200] for line in lines if line and not line.startswith(("[New LWP", "#", "0x"))][-3:]
        return f": {' | '.join(told)}" if told else ""


def serve(operations: Mapping[str, Callable[[Message, Callable[[Message], None]], Message]]) -> None:
    """Answer calls in the child until the parent closes the pipe or dies.

    An operation takes the call and ``emit`` (sends an event, and raises when the parent has had enough) and
    returns the result. Whatever is printed goes to the log. A thread listens for the end of the pipe, so a
    parent that vanishes ends even a long call.
    """
    calls, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
        file.write("800")  # when memory runs out, this process is the one to end
    waiting: queue.SimpleQueue[Message] = queue.SimpleQueue()
    cancelled = threading.Event()

    def listen() -> None:
        with contextlib.suppress(Exception):
            while (message := _read(calls)) is not None:
                if message.values.get("operation") == _CANCEL:
                    cancelled.set()
                else:
                    waiting.put(message)
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()

    def send(kind: str, message: Message) -> None:
        try:
            _write(answers, Message({**message.values, "kind": kind}, message.arrays))
        except BrokenPipeError:
            os._exit(0)

    def emit(event: Message) -> None:
        send("event", event)
        if cancelled.is_set():
            raise EngineError("cancelled")

    while True:
        call = waiting.get()
        cancelled.clear()
        try:
            values = dict(call.values)
            operation = operations[values.pop("operation")]
            send("result", operation(Message(values, call.arrays), emit))
        except TeraziError as error:
            send("error", Message({"message": error.message, "hint": error.hint, "log": True}))
        except MemoryError:
            send("error", Message({"message": "the engine ran out of memory", "hint": None, "log": False}))
        except Exception as error:
            text = f"the engine failed: {type(error).__name__}: {error}"
            send("error", Message({"message": text, "hint": None, "log": False}))


def memory() -> tuple[int, int]:
    """Return this process's resident size now and at its highest, in bytes, mapped files included."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak *= 1 if sys.platform == "darwin" else 1024
        return peak, peak
    values = dict(line.split(":", 1) for line in status.splitlines() if line.startswith("Vm"))
    # ru_maxrss would not do on Linux: a child starts with its parent's peak.
    now, peak = (int(values[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return now, peak
