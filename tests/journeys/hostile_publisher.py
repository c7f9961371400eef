"""The publishers' server of who-pays.md's scenes: answers that break off, stall, lie and never come, by the last word of
the path."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator

from tests.hostile.wire import CLOSE, ScriptedUpstream
from tests.journeys.rule_scenes import ANSWERS

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf"
ENDLESS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


async def publisher() -> ScriptedUpstream:
    """Start the publishers' server that the scenes need."""
    upstream = ScriptedUpstream(
        answers={
            "ok": OK,
            "404": b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            "503": b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
            "307": b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /ok\r\nContent-Length: 0\r\n\r\n",
            "304": b'HTTP/1.1 304 Not Modified\r\nETag: "v"\r\n\r\n',
            "long": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more" + CLOSE,
            "short": HALF + CLOSE,
            "framing": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "not-http": b"SSH-2.0-OpenSSH_9.9\r\n" + CLOSE,
            "closed": CLOSE,
            "reset": _reset,
            "half": _half,
            "bad-chunk": _bad_chunk,
            "silent": _silent,
            "drip": _drip,
            "flood": _flood,
            "three": _three,
            "slow-ok": _later(OK),
            **ANSWERS,
            "slow-503": _later(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"),
            "slow-results": _later(ANSWERS["results"]),
            "hang": _hang,
        },
        early={"early": _early, "deaf": _hang},
    )
    await upstream.start()
    return upstream


async def _hang(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3600)


async def _reset(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def _half(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(HALF)
    await asyncio.sleep(0.1)
    writer.transport.abort()


async def _bad_chunk(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(ENDLESS + b"4\r\nhalf\r\n")
    await asyncio.sleep(0.1)
    writer.write(b"no number\r\n")


async def _silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(HALF)
    await asyncio.sleep(3600)


async def _drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(ENDLESS)
    while True:
        writer.write(b"1\r\nx\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


async def _flood(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(ENDLESS)
    while True:
        writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        await writer.drain()


async def _three(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(ENDLESS)
    for _ in range(3):
        writer.write(b"1\r\nx\r\n")
        await writer.drain()
        await asyncio.sleep(0.1)
    writer.write(b"0\r\n\r\n")


def _later(answer: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def script(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.4)
        writer.write(answer)

    return script


async def _early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(100)
    writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    await writer.drain()
    await asyncio.sleep(0.2)


@contextlib.contextmanager
def full_backlog() -> Iterator[str]:
    """Yield the URL of a port whose kernel answers no further connection."""
    with socket.socket() as full, contextlib.ExitStack() as opened:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            filler = opened.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        yield f"http://127.0.0.1:{full.getsockname()[1]}"
