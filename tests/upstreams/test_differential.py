"""The same server, the same bytes: what our client delivers is what aiohttp delivers (or both refuse)."""

from __future__ import annotations

import aiohttp
import pytest

from gateway.upstreams.http.errors import UpstreamError

from .wire import answers, everything, line

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
SAME = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "repeated fields": b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nX-A: 1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n",
    "case of names": b"HTTP/1.1 200 OK\r\ncONTENT-lENGTH: 1\r\nX-mIxEd: V\r\n\r\n.",
    "latin-1 value": b"HTTP/1.1 200 OK\r\nX: caf\xe9\r\nContent-Length: 0\r\n\r\n",
    "empty value": b"HTTP/1.1 200 OK\r\nX:\r\nContent-Length: 0\r\n\r\n",
    "reason of several words": b"HTTP/1.1 404 Not Found Here\r\nContent-Length: 0\r\n\r\n",
    "empty reason": b"HTTP/1.1 404 \r\nContent-Length: 0\r\n\r\n",
    "500 with body": b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\noops",
    "chunked": CHUNKED + b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n",
    "chunk extensions": CHUNKED + b'5;a="b"\r\nhello\r\n0;x\r\n\r\n',
    "upper-case hex": CHUNKED + b"A\r\n0123456789\r\n0\r\n\r\n",
    "leading zeros": CHUNKED + b"0005\r\nhello\r\n000\r\n\r\n",
    "until close": b"HTTP/1.1 200 OK\r\n\r\nhello",
    "1.0": b"HTTP/1.0 200 OK\r\n\r\nhello",
    "1.0 with length": b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "connection: close": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "304": b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n",
    "304 with length": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
    "100 before": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "103 before": b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "gzip is not undone": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
    "redirect is not followed": b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere.test/\r\nContent-Length: 0\r\n\r\n",
    "value of 7000 bytes": b"HTTP/1.1 200 OK\r\nX: " + b"v" * 7000 + b"\r\nContent-Length: 0\r\n\r\n",
    "body of 300 kB": b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + b"b" * 300_000,
    "truncated length": b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello",
    "truncated chunk": CHUNKED + b"9\r\nhello",
    "no last chunk": CHUNKED + b"5\r\nhello\r\n",
    "both framings": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    "bad length": b"HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\nabc",
    "bad chunk size": CHUNKED + b"xyz\r\nhello\r\n0\r\n\r\n",
    "not http": b"220 smtp ready\r\n\r\n",
    "nothing": b"",
}
# (status, reason, fields, body), or None where the client refused
Outcome = tuple[int, bytes, list[tuple[bytes, bytes]], bytes] | None


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST"])
@pytest.mark.parametrize("shape", SAME)
async def test_same_as_aiohttp(shape, method):
    wire = SAME[shape]
    if method == b"HEAD":
        wire = wire.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if b" before" not in shape.encode() else wire[:-2]
    async with line(answers(wire, close=True)) as up:
        ours = await by_us(up, method)
        theirs = await by_aiohttp(up.port, method)
    assert ours == theirs


async def by_us(up, method: bytes) -> Outcome:
    try:
        response = await up.send(method, body=b"x" if method == b"POST" else None)
        body = await everything(response)
    except UpstreamError:
        return None
    return response.status, response.reason, response.headers, body


async def by_aiohttp(port: int, method: bytes) -> Outcome:
    try:
        async with aiohttp.ClientSession(auto_decompress=False, timeout=aiohttp.ClientTimeout(total=60)) as session:
            data = b"x" if method == b"POST" else None
            url = f"http://127.0.0.1:{port}/"
            async with session.request(method.decode(), url, data=data, allow_redirects=False) as response:
                body = await response.read()
                reason = (response.reason or "").encode("utf-8", "surrogateescape")
                return response.status, reason, list(response.raw_headers), body
    except aiohttp.ClientError:
        return None
