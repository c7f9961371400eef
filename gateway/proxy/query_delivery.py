"""A query's answer on its way to the caller: gathered while it is short, streamed when it is long.

A gathered answer is paid before its head goes out, a streamed one before its last piece. The answer of a call with an
Idempotency-Key is always gathered: it is kept in the transaction that pays it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Sequence

from gateway.dates import http_date
from gateway.proxy.effects import perform
from gateway.proxy.exchange import Exchange, HeaderPairs, Message
from gateway.proxy.problems import limit_fields
from gateway.proxy.purses.metered import MeteredPurse
from gateway.proxy.query_answer import TYPES, Summary, Writer
from gateway.proxy.query_request import Form
from pricing.money import format_amount
from pricing.quote import Quote


class CallerLeft(Exception):
    """The caller does not take the rest of a streamed answer."""


class Outlet:
    """Takes rows and, at the end, the summary. `buffer`, `keep`: bytes that are gathered, and kept for a key."""

    def __init__(
        self, exchange: Exchange, purse: MeteredPurse, form: Form, *, buffer: int, keep: int, patience: float
    ) -> None:
        self._exchange, self._purse = exchange, purse
        self._writer = Writer(form)
        self._buffer = buffer if self._writer.streams and exchange.keyed is None else None
        self._keep, self._patience = keep, patience
        self._pieces: list[bytes] = []
        self._size = 0
        self._leaving: asyncio.Task[None] | None = None
        exchange.body_hasher = hashlib.sha256()

    def name_columns(self, names: Sequence[str], types: Sequence[str]) -> None:
        """Say what the columns are called and their types, as PostgreSQL calls them, before the first row."""
        self._writer.name(names, types)

    async def write(self, lot: Sequence[bytes]) -> None:
        """Take rows. Raises CallerLeft."""
        piece = self._writer.rows(lot)
        self._pieces.append(piece)
        self._size += len(piece)
        if self._buffer is not None and self._size > self._buffer:
            await self._stream()

    async def finish(self, summary: Summary, quote: Quote) -> None:
        """Pay and send what is left. Raises Unavailable: then nothing is charged and the answer is not whole."""
        exchange = self._exchange
        exchange.answered = exchange.status = 200
        last = self._writer.end(summary)
        if exchange.head_sent:
            rest = b"".join(self._pieces) + last
            exchange.gave_out(rest)
            await perform("capture", self._purse.take(exchange, quote, "delivered"))
            await self._send({"type": "http.response.body", "body": rest})
            return
        body = b"".join(self._pieces) + last
        exchange.gave_out(body)
        headers = [*self._head(), (b"content-length", str(len(body)).encode()), *_said_of(summary)]
        kept = (headers, body if len(body) <= self._keep else None)
        said = await perform("capture", self._purse.take(exchange, quote, "delivered", kept))
        await self._start([*headers, *said])
        with contextlib.suppress(OSError):
            await exchange.send({"type": "http.response.body", "body": body})

    def close(self) -> None:
        """Stop watching the caller."""
        if self._leaving is not None:
            self._leaving.cancel()

    async def _stream(self) -> None:
        exchange = self._exchange
        if not exchange.head_sent:
            exchange.answered = exchange.status = 200
            self._leaving = asyncio.ensure_future(_left(exchange))
            await self._start([*self._head(), (b"x-cost-max", self._amount(self._purse.held))])
        piece = b"".join(self._pieces)
        self._pieces.clear()
        exchange.gave_out(piece)
        await perform("piece", self._send({"type": "http.response.body", "body": piece, "more_body": True}))

    async def _start(self, headers: HeaderPairs) -> None:
        exchange = self._exchange
        exchange.head_sent = True
        with contextlib.suppress(OSError):
            await exchange.send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _send(self, message: Message) -> None:
        if self._leaving is not None and self._leaving.done():
            raise CallerLeft
        try:
            async with asyncio.timeout(self._patience):
                await self._exchange.send(message)
        except OSError:  # a timeout is one as well
            raise CallerLeft from None

    def _head(self) -> HeaderPairs:
        exchange = self._exchange
        headers: HeaderPairs = [
            (b"content-type", TYPES[self._writer.form]),
            (b"cache-control", b"no-store"),
            (b"date", http_date()),
            (b"x-request-id", str(exchange.id).encode()),
            (b"x-cost-asset", self._purse.price.asset.symbol.encode()),
        ]
        headers.extend(limit_fields(exchange))
        return headers

    def _amount(self, atomic: int) -> bytes:
        return format_amount(atomic, self._purse.price.asset.decimals).encode()


def _said_of(summary: Summary) -> HeaderPairs:
    """Return what a whole answer says in its head."""
    said: HeaderPairs = [(b"x-cost", summary.cost.encode()), (b"x-row-count", str(summary.row_count).encode())]
    if summary.truncated is not None:
        said.append((b"x-truncated", summary.truncated.encode()))
    return said


async def _left(exchange: Exchange) -> None:
    """Return when the caller has left: its request body has been read, so nothing else can come."""
    while (await exchange.receive())["type"] != "http.disconnect":
        pass
