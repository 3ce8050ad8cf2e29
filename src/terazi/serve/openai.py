"""OpenAI's API: requests go to the model's engine, answers come back as the engine writes them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from terazi.errors import NotFoundError, TeraziError
from terazi.serve.errors import status_of
from terazi.serve.http import Answer, Head, client_of, read_json
from terazi.serve.metrics import Watch
from terazi.serve.prepare import check_tools, fill_in

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request

    from terazi.registry import Entry
    from terazi.serve.gateway import Gateway

__all__ = ["error_body", "routes"]

# Path -> whether it needs the model as an embedding model.
_PROXIED = {
    "/v1/chat/completions": False,
    "/v1/completions": False,
    "/v1/responses": False,
    "/v1/embeddings": True,
}
_TAIL = 1 << 14  # bytes at a stream's end in which its numbers are


def routes(gateway: Gateway) -> list[Route]:
    """Return the routes under ``/v1``."""

    async def proxied(request: Request) -> Response:
        try:
            body = await read_json(request)
            entry = await gateway.entry(body.get("model"))
        except TeraziError as error:
            return failure(error)
        return _answer(gateway, request, entry, body)

    async def models(request: Request) -> Response:
        listed = [_described(entry) for entry in await gateway.entries()]
        return JSONResponse({"object": "list", "data": listed})

    async def model(request: Request) -> Response:
        try:
            return JSONResponse(_described(await gateway.entry(request.path_params["name"])))
        except TeraziError as error:
            return failure(error)

    return [
        *(Route(path, proxied, methods=["POST"]) for path in _PROXIED),
        Route("/v1/models", models),
        Route("/v1/models/{name:path}", model),
    ]


def error_body(status: int, code: str, message: str) -> bytes:
    """Return an error in OpenAI's shape."""
    kind = "invalid_request_error" if status < 500 and status != 429 else code
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}).encode()


def failure(error: Exception) -> Response:
    """Return the answer for a request that failed before it reached a model."""
    status, code, message = status_of(error)
    if isinstance(error, NotFoundError):
        code = "model_not_found"
    return Response(error_body(status, code, message), status, media_type="application/json")


def _answer(gateway: Gateway, request: Request, entry: Entry, body: dict[str, Any]) -> Answer:
    path = request.url.path
    watch = Watch(gateway.metrics, entry.name, path, body)

    async def produce() -> AsyncGenerator[Head | bytes]:
        filled = fill_in(body, entry.manifest)
        filled["model"] = entry.name
        tail = b""
        async with gateway.pool.use(entry, client=client_of(request), embedding=_PROXIED[path]) as loaded:
            check_tools(filled, loaded)
            async with loaded.engine.ask(path, filled) as response:
                yield Head(response.status, response.content_type)
                async for chunk in response.pieces():
                    if response.status == 200:
                        watch.token()
                    tail = (tail + chunk)[-_TAIL:]
                    yield chunk
            watch.timings(*_numbers(tail, streamed=bool(body.get("stream"))))

    return Answer(
        produce(),
        explain=error_body,
        late=lambda *what: b"data: " + error_body(*what) + b"\n\n",
        ended=watch.end,
    )


def _numbers(tail: bytes, *, streamed: bool) -> tuple[Any, Any]:
    """Find timings and usage in the end of an answer."""
    if not streamed:
        return _last_value(tail, b'"timings":'), _last_value(tail, b'"usage":')
    for line in reversed(tail.split(b"\n")):
        if line.startswith(b"data: {"):
            try:
                last = json.loads(line[6:])
            except ValueError:
                return None, None
            return last.get("timings"), last.get("usage")
    return None, None


def _last_value(tail: bytes, key: bytes) -> Any:
    _, found, rest = tail.rpartition(key)
    try:
        return json.JSONDecoder().raw_decode(rest.decode())[0] if found else None
    except ValueError:
        return None


def _described(entry: Entry) -> dict[str, Any]:
    return {"id": entry.name, "object": "model", "created": int(entry.added), "owned_by": "terazi"}
