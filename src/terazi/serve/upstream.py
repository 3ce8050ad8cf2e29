"""Talking to an engine: one HTTP/1.1 request per connection, read as it comes.

A general client spends more processor time per streamed token than all the rest of the gateway
(``benchmarks/serving.py``); this one reads what llama.cpp's server on this machine sends, and nothing else:
https://www.rfc-editor.org/rfc/rfc9112.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["BrokenReplyError", "Reply", "ask"]

_LINE = 1 << 16  # longest header line
_TOGETHER = 1 << 16  # bytes read at once


class BrokenReplyError(ConnectionError):
    """The engine ended the connection early or sent something that is no HTTP."""


class Reply:
    """A response whose head has come: ``status``, ``headers`` (names in lower case), and the body to read."""

    def __init__(self, reader: asyncio.StreamReader, status: int, headers: dict[str, str]) -> None:
        self.status, self.headers, self._reader = status, headers, reader

    @property
    def content_type(self) -> str:
        """What the body is."""
        return self.headers.get("content-type", "application/json")

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body in the pieces in which it comes."""
        try:
            if self.headers.get("transfer-encoding", "").lower() == "chunked":
                while size := int((await self._reader.readline()).partition(b";")[0], 16):
                    yield (await self._reader.readexactly(size + 2))[:-2]
                return
            left = int(self.headers.get("content-length", -1))
            while left and (
                piece := await self._reader.read(min(_TOGETHER, left) if left > 0 else _TOGETHER)
            ):
                left -= len(piece) if left > 0 else 0
                yield piece
        except (ValueError, asyncio.IncompleteReadError) as error:
            raise BrokenReplyError(f"the answer is broken: {error}") from None
        if left > 0:
            raise BrokenReplyError("the answer ended early")

    async def lines(self) -> AsyncIterator[str]:
        """Yield the body's lines without their ends."""
        rest = b""
        async for piece in self.pieces():
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                yield line.rstrip(b"\r").decode(errors="replace")
        if rest:
            yield rest.decode(errors="replace")

    async def body(self) -> bytes:
        """Return the whole body."""
        return b"".join([piece async for piece in self.pieces()])


@asynccontextmanager
async def ask(host: str, port: int, path: str, key: str, body: Any = None) -> AsyncIterator[Reply]:
    """POST JSON, or GET without a body, and yield the reply; leaving the block closes the connection.

    Raises `ConnectionError`.
    """
    reader, writer = await asyncio.open_connection(host, port, limit=_LINE)
    try:
        data = b"" if body is None else json.dumps(body).encode()
        method = "GET" if body is None else "POST"
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode() + data)
        await writer.drain()
        yield Reply(reader, *await _head(reader))
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    try:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ", 2)[1])
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, IndexError):
        raise BrokenReplyError("the engine ended the connection without an answer") from None
    pairs = (line.partition(":") for line in lines[1:] if line)
    return status, {name.strip().lower(): value.strip() for name, _, value in pairs}
