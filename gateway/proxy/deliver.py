"""Step 8, deliver: the upstream's answer to the caller, as it arrives, metered on the way.

Status, fields and body bytes go through as they came, less what is hop-by-hop and plus the cost of the call. A body
that is here whole goes out at once; a longer one is streamed under backpressure while we watch for a caller that
leaves, or takes nothing: it would make the upstream break off, and have most of the answer for nothing. The answer of a
call with an Idempotency-Key is kept before its last piece goes out (purses/); when its caller leaves early the
rest is still read, so that asking again gets the answer that was paid for.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from gateway.billing.prepaid_credits import Ending
from gateway.billing.x402_passthrough import RETURNED
from gateway.dates import http_date
from gateway.proxy.answer_fields import Kind, classify, with_public_urls, without_secrets
from gateway.proxy.effects import perform
from gateway.proxy.exchange import Exchange, HeaderPairs, Message, nobody
from gateway.proxy.forward import VIA, connection_options
from gateway.proxy.problems import limit_fields
from gateway.upstreams.http.errors import TotalTimeout, UpstreamError
from gateway.upstreams.http.response import UpstreamResponse

# It has no content (RFC 9110 section 15.3.6); one that an upstream sends all the same is dropped.
RESET_CONTENT = 205

SANDBOX = (b"content-security-policy", b"sandbox allow-scripts allow-forms")


async def deliver(
    exchange: Exchange, answer: UpstreamResponse, *, refunded: bool, limit: int, patience: float
) -> Ending:
    """Send the answer on and return how that ended: delivered, client_gone, client_stalled, total_timeout, broken_off.

    The answer of a call with a key is kept with its money before all of it is out; bodies above `limit` bytes are kept
    as None. A caller may take nothing for `patience` seconds.
    """
    headers = response_headers(exchange, answer, refunded=refunded)
    exchange.answered = answer.status
    body = whole_content(answer)
    if body is not None:
        exchange.gave_out(body)
        if exchange.keyed is not None:
            await exchange.purse.keep(exchange, headers, body if len(body) <= limit else None)
            if exchange.purse.settles_in_keeping:
                headers = response_headers(exchange, answer, refunded=exchange.outcome == "refunded")
        return await send_at_once(exchange, headers, body)
    if exchange.keyed is not None:
        return await _watched(exchange, answer, _Recorder(exchange, answer, headers, limit, patience), None)
    if exchange.meter is not None and exchange.meter.reads:
        return await _watched(exchange, answer, _Metered(exchange, answer, headers, patience), None)
    exchange.handed = time.perf_counter()  # a connection with answers of earlier calls in it may not even take a head
    there = await perform("head", _send_head(exchange, headers))
    exchange.handed = 0.0
    if not there:
        return "client_gone"
    return await _watched(exchange, answer, _Pump(exchange, answer), patience)


def whole_content(answer: UpstreamResponse) -> bytes | None:
    """Return the content of an answer that is here whole; None while it is on its way."""
    return b"" if answer.status == RESET_CONTENT else answer.complete_body


async def send_at_once(exchange: Exchange, headers: HeaderPairs, body: bytes) -> Ending:
    """Send head and body, and return whether the caller was there to take them."""
    exchange.handed = time.perf_counter()  # minded by live.py: a timer of its own would cost more than the sending
    if await _send_head(exchange, headers):
        with contextlib.suppress(OSError):
            await exchange.send({"type": "http.response.body", "body": body})
            exchange.handed = 0.0
            return "delivered"
    exchange.handed = 0.0
    return "client_gone"


async def _send_head(exchange: Exchange, headers: HeaderPairs) -> bool:
    """Send the head and return whether the caller was there to take it."""
    exchange.head_sent = True
    start: Message = {"type": "http.response.start", "status": exchange.answered, "headers": headers}
    if _has_trailers(exchange) and exchange.purse.announce_trailer(exchange):
        start["trailers"] = True
    try:
        await exchange.send(start)
    except OSError:
        exchange.head_sent = False
        exchange.send = nobody
    return exchange.head_sent


def _has_trailers(exchange: Exchange) -> bool:
    """Return whether the server can send fields behind the body."""
    return "http.response.trailers" in (exchange.scope.get("extensions") or {})


async def _send_trailers(exchange: Exchange) -> None:
    """Send what the head could not say, if it announced that."""
    trailer = exchange.purse.trailer(exchange)
    if trailer:
        await exchange.send({"type": "http.response.trailers", "headers": trailer, "more_trailers": False})


async def _watched(
    exchange: Exchange, answer: UpstreamResponse, pump: _Pump | _Recorder | _Metered, patience: float | None
) -> Ending:
    """Pump pieces until the end, the caller's leaving or stalling, or the upstream's breaking off.

    Without `patience` the pump goes on to its end although the caller has left, and minds its stalling itself.
    """
    pumping = asyncio.ensure_future(pump.run())
    gone = asyncio.ensure_future(_disconnected(exchange))
    try:
        while not (pumping.done() or gone.done() or pump.stalled(patience)):
            wait = None if patience is None else patience / 2
            await asyncio.wait((pumping, gone), timeout=wait, return_when=asyncio.FIRST_COMPLETED)
        if patience is None and not pumping.done():
            exchange.send = nobody
            return await pumping
        if pumping.done():
            return pumping.result()
        return "client_gone" if gone.done() else "client_stalled"
    finally:
        for task in (pumping, gone):
            task.cancel()
        with contextlib.suppress(BaseException):
            await asyncio.gather(pumping, gone, return_exceptions=True)
        await answer.aclose()


class _Pump:
    """Streams an answer as it comes."""

    def __init__(self, exchange: Exchange, answer: UpstreamResponse) -> None:
        self._exchange, self._answer = exchange, answer
        self._clock = asyncio.get_running_loop().time
        self._offered = 0.0  # when the piece was offered that the caller has not taken yet

    def stalled(self, patience: float | None) -> bool:
        """Return whether the caller has taken nothing for so long."""
        return patience is not None and self._offered > 0 and self._clock() - self._offered >= patience

    async def run(self) -> Ending:
        """Deliver."""
        exchange, send = self._exchange, self._exchange.send
        try:
            while piece := await self._answer.read():
                exchange.gave_out(piece)
                self._offered = self._clock()
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                self._offered = 0.0
        except TotalTimeout:
            return "total_timeout"
        except UpstreamError:
            return "broken_off"
        except OSError:
            return "client_gone"
        if exchange.meter is not None:
            exchange.meter.end()
        self._offered = self._clock()  # over HTTP/2 the end waits for what is still to be taken
        await send({"type": "http.response.body", "body": b""})
        await _send_trailers(exchange)
        return "delivered"


class _Metered:
    """Streams an answer that says at its end what it cost, as it comes. It is read to that end whoever has left: what
    was made for a caller is paid by it, and leaving early makes nothing cheaper.
    """

    def __init__(self, exchange: Exchange, answer: UpstreamResponse, headers: HeaderPairs, patience: float) -> None:
        self._exchange, self._answer, self._headers, self._patience = exchange, answer, headers, patience
        self._ending: Ending = "delivered"

    def stalled(self, _patience: float | None) -> bool:
        """Return False: a caller that stalls is left behind."""
        return False

    async def run(self) -> Ending:
        """Deliver, and read the rest for a caller who left."""
        await self._begin()
        try:
            while piece := await self._answer.read():
                self._exchange.gave_out(piece)
                await self._pass_on(piece, more=True)
        except TotalTimeout:
            return "total_timeout"
        except UpstreamError:
            return "broken_off"
        if self._exchange.meter is not None:
            self._exchange.meter.end()
        await self._pass_on(b"", more=False)
        return self._ending

    async def _begin(self) -> None:
        try:
            async with asyncio.timeout(self._patience):
                await perform("head", _send_head(self._exchange, self._headers))
        except TimeoutError:
            self._ending = "client_stalled"

    async def _pass_on(self, piece: bytes, *, more: bool) -> None:
        if self._exchange.send is nobody:
            self._ending = "client_gone"
        if self._ending != "delivered":
            return
        try:
            async with asyncio.timeout(self._patience):
                await self._exchange.send({"type": "http.response.body", "body": piece, "more_body": more})
                if not more:
                    await _send_trailers(self._exchange)
        except TimeoutError:
            self._ending = "client_stalled"
        except OSError:
            self._ending = "client_gone"


class _Recorder:
    """Streams an answer one piece behind and records it: the last piece waits until the whole is stored.

    The head goes with the first piece, so that an answer of one piece that cannot be stored is refused in whole.
    """

    def __init__(
        self, exchange: Exchange, answer: UpstreamResponse, headers: HeaderPairs, limit: int, patience: float
    ) -> None:
        self._exchange, self._answer, self._headers = exchange, answer, headers
        self._limit, self._patience = limit, patience
        self._kept: bytearray | None = bytearray()
        self._cut = False

    def stalled(self, _patience: float | None) -> bool:
        """Return False: a caller that stalls is left behind, its answer is read and stored to the end."""
        return False

    async def run(self) -> Ending:
        """Deliver and store; what a caller who left would have got is stored all the same."""
        held = b""
        try:
            while piece := await self._answer.read():
                self._record(piece)
                await self._pass_on(held, more=True)
                held = piece
        except TotalTimeout:
            self._exchange.ending = "total_timeout"
            await self._exchange.purse.keep(self._exchange, self._headers, None)
            await self._begin()
            return "total_timeout"
        except UpstreamError:
            await self._begin()
            return "broken_off"
        if self._exchange.meter is not None:
            self._exchange.meter.end()
        body = None if self._kept is None else bytes(self._kept)
        await self._exchange.purse.keep(self._exchange, self._headers, body)
        await self._pass_on(held, more=False)
        return "client_stalled" if self._cut else "delivered"

    def _record(self, piece: bytes) -> None:
        self._exchange.gave_out(piece)
        if self._kept is not None:
            self._kept += piece
            if len(self._kept) > self._limit:
                self._kept = None

    async def _pass_on(self, piece: bytes, *, more: bool) -> None:
        if not piece and more:
            return
        try:
            async with asyncio.timeout(self._patience):
                await self._begin()
                await self._exchange.send({"type": "http.response.body", "body": piece, "more_body": more})
                if not more:
                    await _send_trailers(self._exchange)
        except TimeoutError:
            self._exchange.send = nobody
            self._cut = True
        except OSError:
            pass

    async def _begin(self) -> None:
        """Send the head unless it has gone out."""
        if not self._exchange.head_sent:
            await perform("head", _send_head(self._exchange, self._headers))


async def _disconnected(exchange: Exchange) -> None:
    """Return when the caller has left. The request body has been read by now, so nothing else can come."""
    while (await exchange.receive())["type"] != "http.disconnect":
        pass


def response_headers(exchange: Exchange, answer: UpstreamResponse, *, refunded: bool) -> HeaderPairs:
    """Return the answer's fields: the upstream's end-to-end ones in order, then ours."""
    listed, purse = connection_options(answer.headers), exchange.purse
    if answer.status == RESET_CONTENT:
        listed |= {b"content-length", b"content-encoding"}
    elif answer.status in (204, 304):
        # 204 must not have it (RFC 9110 section 8.6), 304 may, but a server below us would wait for that many bytes.
        listed |= {b"content-length"}
    headers: HeaderPairs = []
    dated = located = False
    for raw_name, value in answer.headers:
        name, kind = classify(raw_name)
        if name in listed:
            continue
        if kind:  # few are special
            if kind is Kind.DROPPED and not (purse.relays and name in RETURNED):
                continue
            dated, located = dated or kind is Kind.DATE, located or kind is Kind.URL
        headers.append((name, value))
    if located:
        headers = with_public_urls(exchange, headers)
    headers = without_secrets(exchange, headers)
    if not dated:
        headers.append((b"date", http_date()))
    if answer.status == RESET_CONTENT:
        headers.append((b"content-length", b"0"))
    headers.append(VIA)
    headers.append((b"x-request-id", str(exchange.id).encode()))
    headers.extend(purse.fields(exchange, refunded=refunded))
    if purse.without_key:
        headers.extend(kept_from_caches(headers))
    headers.extend(limit_fields(exchange))
    return fenced(headers) if b"sec-fetch-site" in exchange.fields else headers


def fenced(headers: HeaderPairs) -> HeaderPairs:
    """Return an answer's fields for a browser, which takes all that comes from this host for one site.

    A publisher's page must neither act as its reader's login here, so it gets an origin of its own, nor set the cookies
    of one.
    """
    return [*(pair for pair in headers if pair[0] != b"set-cookie"), SANDBOX]


def kept_from_caches(headers: HeaderPairs) -> HeaderPairs:
    """Return what keeps an answer out of shared caches. Calls with an Authorization field need none (RFC 9111 3.5)."""
    said = b",".join(value for name, value in headers if name == b"cache-control").lower()
    return [] if b"private" in said or b"no-store" in said else [(b"cache-control", b"private")]
