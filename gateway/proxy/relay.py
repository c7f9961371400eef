"""Messages between an accepted caller and an upstream's WebSocket, both ways, until one of them or the gateway ends it.

Lives here: backpressure, the bounds on size, silence and life, and who is told what at the end. Not here: admission,
money (kinds/socket.py) and frames (upstreams/websocket.py, the server's own on the caller's side). Prevents a
connection from outliving either side: whatever ends one direction ends both.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gateway.billing.prepaid_credits import Ending
from gateway.proxy.exchange import Exchange, Message, Receive, Send
from gateway.telemetry.logging import of
from gateway.upstreams.http.errors import ProtocolError, UpstreamError
from gateway.upstreams.pieces import size_of
from gateway.upstreams.websocket import Closed, MessageTooLarge, UpstreamSocket

log = logging.getLogger(__name__)

NORMAL, GOING_AWAY, TOO_BIG, INTERNAL, RESTART = 1000, 1001, 1009, 1011, 1012
NO_CODE, ABNORMAL = 1005, 1006
# What ASGI servers raise when their caller has gone: an OSError by the specification, some a RuntimeError.
GONE = (OSError, RuntimeError)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bytes of a message, and seconds: in all, without a message, between pings, for who takes nothing, to close."""

    max_message: int
    life: float
    idle: float
    ping: float
    client: float
    upstream: float
    close: float


@dataclass(frozen=True, slots=True)
class End:
    """Why a connection ends. A side that ended it itself, or is gone, is told nothing (None)."""

    ending: Ending
    client: Closed | None = None
    upstream: Closed | None = None


class Relay:
    """One connection. `run` returns how it ended; `end` may be called by anybody, the first call counts."""

    def __init__(
        self, exchange: Exchange, receive: Receive, send: Send, upstream: UpstreamSocket, bounds: Bounds
    ) -> None:
        self.exchange, self._receive, self._send = exchange, receive, send
        self._upstream, self._bounds = upstream, bounds
        loop = asyncio.get_running_loop()
        self._clock = loop.time
        self._ended: asyncio.Future[End] = loop.create_future()
        self._began = self._active = self._clock()  # when the last message came through
        self._asked = self._active  # when the upstream was last pinged
        self._giving = 0.0  # since when the caller has not taken a message, 0 when it waits for one
        self._passing = 0.0  # the same for the upstream

    async def run(self) -> Ending:
        """Relay until the end, tell both sides, and return. The upstream's connection is closed by then."""
        loop = asyncio.get_running_loop()
        up, down = (loop.create_task(self._guarded(way)) for way in (self._to_upstream, self._to_client))
        try:
            end = await self._watch()
            await self._tell(end, up, down)
            return end.ending
        finally:
            for task in (up, down):
                task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)
            await self._upstream.aclose()

    def end(self, end: End) -> None:
        """End the connection unless it has ended."""
        if not self._ended.done():
            self._ended.set_result(end)

    def _too_large(self) -> None:
        """End the connection because a message of the caller has more than the allowed bytes."""
        told = Closed(TOO_BIG, f"a message may have at most {self._bounds.max_message} bytes")
        self.end(End("delivered", told, Closed(GOING_AWAY, "the client sent too large a message")))

    def restart(self) -> None:
        """End the connection because this process stops: both sides may connect again at once."""
        self.end(both("delivered", RESTART, "the gateway restarts"))

    # --- The two directions ---

    async def _guarded(self, direction: Callable[[], Awaitable[None]]) -> None:
        """Let no fault in one direction leave the other one alone."""
        try:
            await direction()
        except Exception:
            log.exception("connection failed", extra=of(self.exchange.id))
            self.end(both("delivered", INTERNAL, "something failed on our side"))

    async def _to_upstream(self) -> None:
        while True:
            message: Message
            try:
                message = await self._receive()
            except GONE:
                message = {"type": "websocket.disconnect", "code": ABNORMAL}
            if message["type"] == "websocket.disconnect":
                self.end(_left(message))
                return
            text: str | None = message.get("text")
            content: str | bytes = message["bytes"] if text is None else text
            size = size_of(content)
            if size > self._bounds.max_message:
                self._too_large()
                return
            self.exchange.bytes_in += size
            self._active = self._passing = self._clock()
            try:
                await self._upstream.send(content)
            except UpstreamError as error:
                self.end(_lost(error))
                return
            self._passing = 0.0

    async def _to_client(self) -> None:
        """Deliver until the upstream closes. Once the connection ends, what still comes is read and dropped."""
        while True:
            try:
                message = await self._upstream.receive()
            except MessageTooLarge:
                told = Closed(INTERNAL, "the publisher's server sent too large a message")
                self.end(End("delivered", client=told, upstream=Closed(TOO_BIG, "the message is too large")))
                continue
            except UpstreamError as error:
                self.end(_lost(error))
                return
            if isinstance(message, Closed):
                self.end(End("delivered", client=message))
                return
            if self._ended.done():
                continue
            self._active = self._giving = self._clock()
            text = isinstance(message, str)
            self.exchange.gave_out(message.encode() if isinstance(message, str) else message)
            try:
                await self._send({"type": "websocket.send", "text" if text else "bytes": message})
            except GONE:
                self.end(_left({"code": ABNORMAL}))
                return
            self._giving = 0.0

    # --- Time ---

    async def _watch(self) -> End:
        bounds = self._bounds
        look = min(bounds.life, bounds.idle, bounds.ping, bounds.client, bounds.upstream) / 4
        while not self._ended.done():
            await asyncio.wait((self._ended,), timeout=look)
            await self._check(self._clock())
        return self._ended.result()

    async def _check(self, now: float) -> None:
        bounds, heard = self._bounds, self._upstream.heard
        if self._ended.done():
            return
        if self._giving and now - self._giving > bounds.client:
            self.end(End("client_stalled", upstream=Closed(GOING_AWAY, "the client takes no messages")))
        elif self._passing and now - self._passing > bounds.upstream:
            self.end(End("delivered", client=Closed(INTERNAL, "the publisher's server takes no messages")))
        elif now - self._began > bounds.life:
            self.end(both("total_timeout", GOING_AWAY, f"a connection may last {bounds.life:g} s"))
        elif now - self._active > bounds.idle:
            self.end(both("delivered", GOING_AWAY, f"no message for {bounds.idle:g} s"))
        elif now - max(heard, self._asked) > bounds.ping and not (self._giving or self._passing):
            # While a message waits for one side, pongs wait behind it: then the bounds above decide.
            if heard < self._asked:
                self.end(End("delivered", client=Closed(INTERNAL, "the publisher's server does not answer pings")))
            else:
                self._asked = now
                await self._ping()

    async def _ping(self) -> None:
        try:
            async with asyncio.timeout(self._bounds.close):
                await self._upstream.ping()
        except (UpstreamError, TimeoutError):
            self.end(End("delivered", client=Closed(INTERNAL, "the publisher's server dropped the connection")))

    # --- The end ---

    async def _tell(self, end: End, up: asyncio.Task[None], down: asyncio.Task[None]) -> None:
        up.cancel()  # some ASGI servers send no Close frame while the application waits for a message
        await asyncio.gather(up, return_exceptions=True)
        if self._giving:
            down.cancel()  # nor does anything get past a message that the caller does not take
            await asyncio.gather(down, return_exceptions=True)
        if end.client is not None:
            await self._close_client(end.client)
        if end.upstream is not None:
            with contextlib.suppress(UpstreamError, TimeoutError):
                async with asyncio.timeout(self._bounds.close):
                    await self._upstream.close(end.upstream.code, end.upstream.reason)
            await asyncio.wait((down,), timeout=self._bounds.close)

    async def _close_client(self, closed: Closed) -> None:
        # ASGI cannot send a Close frame without a code.
        message: Message = {"type": "websocket.close", "code": closed.code or NORMAL, "reason": closed.reason}
        with contextlib.suppress(*GONE, TimeoutError):
            async with asyncio.timeout(self._bounds.close):
                await self._send(message)


def both(ending: Ending, code: int, reason: str) -> End:
    """Return an end that the gateway causes: both sides read the same."""
    return End(ending, Closed(code, reason), Closed(code, reason))


def _left(message: Message) -> End:
    """Return the end by the caller. Servers report a lost connection as 1006, or as 1005 like a Close without code."""
    code = int(message.get("code") or NO_CODE)
    if code == ABNORMAL:
        return End("client_gone", upstream=Closed(GOING_AWAY, "the client is gone"))
    if code == NO_CODE:
        return End("client_gone", upstream=Closed(None, ""))
    return End("delivered", upstream=Closed(code, message.get("reason") or ""))


def _lost(error: UpstreamError) -> End:
    """Return the end by an upstream that did not close properly."""
    if isinstance(error, ProtocolError):
        return End("delivered", client=Closed(INTERNAL, "the publisher's server broke the WebSocket protocol"))
    return End("delivered", client=Closed(INTERNAL, "the publisher's server dropped the connection"))
