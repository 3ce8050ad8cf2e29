"""The server as a whole: its state, its routes, who may ask, and how it starts and ends."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import re
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from terazi.serve import ollama, ollama_models, openai, page, tracing
from terazi.serve.engine import SERVERS
from terazi.serve.errors import RequestError
from terazi.serve.metrics import Metrics
from terazi.serve.pool import Limits, Pool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from terazi.registry import Entry, Store

__all__ = ["Gateway", "application"]

log = logging.getLogger("terazi.serve")
_OPEN = ("/", "/health", "/ready")  # the page, and what is asked by whoever watches the server
_CHANGING = tuple(f"/api/{verb}" for verb in ("pull", "push", "create", "copy", "delete", "blobs"))
_LOCAL = ("localhost", "127.0.0.1", "[::1]", "testserver")


@dataclass(slots=True, kw_only=True)
class Gateway:
    """What all requests share. ``keys`` are passwords, none of them: everybody may ask.

    ``local`` says that the server listens on this machine only; then requests must name this machine.
    ``read_only`` refuses whatever changes the store. ``tracer`` makes a span of every request.
    """

    store: Store
    limits: Limits
    keys: tuple[str, ...] = ()
    local: bool = True
    read_only: bool = False
    tracer: tracing.Tracer | None = None
    metrics: Metrics = field(default_factory=Metrics)
    pool: Pool = field(init=False)
    draining: bool = False
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def __post_init__(self) -> None:
        self.pool = Pool(self.store, self.limits, self.metrics)

    async def entries(self) -> list[Entry]:
        """Return the models that can be served."""
        found = await asyncio.to_thread(self.store.entries)
        return [entry for entry in found if entry.manifest.format in SERVERS]

    async def entry(self, name: Any) -> Entry:
        """Return a stored model. Raises `NotFoundError`, or `RequestError` when no name is given."""
        if not isinstance(name, str) or not name:
            raise RequestError("the request names no model", code="missing_model")
        return await asyncio.to_thread(self.store.entry, name)


def application(gateway: Gateway) -> ASGIApp:
    """Return the ASGI application."""

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(request: Request) -> Response:
        state = "draining" if gateway.draining else "ready"
        return JSONResponse({"status": state}, 503 if gateway.draining else 200)

    async def metrics(request: Request) -> Response:
        return Response(await gateway.metrics.expose(gateway.pool), media_type="text/plain; version=0.0.4")

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        tending = asyncio.create_task(gateway.pool.tend())
        try:
            yield
        finally:
            gateway.draining = True
            tending.cancel()
            await gateway.pool.close()

    async def not_found(request: Request, error: Exception) -> Response:
        status = getattr(error, "status_code", 404)
        message = f"{request.method} {request.url.path} is not served here"
        return Response(
            openai.error_body(status, "not_found", message), status, media_type="application/json"
        )

    app = Starlette(
        routes=[
            *page.routes(gateway),
            Route("/health", health),
            Route("/ready", ready),
            Route("/metrics", metrics),
            *openai.routes(gateway),
            *ollama.routes(gateway),
            *ollama_models.routes(gateway),
        ],
        lifespan=lifespan,
        exception_handlers={404: not_found, 405: not_found},
    )
    return _Guard(app, gateway)


class _Guard:
    """Checks who asks before anything else, and logs every request without what it says."""

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self.app, self.gateway = app, gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        started, status = time.perf_counter(), 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            refusal = self._refusal(scope["path"], headers)
            with self._traced(scope, headers):
                await (refusal or self.app)(scope, receive, noting)
                tracing.answered(status)
        finally:
            seconds = round(time.perf_counter() - started, 4)
            facts = {"method": scope["method"], "path": scope["path"], "status": status, "seconds": seconds}
            log.info(json.dumps(facts))
        return None

    def _traced(self, scope: Scope, headers: dict[str, str]) -> contextlib.AbstractContextManager[object]:
        if self.gateway.tracer is None or not scope["path"].startswith(("/v1/", "/api/")):
            return contextlib.nullcontext()
        return self.gateway.tracer.request(scope["method"], scope["path"], headers)

    def _refusal(self, path: str, headers: dict[str, str]) -> Response | None:
        host = re.sub(r":\d+$", "", headers.get("host", ""))
        if self.gateway.local and host.lower() not in _LOCAL:
            return _refuse(403, "wrong_host", "this server answers to this machine's own names only")
        origin = headers.get("origin", "")
        if origin and origin.partition("://")[2] != headers.get("host"):
            return _refuse(403, "wrong_origin", "pages of other sites may not use this server")
        if self.gateway.read_only and path.startswith(_CHANGING):
            return _refuse(403, "read_only", "this server does not change its models")
        if not self.gateway.keys or path in _OPEN or path.startswith(page.OPEN):
            return None
        given = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        if any(hmac.compare_digest(given.encode(), key.encode()) for key in self.gateway.keys):
            return None
        return _refuse(401, "invalid_api_key", "this server needs an API key: Authorization: Bearer …")


def _refuse(status: int, code: str, message: str) -> Response:
    return Response(openai.error_body(status, code, message), status, media_type="application/json")
