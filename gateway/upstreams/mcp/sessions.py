"""Sessions that the gateway itself has at publishers' MCP servers, for callers that speak plain HTTP to it.

A session belongs to one publisher and one caller: what a server remembers of one of them is never shown to another.
Opened by `initialize`, kept while it is used, given up when the server answers 404: then nothing was executed, and the
message is sent once more in a new one. What does not live here: sessions that MCP clients have through the gateway.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import TypeAlias
from uuid import UUID

from gateway.upstreams.http.errors import UpstreamError
from gateway.upstreams.http.response import UpstreamResponse
from gateway.upstreams.mcp.answers import response_to
from gateway.upstreams.mcp.messages import Message, OtherVersion, Refused, fields_of, text

VERSION = "2025-06-18"
VERSIONS = frozenset(("2024-11-05", "2025-03-26", VERSION, "2025-11-25"))
"""Those in which a tool's call reads the same; a server that speaks none of them is not called."""
CLIENT = {"name": "tollway", "version": "1"}
SESSION_ID, PROTOCOL_VERSION = b"mcp-session-id", b"mcp-protocol-version"
MOST_KEPT = 1_000

HeaderPairs: TypeAlias = list[tuple[bytes, bytes]]
Send = Callable[[bytes, bytes | None, HeaderPairs], Awaitable[UpstreamResponse]]
"""Sends a request to a publisher's MCP server: method, body and the fields that are MCP's."""
Key: TypeAlias = tuple[Hashable, UUID | None]
"""A server with what lets calls in there, and whose session it is: an account's, or (None) the gateway's own."""


@dataclass(frozen=True, slots=True)
class Session:
    """A session as the fields that name it; a server without sessions gives none."""

    id: bytes | None
    version: bytes

    @property
    def fields(self) -> HeaderPairs:
        """Return what goes with every message."""
        named = [] if self.id is None else [(SESSION_ID, self.id)]
        return [*named, (PROTOCOL_VERSION, self.version)]


class Sessions:
    """The sessions of one worker, the least recently used given up first."""

    def __init__(self, most: int) -> None:
        self._most = most  # bytes of an answer
        self._known: OrderedDict[Key, Session] = OrderedDict()
        self._locks: dict[Key, asyncio.Lock] = {}
        self._numbers = count(1)

    async def request(self, key: Key, send: Send, method: str, params: Message) -> Message:
        """Send one request and return its response, whichever it is. Raises UpstreamError."""
        async with self.asked(key, send, method, params) as (answer, number):
            return await response_to(answer, number, self._most)

    @asynccontextmanager
    async def asked(
        self, key: Key, send: Send, method: str, params: Message
    ) -> AsyncGenerator[tuple[UpstreamResponse, int]]:
        """Send one request and yield its answer, not read yet, and its id. Raises UpstreamError."""
        number = next(self._numbers)
        body = text({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        session = await self.session(key, send)
        answer = await send(b"POST", body, session.fields)
        if answer.status == 404 and session.id is not None:
            await answer.aclose()
            self.forget(key, session)
            answer = await send(b"POST", body, (await self.session(key, send)).fields)
        try:
            yield answer, number
        finally:
            await answer.aclose()

    async def end(self, key: Key, send: Send) -> None:
        """End a session that is not used again; a server that does not care is left alone."""
        session = self._known.pop(key, None)
        if session is not None and session.id is not None:
            with suppress(UpstreamError):
                await (await send(b"DELETE", None, session.fields)).aclose()

    def forget(self, key: Key, session: Session) -> None:
        """Give up a session that the server knows no more, unless there is a newer one."""
        if self._known.get(key) is session:
            del self._known[key]

    async def session(self, key: Key, send: Send) -> Session:
        """Return the session, opened by whoever comes first. Raises UpstreamError."""
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
            return known
        lock = self._locks.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                known = self._known.get(key)
                if known is None:
                    known = self._known[key] = await self._open(send)
                    while len(self._known) > MOST_KEPT:
                        self._known.popitem(last=False)
                return known
        finally:
            if not lock.locked():
                self._locks.pop(key, None)

    async def _open(self, send: Send) -> Session:
        """Shake hands. Raises UpstreamError that says that nothing was sent: nothing of a call was."""
        try:
            params = {"protocolVersion": VERSION, "capabilities": {}, "clientInfo": CLIENT}
            first = await send(b"POST", text({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}), [])
            try:
                response = await response_to(first, 0, self._most)
                if first.status != 200 or "result" not in response:
                    raise Refused("open a session", response)
                version = fields_of(response["result"]).get("protocolVersion")
                if not isinstance(version, str) or version not in VERSIONS:
                    raise OtherVersion("the server speaks no version of MCP that is known here")
                session = Session(first.field(SESSION_ID), version.encode())
            finally:
                await first.aclose()
            begun = text({"jsonrpc": "2.0", "method": "notifications/initialized"})
            await (await send(b"POST", begun, session.fields)).aclose()
        except UpstreamError as error:
            error.sent = False
            raise
        return session
