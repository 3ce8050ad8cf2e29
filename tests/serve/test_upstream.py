"""The client for engines reads every form of body, in whatever pieces it comes, and notices an early end."""

import asyncio
import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terazi.serve.upstream import BrokenReplyError, ask

BODY = b'data: {"a": 1}\n\ndata: \xc3\xa9\r\nlast'


def exchange(answer, cuts=(), read="body"):
    """Serve ``answer`` cut into pieces; returns what the client makes of it, and what it sent."""

    async def run():
        asked, finished = [], asyncio.Event()

        async def handle(reader, writer):
            with contextlib.suppress(ConnectionError):
                asked.append(await reader.readuntil(b"\r\n\r\n"))
                start = 0
                for stop in [*sorted(cuts), len(answer)]:
                    writer.write(answer[start:stop])
                    await writer.drain()
                    await asyncio.sleep(0)
                    start = stop
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            finished.set()

        async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            try:
                async with ask("127.0.0.1", port, "/x", "key", {"é": 1}) as reply:
                    read_as = (
                        [line async for line in reply.lines()] if read == "lines" else await reply.body()
                    )
                    return reply, read_as, asked
            finally:
                await finished.wait()

    return asyncio.run(run())


def answer(form, body=BODY):
    if form == "length":
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nContent-Type: text/x\r\n\r\n%b" % (len(body), body)
    if form == "close":
        return b"HTTP/1.1 200 OK\r\nContent-Type: text/x\r\n\r\n" + body
    pieces = b"".join(
        b"%x;ext=1\r\n%b\r\n" % (len(body[i : i + 5]), body[i : i + 5]) for i in range(0, len(body), 5)
    )
    return (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/x\r\n\r\n"
        + pieces
        + b"0\r\n\r\n"
    )


@pytest.mark.parametrize("form", ["length", "close", "chunked"])
@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 150), max_size=6))
def test_any_pieces(form, cuts):
    whole = answer(form)
    reply, body, asked = exchange(whole, [min(cut, len(whole)) for cut in cuts])
    assert (reply.status, reply.content_type, body) == (200, "text/x", BODY)
    assert b"Bearer key" in asked[0]
    _, lines, _ = exchange(whole, [min(cut, len(whole)) for cut in cuts], read="lines")
    assert lines == ['data: {"a": 1}', "", "data: é", "last"]


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"HTTP/1.1",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 x\r\n\r\n",
        answer("length")[:-3],
        answer("chunked")[:-9],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a" * (1 << 17),
    ],
)
def test_an_early_end_is_noticed(broken):
    with pytest.raises(BrokenReplyError):
        exchange(broken)


def test_nobody_listens():
    async def run():
        async with ask("127.0.0.1", 9, "/", "key", {}):
            pass

    with pytest.raises(ConnectionError):
        asyncio.run(run())
