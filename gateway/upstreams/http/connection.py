"""One HTTP/1.1 connection: a state machine between a transport and one response at a time.

Lives here: parsing, keep-alive decisions, flow control and the one timer. Not here: which connection serves which call
(pool.py), dialling (dial.py), validation of requests (request.py). Prevents reuse of a connection whose byte stream is
not known to stand exactly between two messages: whatever is in doubt is closed.

    IDLE -> (begin) -> WAITING -> (head) -> BODY -> (end) -> IDLE | CLOSED
                                  (101)  -> RAW  -> CLOSED
"""

from __future__ import annotations

import asyncio
import enum
from typing import Protocol

import httptools

from gateway.upstreams.http.errors import (
    BrokenBody,
    Disconnected,
    FirstByteTimeout,
    IdleTimeout,
    ProtocolError,
    TotalTimeout,
    UpstreamError,
)
from gateway.upstreams.http.framing import (
    MAX_FIELDS,
    MAX_HEAD,
    Framing,
    asks_to_close,
    body_framing,
    check_head,
    ends_exactly,
)
from gateway.upstreams.http.kernel import left_to_read, unacknowledged
from gateway.upstreams.http.request import EncodedRequest
from gateway.upstreams.http.response import UpstreamResponse
from gateway.upstreams.http.timeouts import Timeouts
from gateway.upstreams.http.wire import TICK, Wire


class State(enum.Enum):
    """What the connection waits for."""

    IDLE = enum.auto()
    WAITING = enum.auto()
    BODY = enum.auto()
    RAW = enum.auto()
    CLOSED = enum.auto()


# Module constants: reading a global is cheaper than a class attribute, several times per call.
_IDLE, _WAITING, _BODY, _RAW, _CLOSED = State
_NO_REQUEST = EncodedRequest(b"")


class Owner(Protocol):
    """The pool, as the connection sees it. Each connection calls `discard` at most once."""

    idle_seconds: float

    def release(self, connection: Connection) -> None: ...
    def discard(self, connection: Connection) -> None: ...
    def gone(self, connection: Connection) -> None: ...


class Connection(Wire):
    """See the module. Created by dial.py; `begin` may be called only on a usable connection out of the pool."""

    def __init__(self, owner: Owner) -> None:
        super().__init__()
        self._owner = owner
        self._state = _IDLE
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._peer_done = False
        self.idle_since = self._last
        self.served = 0
        # Set by `begin` for each exchange:
        self._head: asyncio.Future[UpstreamResponse] | None = None
        self._response: UpstreamResponse | None = None
        self._request = _NO_REQUEST
        self._timeouts: Timeouts
        self._ends = 0.0
        self._written = 0
        self.uploading = False
        # Set while a response is parsed:
        self._fields: list[tuple[bytes, bytes]] = []
        self._reason = b""
        self._framing: Framing = "none"
        self._overhead = 0
        self._head_inside = self._interim = self._ended = self._surplus = self._keep = False
        self._body_size = 0

    # --- For the pool and the client ---

    @property
    def usable(self) -> bool:
        """Whether a request may be written: idle, and the transport knows of no end."""
        return self._state is _IDLE and not self._transport.is_closing()

    @property
    def closed(self) -> bool:
        """Whether the connection has been given up (its transport may still be closing)."""
        return self._state is _CLOSED

    @property
    def answered(self) -> bool:
        """Whether a response head has arrived or never will: nothing more should be uploaded."""
        return self._state is not _WAITING

    def begin(
        self, request: EncodedRequest, timeouts: Timeouts, now: float, ends: float
    ) -> asyncio.Future[UpstreamResponse]:
        """Write the request's head and small body at once; return the future of its response."""
        self._state = _WAITING
        self._request = request
        self._timeouts = timeouts
        self._ends = ends
        self._last = now
        self._fields = []
        self._reason = b""
        self._overhead = 0
        self._ended = self._surplus = False
        self.uploading = request.stream is not None
        self._head = head = self._loop.create_future()
        due = now + timeouts.first_byte
        self._arm(due if due < ends else ends)
        self._written = len(request.data)
        self._transport.write(request.data)
        return head

    def abandon(self, response: UpstreamResponse) -> None:
        """Close unless `response` is no longer the one in progress."""
        if response is self._response:
            self.fail(UpstreamError("the exchange was given up", sent=True))

    def give_up(self, head: asyncio.Future[UpstreamResponse]) -> None:
        """Close if `head` is still awaited here; otherwise the connection may serve another call by now."""
        if head is self._head:
            self.dispose()

    def fail(self, error: UpstreamError) -> None:
        """End the exchange in progress with `error` and close."""
        if self._head is not None:
            if not self._head.done():
                self._head.set_exception(error)
        elif self._response is not None:
            self._response.fail(error)
        self.dispose()

    def dispose(self, *, keep_slot: bool = False) -> None:
        """Close now, unsent bytes included. The pool's slot is freed unless the caller takes it over."""
        if self._state is _CLOSED:
            return
        self._state = _CLOSED
        self._head = self._response = None
        self._parser = None  # it holds our bound methods: break the cycle
        self._disarm()
        self._transport.abort()
        if not keep_slot:
            self._owner.discard(self)

    # --- Sending a body ---

    def write(self, data: bytes) -> None:
        """Send a piece of the body unless the connection is gone."""
        if self._state is not _CLOSED and not self._transport.is_closing():
            self._written += len(data)
            self._transport.write(data)

    def upload_done(self) -> None:
        """The last request byte was written: from here the first-byte timeout runs."""
        self.uploading = False
        if self._state is _WAITING:
            self._last = self._loop.time()
            self._arm(min(self._last + self._timeouts.first_byte, self._ends))

    async def write_raw(self, data: bytes) -> None:
        """Send bytes of an upgraded connection, waiting while the upstream accepts no more."""
        if self._state is not _RAW or self._transport.is_closing():
            raise BrokenBody("the upgraded connection is closed", sent=True)
        self._transport.write(data)
        await self.drain()

    def pause_writing(self) -> None:
        """The transport's buffer is full (asyncio callback): the upstream's patience counts from now."""
        super().pause_writing()
        if self._state is _WAITING:
            self._last = self._loop.time()
            self._arm(min(self._last + self._timeouts.idle, self._ends))

    # --- Receiving ---

    def resume_reading(self) -> None:
        """The caller has caught up. The upstream's silence counts from now."""
        super().resume_reading()
        if self._state is _BODY:
            self._last = self._loop.time()
            self._arm(min(self._last + self._timeouts.idle, self._ends))

    def data_received(self, data: bytes) -> None:
        """Feed the parser (asyncio callback)."""
        state = self._state
        if state is _WAITING:
            self._overhead += len(data)
            self._parse(data)
            if self._state is _BODY:  # the body goes on: from here its silence counts
                self._last = self._loop.time()
                self._arm(min(self._last + self._timeouts.idle, self._ends))
            elif self._state is _WAITING and self._overhead > MAX_HEAD:
                self.fail(ProtocolError(f"response header section exceeds {MAX_HEAD} bytes", sent=True))
        elif state is _BODY:
            self._last = self._loop.time()
            self._parse(data)
            # Chunk extensions and trailers are bytes the parser collects or drops without a body piece.
            self._overhead = 0 if self._body_size else self._overhead + len(data)
            if self._state is _BODY and self._overhead > MAX_HEAD:
                self.fail(ProtocolError("response sends framing without body", sent=True))
        elif state is _RAW:
            if self._response is not None:
                self._response.feed(data)
        else:
            self.dispose()  # bytes nobody asked for: the next response would be read out of step

    def _parse(self, data: bytes) -> None:
        self._head_inside = False
        self._body_size = 0
        parser = self._parser
        assert parser is not None
        try:
            if self._request.is_head and self._state is _WAITING:
                self._parse_by_line(parser, data)
            else:
                parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._switch(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._violated(error)
        else:
            if self._ended:
                self._finish(data)

    def _parse_by_line(self, parser: httptools.HttpResponseParser, data: bytes) -> None:
        """Stop exactly behind the head: the parser cannot be told that an answer to HEAD has no body."""
        start = 0
        while start < len(data) and not self._ended:
            stop = data.find(b"\n", start) + 1 or len(data)
            parser.feed_data(data[start:stop])
            start = stop
        self._surplus = self._surplus or start < len(data)

    def _violated(self, error: httptools.HttpParserError) -> None:
        if self._ended:  # the message was whole; what follows it is not HTTP
            self._surplus = True
            self._complete()
            return
        cause = error.__context__
        if isinstance(cause, UpstreamError):
            self.fail(cause)
        else:
            # llhttp's texts name grammar rules, never content.
            self.fail(ProtocolError(f"response is not valid HTTP/1.1: {error}", sent=True))

    # --- Parser callbacks, in the order of a message ---

    def on_message_begin(self) -> None:
        """Also called for the first byte behind a finished message."""
        if self._ended:
            self._surplus = True
            self._fields = []

    def on_status(self, reason: bytes) -> None:
        """Collect the reason phrase, which may come in parts."""
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header field, or a trailer field once the head is complete."""
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """Hand the response to its waiting caller."""
        parser, fields, request = self._parser, self._fields, self._request
        if self._surplus or parser is None:
            return
        status = parser.get_status_code()
        version = parser.get_http_version()
        check_head(status, version, fields, self._overhead)
        self._interim = status < 200 and status != 101
        if self._interim:
            return
        if status == 101 and not (request.upgrade and parser.should_upgrade()):
            raise ProtocolError("response switches protocols without being asked", sent=True)
        self._framing = body_framing(status, request.is_head, version, fields)
        self._keep = not asks_to_close(version, fields) if request.is_head else parser.should_keep_alive()
        # An answer before the end of the upload: the rest is not sent, so the connection cannot be used again.
        self._keep = self._keep and not self.uploading
        if status >= 400 and self.served and not self._keep and self._unread():
            raise Disconnected("upstream ended the idle connection with a late answer", sent=False)
        self._answer(UpstreamResponse(self, status, self._reason, fields))
        self._ended = request.is_head

    def _answer(self, response: UpstreamResponse) -> None:
        head = self._head
        if head is None or head.done():  # its caller was cancelled a moment ago
            raise UpstreamError("the exchange was given up", sent=True)
        self._head_inside = True
        self._fields = []
        self._overhead = 0
        self._response = response
        self._state = _BODY
        self._head = None
        head.set_result(response)

    def on_body(self, piece: bytes) -> None:
        """Queue a piece of the body."""
        self._body_size += len(piece)
        if self._response is not None and not self._surplus:
            self._response.feed(piece)

    def on_message_complete(self) -> None:
        """Note the end; what to do about it is decided when the whole read has been parsed."""
        if self._interim:
            self._fields = []
            self._reason = b""
            self._interim = False
            return
        if self._fields and self._response is not None and not self._surplus:
            if len(self._fields) > MAX_FIELDS:
                raise ProtocolError(f"response has more than {MAX_FIELDS} trailer fields", sent=True)
            self._response.trailers.extend(self._fields)
        self._ended = True

    # --- The end of a message ---

    def _finish(self, data: bytes) -> None:
        if not ends_exactly(data, framing=self._framing, head_inside=self._head_inside, body_size=self._body_size):
            self._surplus = True
        self._complete()

    def _complete(self) -> None:
        """Give the caller the end of its body and the pool its connection, or close."""
        response, request = self._response, self._request
        self._response = None
        if response is not None:
            response.end()
        transport = self._transport
        unsent = request.has_body and transport.get_write_buffer_size() > 0
        if not self._keep or self._surplus or unsent or transport.is_closing():
            self.dispose()
            return
        if request.is_head:
            self._parser = httptools.HttpResponseParser(self)
        self._state = _IDLE
        self._request = _NO_REQUEST  # its body need not stay in memory while the connection is idle
        self.served += 1
        self.idle_since = now = self._loop.time()
        self._arm(now + self._owner.idle_seconds)
        if self._read_paused:  # by the body that has just ended; the pool must notice an EOF
            self._read_paused = False
            transport.resume_reading()
        self._owner.release(self)

    def _switch(self, rest: bytes) -> None:
        """Continue as a raw byte stream after 101."""
        self._state = _RAW
        self._ended = False
        if rest and self._response is not None:
            self._response.feed(rest)

    # --- The end of the connection ---

    def eof_received(self) -> None:
        """The upstream will send nothing more (asyncio callback): a clean end only where the framing says so."""
        self._peer_done = True
        self._lost("closed the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is gone (asyncio callback)."""
        if exc is not None and self._state in (_WAITING, _BODY):
            self._read_rest()
        self._lost("closed the connection" if exc is None else f"broke the connection ({type(exc).__name__})")
        super().connection_lost(exc)
        self._owner.gone(self)

    def _lost(self, what: str) -> None:
        state, response = self._state, self._response
        if state is _WAITING:
            partial = self._overhead > 0
            where = "in the middle of the response head" if partial else "before a response"
            seen = partial or not self._unread()
            self.fail(Disconnected(f"upstream {what} {where}", sent=seen, received=partial))
        elif (
            response is not None
            and (state is _RAW or self._framing == "close")
            and self._peer_done
            and self.end_is_authentic()
        ):
            self._response = None
            response.end()
        elif response is not None:
            self.fail(BrokenBody(f"upstream {what} in the middle of the body", sent=True))
        self.dispose()

    def _read_rest(self) -> None:
        """Take what had arrived when a write failed: an upstream that refuses an upload answers and closes."""
        for data in left_to_read(self._transport):
            self.data_received(data)
            if self._state not in (_WAITING, _BODY):
                return

    def _unread(self) -> bool:
        """Whether the upstream certainly has not read any byte of the request. Unknown counts as read.

        Over TLS more bytes leave than were written, so that a stream of many pieces cannot be told from its remainder.
        """
        if self._request.stream is not None and self._transport.get_extra_info("sslcontext") is not None:
            return False
        waiting = unacknowledged(self._transport)
        return waiting is not None and waiting >= self._written

    # --- The one timer ---

    def timer_fired(self) -> None:
        """Look which phase this is; the timer may well be older than it."""
        when, error = self._due()
        if when > self._loop.time() + TICK:
            self._arm(when)
        elif error is None:
            self.dispose()
        else:
            self.fail(error)

    def _due(self) -> tuple[float, UpstreamError | None]:
        """Return when the current phase runs out, and with which error (None: idle in the pool)."""
        state = self._state
        if state is _IDLE:
            return self.idle_since + self._owner.idle_seconds, None
        times = self._timeouts
        total = (self._ends, TotalTimeout(f"exchange took longer than {times.total:g} s", sent=True))
        if state is _WAITING and not self.uploading:
            error = FirstByteTimeout(f"no response within {times.first_byte:g} s", sent=True)
            return min(total, (self._last + times.first_byte, error), key=_when)
        stalled = self._write_paused if state is _WAITING else not self._read_paused
        if stalled and state is not _RAW:
            error = IdleTimeout(f"upstream was silent for {times.idle:g} s", sent=True)
            return min(total, (self._last + times.idle, error), key=_when)
        return total


def _when(due: tuple[float, UpstreamError | None]) -> float:
    return due[0]
