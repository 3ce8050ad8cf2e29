"""Requests in, answers out, whatever the protocol: reading bodies, streaming, noticing that a client left."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from terazi.errors import TeraziError
from terazi.serve.errors import BusyError, RequestError, status_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

__all__ = ["Answer", "Head", "client_of", "read_json"]

_BODY = 64 << 20  # bytes of one request, pictures included
LEFT = 499  # the status that logs and metrics show for a client that left (nginx's convention)


@dataclass(frozen=True, slots=True)
class Head:
    """How an answer begins: status and content type."""

    status: int
    content_type: str


def client_of(request: Request) -> str:
    """Who asks, for taking turns: the password if one is used, else the address."""
    key = request.headers.get("authorization") or request.headers.get("x-api-key")
    return key or (request.client.host if request.client else "")


async def read_json(request: Request) -> dict[str, Any]:
    """Read a request's JSON object. Raises `RequestError` for anything else."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _BODY:
            raise RequestError(f"the request is larger than {_BODY >> 20} MB", status=413, code="too_large")
    try:
        value = json.loads(body or b"{}", parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the request is not valid JSON ({error})"[:300]) from None
    if not isinstance(value, dict):
        raise RequestError("the request must be a JSON object")
    return value


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not a number in JSON")


class Answer(Response):
    """An answer that a generator makes: a `Head`, then pieces of the body.

    When the client leaves, the generator is closed at once. An error before the head becomes an answer of its
    own by ``explain(status, code, message)``; after it, it becomes the last piece by ``late(...)``. ``ended``
    is told the status in any case.
    """

    def __init__(
        self,
        produce: AsyncGenerator[Head | bytes],
        *,
        explain: Callable[[int, str, str], bytes],
        late: Callable[[int, str, str], bytes],
        ended: Callable[[int], None],
    ) -> None:
        super().__init__()
        self.produce, self.explain, self.late, self.ended = produce, explain, late, ended
        self.status = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        sending = asyncio.create_task(self._send(send))
        leaving = asyncio.create_task(_left(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone = not sending.done()
            for task in (sending, leaving):
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(sending, leaving, return_exceptions=True)
            self.ended(LEFT if gone else self.status)
        if sending.done() and not sending.cancelled() and (error := sending.exception()):
            raise error

    async def _send(self, send: Send) -> None:
        try:
            async with contextlib.aclosing(self.produce) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Head):
                        await self._start(send, piece)
                    else:
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
        except (TeraziError, BusyError) as error:
            await self._fail(send, error)
        except Exception as error:
            await self._fail(send, error)
            raise
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _start(self, send: Send, head: Head, extra: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        self.status = head.status
        headers = [(b"content-type", head.content_type.encode()), (b"cache-control", b"no-cache"), *extra]
        await send({"type": "http.response.start", "status": head.status, "headers": headers})

    async def _fail(self, send: Send, error: Exception) -> None:
        status, code, message = status_of(error)
        if self.status:
            self.status = status
            body = self.late(status, code, message)
        else:
            wait = (
                ((b"retry-after", str(error.retry_after).encode()),) if isinstance(error, BusyError) else ()
            )
            await self._start(send, Head(status, "application/json"), wait)
            body = self.explain(status, code, message)
        await send({"type": "http.response.body", "body": body, "more_body": True})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
