"""Running the gateway until it is told to stop: listening, logging, draining."""

from __future__ import annotations

import logging
import signal
import socket
import sys
from typing import TYPE_CHECKING

from terazi.errors import MissingExtraError, TeraziError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from terazi.registry import Store
    from terazi.serve.pool import Limits

__all__ = ["run"]

_DRAIN = 60  # seconds that running requests get to end


def run(
    store: Store,
    limits: Limits,
    *,
    host: str = "127.0.0.1",
    port: int = 11434,
    keys: tuple[str, ...] = (),
    read_only: bool = False,
    log_requests: bool = True,
    listening: Callable[[str], None] = print,
) -> None:
    """Serve until SIGTERM or Ctrl-C, then let running requests end.

    ``port`` 0 takes a free one; ``listening`` is told the address. Traces go where the
    environment says (`Tracer.from_environment`). Raises `UsageError` when it would listen
    beyond this machine without ``keys``, `TeraziError` when the port is taken.
    """
    try:
        import uvicorn

        from terazi.serve.gateway import Gateway, application
        from terazi.serve.tracing import Tracer
    except ImportError:
        raise MissingExtraError("serving", "serve") from None

    local = host in ("127.0.0.1", "localhost", "::1")
    if not local and not keys:
        hint = "add --api-key, or --no-api-key if everybody who reaches this machine may ask"
        raise UsageError(f"listening on {host} without an API key", hint=hint)
    passwords = tuple(key for key in keys if key)
    tracer = Tracer.from_environment()
    gateway = Gateway(
        store=store, limits=limits, keys=passwords, local=local, read_only=read_only, tracer=tracer
    )
    listener = _listener(host, port)

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: object) -> None:
            """Drain at the first signal; a second Ctrl-C ends at once. Ending is no failure: exit code 0."""
            gateway.draining = True
            self.force_exit = self.should_exit and sig == signal.SIGINT
            self.should_exit = True

    if log_requests:
        _log_to_stderr()
    config = uvicorn.Config(
        application(gateway),
        log_level="error",
        access_log=False,
        timeout_graceful_shutdown=_DRAIN,
        lifespan="on",
        server_header=False,
    )
    listening(f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}")
    Server(config).run(sockets=[listener])
    if tracer:
        tracer.close()


def _listener(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise TeraziError(f"cannot listen on {host}:{port}: {reason}", hint="choose another --port") from None
    return listener


def _log_to_stderr() -> None:
    form = '{"time":"%(asctime)s","level":"%(levelname)s","event":%(message)s}'
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(form))
    logger = logging.getLogger("terazi.serve")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
