"""The HTTP server: one thread per request, a password on each, and an engine that answers."""

from __future__ import annotations

import base64
import hmac
import json
import select
import socket
import sys
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Protocol

from terazi.errors import TeraziError, UnsupportedError, UsageError
from terazi.runtime.openai.answer import Answer, dumps
from terazi.runtime.openai.request import read_ask, read_texts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np

    from terazi.runtime.openai.answer import Writing
    from terazi.runtime.openai.request import Ask
    from terazi.runtime.server import ServerOptions

__all__ = ["Embedder", "Server", "Writer"]

_BODY = 80 << 20
_TEXTS = {"/v1/chat/completions": True, "/v1/completions": False}  # path -> whether it is a chat


class Writer(Protocol):
    """A language model. ``can`` names the optional fields of a request that it knows."""

    can: frozenset[str]

    def begin(self, ask: Ask) -> Writing:
        """Begin an answer. Raises `TeraziError` for what cannot be; called from several threads."""
        ...


class Embedder(Protocol):
    """An embedding model."""

    def embed(self, texts: Sequence[str]) -> tuple[np.ndarray, int]:
        """Return unit vectors, float32[len(texts), dimensions], and the number of tokens read."""
        ...


class Server:
    """Serves on a free port of this machine, in threads of its own, as soon as it is made."""

    def __init__(self, engine: Writer | Embedder, options: ServerOptions) -> None:
        made = type("Handler", (_Handler,), {"engine": engine, "options": options})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), made)
        self._server.daemon_threads = True
        self.listening_address = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()


class _GoneError(Exception):
    """The client has left."""


class _Handler(BaseHTTPRequestHandler):
    """One request per connection."""

    engine: Writer | Embedder
    options: ServerOptions
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        """Answer, or say what is wrong."""
        self.close_connection = True
        try:
            self._answer(self._body())
        except (_GoneError, ConnectionError):
            pass
        except TeraziError as error:
            wrong = isinstance(error, UsageError | UnsupportedError)
            self._refuse(400 if wrong else 500, f"{error} ({error.hint})" if error.hint else str(error))
        except MemoryError:
            self._refuse(500, "the engine ran out of memory")
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            self._refuse(500, f"the engine failed: {type(error).__name__}: {error}"[:500])

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the gateway logs requests."""

    def _body(self) -> dict[str, Any]:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), self.options.key.encode()):
            self._refuse(401, "the engine answers to its own gateway only")
            raise _GoneError
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > _BODY:
            raise UsageError("the request has no proper length")
        try:
            body = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            raise UsageError("the request is not valid JSON") from None
        if not isinstance(body, dict):
            raise UsageError("the request must be a JSON object")
        return body

    def _answer(self, body: dict[str, Any]) -> None:
        if self.path == "/v1/embeddings":
            self._embed(body)
        elif self.path in _TEXTS:
            self._write(body, chat=_TEXTS[self.path])
        else:
            raise UnsupportedError(f"this model's engine does not answer {self.path}")

    def _embed(self, body: dict[str, Any]) -> None:
        if not hasattr(self.engine, "embed"):
            raise UnsupportedError(f"{self.options.alias} makes no embeddings")
        texts, packed = read_texts(body)
        vectors, tokens = self.engine.embed(texts)  # pyright: ignore[reportAttributeAccessIssue]
        rows = [
            base64.b64encode(row.astype("<f4").tobytes()).decode() if packed else row.tolist()
            for row in vectors
        ]
        data = [{"object": "embedding", "index": n, "embedding": row} for n, row in enumerate(rows)]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        self._send(200, {"object": "list", "model": self.options.alias, "data": data, "usage": usage})

    def _write(self, body: dict[str, Any], *, chat: bool) -> None:
        if not hasattr(self.engine, "begin"):
            raise UnsupportedError(f"{self.options.alias} makes embeddings and writes no text")
        engine: Writer = self.engine  # pyright: ignore[reportAssignmentType]
        ask = read_ask(body, chat=chat, can=engine.can)
        answer = Answer(engine.begin(ask), ask, self.options.alias)
        if ask.stream:
            self._stream(answer)
        else:
            pieces = []
            for piece in answer.texts():
                self._check_client()
                pieces.append(piece)
            self._send_bytes(200, answer.whole(pieces))

    def _stream(self, answer: Answer) -> None:
        """Send events as they come; the first decides whether it is an answer or an error."""
        events = answer.events()
        first = next(events)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            self._chunks((first,))
            self._chunks(events)
        except TeraziError as error:
            self._chunks((b"data: " + dumps({"error": {"message": str(error), "code": 500}}) + b"\n\n",))
        finally:
            events.close()
        self.wfile.write(b"0\r\n\r\n")

    def _chunks(self, events: Iterable[bytes]) -> None:
        for event in events:
            self._check_client()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))

    def _check_client(self) -> None:
        """Raise when the client has left: what it sends after its request can only be the end."""
        ready, _, _ = select.select([self.connection], [], [], 0)
        if ready and not self.connection.recv(1, socket.MSG_PEEK):
            raise _GoneError

    def _refuse(self, status: int, message: str) -> None:
        kind = "invalid_request_error" if status < 500 else "server_error"
        self._send(status, {"error": {"message": message, "type": kind, "code": status}})

    def _send(self, status: int, value: Any) -> None:
        self._send_bytes(status, dumps(value))

    def _send_bytes(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
