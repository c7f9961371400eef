"""A client's connection: one request after the other is read, handed on and answered, as the time and room allow.

Lives here: where a request begins and ends, pipelining, backpressure both ways, the clock of heads, and every way in
which a connection ends. Of one connection there wait at most a head and what one read brings: whatever comes beyond
stays with its sender. What does not live here: the grammar (head.py, body.py), the answer (request.py), and a task:
there is none for a connection.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import cast

from gateway.errors import HeadersTooLarge, InvalidRequest, Problem, RequestTimeout, UriTooLong
from gateway.server.body import Body, ChunkedBody, SizedBody
from gateway.server.head import ALLOWED, CHUNKED, MAX_METHOD, check_beginning, parse
from gateway.server.problems import date_field, problem_answer
from gateway.server.request import Request
from gateway.server.seam import Address, Limits, Open, Upgraded

BODY_AHEAD = 65_536  # of a request body that nobody takes
# How much, and how long, is read and forgotten behind an answer that ends the connection: a socket that is closed over
# unread bytes is reset, and the client never reads why.
LINGER_BYTES = 8_388_608
LINGER_SECONDS = 5.0
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, for no time


class Service:
    """What the connections of a worker share."""

    def __init__(self, limits: Limits, open_request: Open, clock: Callable[[], float]) -> None:
        self.limits = limits
        self.open = open_request
        self.clock = clock
        self.connections: set[Connection] = set()
        self.draining = False

    def connect(self) -> Connection:
        """Return the protocol of a new connection (for the loop)."""
        return Connection(self)

    def expire(self) -> None:
        """Look at the time of every connection: one look now and then, because a timer for each request costs more."""
        now = self.clock()
        for connection in list(self.connections):
            connection.expire(now)

    def end_idle(self) -> None:
        """End the connections that nobody is answered on."""
        for connection in list(self.connections):
            connection.end_idle()

    def abort(self) -> None:
        """End all connections at once."""
        for connection in list(self.connections):
            connection.transport.abort()


class Connection(asyncio.Protocol):
    """One connection."""

    __slots__ = (
        "_advancing",
        "_ahead",
        "_checked",
        "_ending",
        "_forgotten",
        "_paused",
        "_since",
        "_upgraded",
        "_waiters",
        "client",
        "full",
        "lost",
        "request",
        "secure",
        "server",
        "service",
        "transport",
    )

    def __init__(self, service: Service) -> None:
        self.service = service
        self.transport: asyncio.Transport
        self.client: Address | None = None
        self.server: Address | None = None
        self.secure = False
        self.request: Request | None = None  # the one that is being answered
        self.full = False  # whether the client does not take what was written
        self.lost = False
        self._upgraded: Upgraded | None = None
        self._ahead = bytearray()  # what came and is not yet read as a request
        self._checked = 0  # how much of it is known not to end a head
        self._since = 0.0  # since when a head, or the end, is waited for; 0 while a request is answered
        self._advancing = self._paused = self._ending = False
        self._forgotten = 0
        self._waiters: list[Callable[[], None]] = []

    # --- What asyncio calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast(asyncio.Transport, transport)
        self.client, self.server = (_address(transport.get_extra_info(end)) for end in ("peername", "sockname"))
        self.secure = transport.get_extra_info("sslcontext") is not None
        self._since = self.service.clock()
        self.service.connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Read."""
        if self._upgraded is not None:
            self._upgraded.data_received(data)
            self.mind_reading()
        elif self._ending:
            self._forget(len(data))
        elif self.request is not None:
            if self.request.body_ended:
                self._ahead += data
            else:
                self._read_body(self.request, data)
            self.mind_reading()
        elif self._ahead or self.full:
            self._ahead += data
            self._advance()
        else:
            self._read_heads(data)

    def eof_received(self) -> bool:
        """End: a client that has closed its side is taken for gone, as one that was cut off looks the same."""
        self._lose()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self.service.connections.discard(self)
        self._lose()

    def pause_writing(self) -> None:
        """Note that the client takes nothing."""
        self.full = True
        self.mind_reading()

    def resume_writing(self) -> None:
        """Go on."""
        self.full = False
        self._wake()
        if self._upgraded is not None:
            self._upgraded.room()
        elif self.request is None and not self._ending:
            self._advance()
        self.mind_reading()

    # --- What a request calls ---

    def write(self, data: bytes) -> None:
        """Write."""
        if not self.lost:
            self.transport.write(data)

    def write_all(self, pieces: list[bytes]) -> None:
        """Write without copying."""
        if not self.lost:
            self.transport.writelines(pieces)

    def when_room(self, callback: Callable[[], None]) -> None:
        """Call back once when the client takes what was written, or is gone."""
        if self.full and not self.lost:
            self._waiters.append(callback)
        else:
            callback()

    def mind_reading(self) -> None:
        """Read on, or let the client wait."""
        pause = self.request is not None and self.request.held > BODY_AHEAD
        if len(self._ahead) > self.service.limits.head and (self.request is not None or self.full):
            pause = True
        if self._upgraded is not None:
            pause = self._upgraded.wants_pause()
        if pause is not self._paused and not self.lost and not self.transport.is_closing():
            self._paused = pause
            if pause:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def finished(self, request: Request) -> None:
        """Go on behind an answer that is out."""
        self.request = request.handler = None
        self._since = self.service.clock()
        if not request.keeps_alive or self.service.draining:
            self._end(linger=not request.body_ended or bool(self._ahead))
        elif self._ahead:
            self._advance()
        else:
            self.mind_reading()

    def cut(self, request: Request, *, framed: bool) -> None:
        """End in the middle of an answer. One whose end only the end of the connection would tell is reset."""
        self.request = request.handler = None
        self._ending, self._since = True, self.service.clock()
        self._ahead.clear()
        if framed:
            self.transport.close()
        else:
            self.reset()

    def reset(self) -> None:
        """Reset the connection: what was written and not taken is lost."""
        if not self.lost:
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.transport.abort()

    def upgrade(self, request: Request, to: Upgraded) -> None:
        """Hand the connection over, with what has come already; 101 is written by then."""
        request.done = True
        self.request = request.handler = None
        self._since = 0.0
        self._upgraded = to
        if self._ahead:
            to.data_received(self._take_ahead())
        self.mind_reading()

    def end_upgraded(self) -> None:
        """End a connection that was handed over; what still comes is forgotten."""
        self._upgraded = None
        self._end(linger=True)

    # --- Reading ---

    def _read_heads(self, data: bytes) -> None:
        """Read what came, where nothing was waiting."""
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            self._ahead += data
        else:
            if end < len(data):
                self._ahead += data[end:]
            self._advancing = True
            self._begin(data[:end])
            self._advancing = False
        if self._ahead:
            self._advance()

    def _advance(self) -> None:
        """Begin requests from what is ahead, as long as nobody is being answered."""
        if self._advancing:  # an answer that was there at once: the loop below goes on
            return
        self._advancing = True
        ahead = self._ahead
        while ahead and self.request is None and not (self._ending or self.full or self._upgraded):
            end = ahead.find(b"\r\n\r\n", max(self._checked - 3, 0)) + 4
            if end < 4:
                self._check_beginning()
                break
            data = bytes(ahead[:end])
            del ahead[:end]
            self._begin(data)
        self._advancing = False
        self.mind_reading()

    def _begin(self, data: bytes) -> None:
        """Begin a request by its head, with as much of its body as is ahead."""
        self._checked = 0
        if data[:2] == b"\r\n":  # an empty line before a request is forgiven (RFC 9112 section 2.2)
            data = data[2:]
        try:
            if len(data) > self.service.limits.head:
                raise self._too_large(data)
            head = parse(data)
        except Problem as problem:
            self.refuse(problem, with_body=data[:5] != b"HEAD ")
            return
        self._since = 0.0
        body: Body | None = None
        if head.length:
            body = ChunkedBody() if head.length == CHUNKED else SizedBody(head.length)
        self.request = request = Request(self, head, body)
        if body is not None and self._ahead:
            self._read_body(request, self._take_ahead())
            if self._ending:
                return
        if head.target == b"*":
            request.respond(204, [(b"allow", ALLOWED.encode()), date_field()], end=True)
            return
        handler = self.service.open(request)
        if not request.done:
            request.handler = handler

    def _read_body(self, request: Request, data: bytes) -> None:
        body = request.body
        assert body is not None
        try:
            content, rest = body.feed(data)
        except Problem as problem:
            self._break_off(request, problem)
            return
        if rest:
            self._ahead += rest
        if content:
            request.add(content)
        request.body_ended = body.ended
        if request.handler is not None and (content or body.ended):
            request.handler.body_came()

    def _take_ahead(self) -> bytes:
        """Return what is ahead, which then is no longer."""
        data = bytes(self._ahead)
        self._ahead.clear()  # not another object: whoever reads requests from it goes on with what is left
        return data

    def _check_beginning(self) -> None:
        """Refuse what cannot become a request, or not one of this size."""
        ahead, limits = self._ahead, self.service.limits
        begin = 2 if ahead.startswith(b"\r\n") else 0
        try:
            if len(ahead) > limits.head:
                raise self._too_large(bytes(ahead[begin:]))
            if len(ahead) > begin:
                check_beginning(ahead[begin:] if begin else ahead, max(self._checked - begin - 1, 0))
        except Problem as problem:
            self.refuse(problem, with_body=not ahead.startswith(b"HEAD ", begin))
        self._checked = len(ahead)

    def _too_large(self, data: bytes) -> Problem:
        limits = self.service.limits
        if b" " not in data[: MAX_METHOD + 1]:
            return InvalidRequest("The request does not begin with a method.")
        if not 0 <= data.find(b"\r\n") <= limits.target + 100:
            return UriTooLong(f"The request target is longer than {limits.target} bytes.")
        return HeadersTooLarge(f"The head of the request is larger than {limits.head} bytes.")

    # --- The end ---

    def refuse(self, problem: Problem, *, with_body: bool = True) -> None:
        """Answer what cannot be read as a request, and end: nobody knows where the next one would begin."""
        self.write(problem_answer(problem, with_body=with_body))
        self._end(linger=True)

    def expire(self, now: float) -> None:
        """End what has waited for too long."""
        if self._upgraded is not None:
            self._upgraded.expire(now)
            return
        waited = now - self._since if self._since else 0.0
        if self._ending:
            if waited > (self.service.limits.idle if self.transport.get_write_buffer_size() else LINGER_SECONDS):
                self.transport.abort()
        elif waited > self.service.limits.idle:
            if self._ahead:
                self.refuse(RequestTimeout("The head of the request did not come in time."))
            else:
                self._end(linger=False)

    def end_idle(self) -> None:
        """End if nobody is being answered."""
        if self.request is None and self._upgraded is None and not self._ending:
            self._end(linger=False)

    @property
    def busy(self) -> bool:
        """Return whether somebody is being answered, or has not taken all of an answer."""
        unread = not self.lost and self.transport.get_write_buffer_size() > 0
        return self.request is not None or self._upgraded is not None or unread

    def _break_off(self, request: Request, problem: Problem) -> None:
        """End a request whose body is not framed as its head says."""
        self._let_go()
        if request.responded:
            self._ending, self._since = True, self.service.clock()
            self.transport.close()
        else:
            self.refuse(problem)

    def _end(self, *, linger: bool) -> None:
        self._ending, self._since = True, self.service.clock()
        self._ahead.clear()
        if self.lost:
            return
        if not linger:
            self.transport.close()
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.mind_reading()

    def _forget(self, size: int) -> None:
        self._forgotten += size
        if self._forgotten > LINGER_BYTES:
            self.transport.close()

    def _lose(self) -> None:
        """Note that nothing arrives any more, and tell whoever is concerned."""
        self.lost = True
        self._let_go()
        upgraded, self._upgraded = self._upgraded, None
        if upgraded is not None:
            upgraded.gone()
        self._wake()

    def _let_go(self) -> None:
        """Tell the handler that its client is gone, once."""
        request, self.request = self.request, None
        if request is None:
            return
        request.lost = True
        handler, request.handler = request.handler, None
        if handler is not None:
            handler.gone()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for callback in waiters:
            callback()


def _address(name: object) -> Address | None:
    """Return host and port of a socket's name; a Unix socket has none."""
    if isinstance(name, tuple):
        parts = cast("tuple[object, ...]", name)
        if len(parts) >= 2 and isinstance(parts[1], int):
            return str(parts[0]), parts[1]
    return None
