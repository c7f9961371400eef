"""A request that crosses with the end of its kept connection: sent again when nobody can have read it, else never.

The server is a thread that ends the connection while the event loop stands still, so that the loop writes the next
request before it learns of the end, every time.
"""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress

import pytest

from gateway.upstreams.egress import EgressGuard
from gateway.upstreams.http import Origin, UpstreamClient
from gateway.upstreams.http.errors import Disconnected

from .test_client import dies_on_second_request
from .wire import HOST, LOOPBACK, OK, PATIENT, everything, line, pieces

LATE = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlate"


class CrossingServer:
    """Answers the first request, ends its connection when told to, then answers everything on later connections."""

    def __init__(self, last_words: bytes = b"", *, notify: bool = True) -> None:
        self.tls: ssl.SSLContext | None = None
        self.requests: list[bytes] = []
        self._last_words, self._notify = last_words, notify
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._end, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end_the_idle_connection(self) -> None:
        """Return when it has ended. Blocks the event loop of who calls, on purpose."""
        self._end.set()
        assert self._ended.wait(60)

    def stop(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # ends an accept that waits
        self._thread.join(60)
        self._listener.close()

    def _run(self) -> None:
        with suppress(OSError):
            first = self._accept()
            self._serve_one(first)
            self._end.wait(60)
            if self._last_words:
                first.sendall(self._last_words)
            if self.tls is not None and self._notify:
                first.setblocking(False)
                with suppress(ssl.SSLWantReadError):  # it is sent; the client's own is not waited for
                    first.unwrap()
            first.close()
            self._ended.set()
            while True:
                with self._accept() as later:
                    self._serve_one(later)

    def _accept(self) -> socket.socket:
        connection = self._listener.accept()[0]
        connection.settimeout(60)
        if self.tls is not None:
            connection = self.tls.wrap_socket(connection, server_side=True)
        return connection

    def _serve_one(self, connection: socket.socket) -> None:
        received = b""
        while b"\r\n\r\n" not in received:
            received += connection.recv(65_536)
        while received.lower().count(b"content-length: 5") and not received.endswith(b"12345"):
            received += connection.recv(65_536)
        self.requests.append(received)
        connection.sendall(OK)


async def crossed(server: CrossingServer, method: bytes, body, *, origin: Origin | None = None, tls=None) -> bytes:
    """Send one request, let the server end the connection, send the next; return what that was answered."""

    async def resolver(_host: str, _port: int) -> list[str]:
        return ["127.0.0.1"]

    client = UpstreamClient(EgressGuard(LOOPBACK, resolver=resolver), max_connections=2, max_idle=2, tls=tls)
    to = origin or Origin("http", "127.0.0.1", server.port)
    try:
        await everything(await client.send(to, b"GET", b"/first", HOST, None, PATIENT))
        server.end_the_idle_connection()
        answer = await client.send(to, method, b"/second", HOST, body, PATIENT)
        assert answer.status == 200
        return await everything(answer)
    finally:
        await client.aclose()
        server.stop()


@pytest.mark.parametrize("last_words", [b"", LATE])
@pytest.mark.parametrize(
    ("method", "body"), [(b"GET", None), (b"HEAD", None), (b"POST", b"12345"), (b"PATCH", b"12345")]
)
async def test_a_request_that_nobody_read_is_sent_again_whatever_its_method(last_words, method, body):
    server = CrossingServer(last_words)
    assert await crossed(server, method, body) == (b"" if method == b"HEAD" else b"ok")
    assert [request.split(b" ")[1] for request in server.requests] == [b"/first", b"/second"]


@pytest.mark.parametrize("last_words", [b"", LATE])
async def test_a_body_that_streams_cannot_be_sent_again_but_nobody_has_read_it(last_words):
    server = CrossingServer(last_words)
    with pytest.raises(Disconnected) as caught:
        await crossed(server, b"POST", pieces(b"12", b"345"))
    assert caught.value.sent is False
    assert len(server.requests) == 1


@pytest.mark.parametrize("last_words", [b"", LATE])
async def test_over_tls_too(certificate, last_words):
    assert await crossed_over_tls(certificate, CrossingServer(last_words)) == b"ok"


async def test_over_tls_an_end_without_close_notify(certificate):
    """Not on uvloop, which tells of such an end when the socket is gone; there the call fails, unrepeated."""
    assert await crossed_over_tls(certificate, CrossingServer(notify=False)) == b"ok"


async def crossed_over_tls(certificate, server: CrossingServer) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.tls = context
    origin = Origin("https", "upstream.test", server.port)
    answer = await crossed(
        server, b"POST", b"12345", origin=origin, tls=ssl.create_default_context(cafile=str(certificate))
    )
    assert len(server.requests) == 2
    return answer


KEY = (b"Idempotency-Key", b"k")


@pytest.mark.parametrize(
    ("method", "body", "fields"),
    [
        (b"GET", None, []),
        (b"HEAD", None, []),
        (b"OPTIONS", None, []),
        (b"POST", b"x", [KEY]),
        (b"POST", b"x" * 600_000, [KEY]),
        (b"DELETE", None, [KEY]),
        (b"GET", None, [KEY, (b"PAYMENT-SIGNATURE", b"p")]),
    ],
)
async def test_a_request_that_may_be_read_twice_is_sent_once_more(method, body, fields):
    counts: list[int] = []
    async with line(dies_on_second_request(counts)) as up:
        await up.get()
        answer = await up.send(method, body=body, headers=[*HOST, *fields])
        assert (answer.status, await everything(answer)) == (200, b"" if method == b"HEAD" else b"ok")
        assert counts == [2, 1]


async def test_it_is_sent_once_more_only_and_what_a_new_connection_says_counts():
    counts: list[int] = []

    async def script(peer):
        counts.append(0)
        while await peer.request():
            counts[-1] += 1
            if (len(counts), counts[-1]) != (1, 1):
                return
            await peer.say(OK)

    async with line(script) as up:
        await up.get()
        with pytest.raises(Disconnected) as caught:
            await up.get()
        assert caught.value.sent
        assert counts == [2, 1]
        with pytest.raises(Disconnected):
            await up.get()
        assert counts == [2, 1, 1], "this connection was new"
        await up.settled()


async def test_what_has_begun_to_be_answered_is_not_sent_again():
    requests = 0

    async def script(peer):
        nonlocal requests
        while await peer.request():
            requests += 1
            if requests == 2:
                await peer.say(b"HTTP/1.1 200")
                return
            await peer.say(OK)

    async with line(script) as up:
        await up.get()
        with pytest.raises(Disconnected):
            await up.get()
        assert requests == 2


@pytest.mark.parametrize(
    ("method", "body", "fields"),
    [
        (b"PUT", b"", []),
        (b"DELETE", None, []),
        (b"POST", b"x", []),
        (b"PATCH", None, []),
        (b"GET", None, [(b"X-PAYMENT", b"p")]),
        (b"GET", None, [(b"payment-signature", b"p")]),
    ],
)
async def test_another_request_that_was_read_is_never_sent_again(method, body, fields):
    counts: list[int] = []
    async with line(dies_on_second_request(counts)) as up:
        await up.get()
        with pytest.raises(Disconnected) as caught:
            await up.send(method, body=body, headers=[*HOST, *fields])
        assert caught.value.sent
        assert counts == [2]
        await up.settled()


async def test_a_408_to_the_request_itself_is_its_answer():
    async def script(peer):
        await peer.request()
        await peer.say(OK)
        await peer.request()
        await peer.say(LATE)

    async with line(script) as up:
        await up.get()
        answer = await up.send(b"POST", body=b"x")
        assert (answer.status, await everything(answer)) == (408, b"late")
