"""One pipelined connection to Valkey (or Redis): RESP2 on an asyncio protocol, parsed by hiredis.

Commands do not wait for each other's replies, which are matched in order. A server that closes, hangs or talks nonsense
fails every pending command with `ValkeyUnavailable`, so a caller waits for the command timeout at most and never
forever. The next command reconnects; when that fails, commands fail at once until a growing pause is over.
What does not live here: what is sent (gcra.py) and what to do without it (limiter.py).
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis

from gateway.settings import RedisSettings

Argument = bytes | str | int
_NOTHING = object()
# hiredis annotates neither the length of the tuple nor the result.
_pack = cast("Callable[[tuple[Argument, ...]], bytes]", hiredis.pack_command)  # pyright: ignore[reportUnknownMemberType]
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 0.5
LAST_LOOK = 0.002


class ValkeyUnavailable(Exception):
    """Valkey cannot be reached, closed the connection or did not answer in time. The command may have run."""


class ValkeyRefused(Exception):
    """Valkey answered with an error. `code` is its first word (NOSCRIPT, OOM, READONLY...)."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = message.partition(" ")[0]


@dataclass(frozen=True, slots=True)
class Address:
    """Where Valkey listens and how to log in. The password is kept out of repr and of every error text."""

    host: str = ""
    port: int = 6379
    path: str = ""
    tls: bool = False
    database: int = 0
    user: str = ""
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"unix://{self.path}" if self.path else f"{'rediss' if self.tls else 'redis'}://{self.host}:{self.port}"

    def greeting(self) -> list[tuple[Argument, ...]]:
        """Return the commands that open a session."""
        commands: list[tuple[Argument, ...]] = []
        if self.password:
            commands.append((b"AUTH", self.user, self.password) if self.user else (b"AUTH", self.password))
        if self.database:
            commands.append((b"SELECT", self.database))
        return commands


def parse(url: str) -> Address:
    """Read redis://[user:password@]host[:port][/database], rediss:// (TLS) or unix://[user:password@]/path[?db=n].

    Raises ValueError, whose text leaves the URL out because it may hold a password.
    """
    parts = urlsplit(url)
    try:
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        if parts.scheme == "unix":
            database = int(parse_qs(parts.query).get("db", ["0"])[0])
            return Address(path=unquote(parts.path), database=database, user=user, password=password)
        if parts.scheme not in ("redis", "rediss"):
            raise ValueError("scheme")
        return Address(
            host=parts.hostname or "127.0.0.1",
            port=parts.port or 6379,
            tls=parts.scheme == "rediss",
            database=int(parts.path.strip("/") or 0),
            user=user,
            password=password,
        )
    except ValueError:
        raise ValueError(
            "redis.url: use redis://[user:password@]host:port/database, rediss:// or unix:///path"
        ) from None


def parse_nodes(url: str) -> list[Address]:
    """Read redis+cluster://[user:password@]host:port,host:port or rediss+cluster://.

    Raises ValueError, whose text leaves the URL out.
    """
    scheme, _, rest = url.partition("+cluster://")
    login, at, hosts = rest.rstrip("/").rpartition("@")
    try:
        if scheme not in ("redis", "rediss") or not hosts or set(hosts) & set("/?#"):
            raise ValueError("form")
        return [parse(f"{scheme}://{login}{at}{host}") for host in hosts.split(",")]
    except ValueError:
        raise ValueError(
            "redis.url: use redis+cluster://[user:password@]host:port,host:port or rediss+cluster://"
        ) from None


class _Session(asyncio.Protocol):
    """One connection's life: commands in order out, replies in order in, then lost for good."""

    def __init__(self, timeout: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeout = timeout
        self._transport: asyncio.Transport | None = None
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._pending: deque[tuple[asyncio.Future[object], float]] = deque()
        self._watch: asyncio.TimerHandle | None = None
        self._closed = self._loop.create_future()
        self.lost = False

    @property
    def usable(self) -> bool:
        """Say whether a command may be written. After the server's end of stream uvloop's write would raise."""
        return not self.lost and self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self.lost:  # given up while the connection was being made
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _NOTHING:
                self._resolve(reply)
        except (hiredis.ProtocolError, IndexError):
            self.abort("Valkey sent something that is not an answer")

    def connection_lost(self, exc: Exception | None) -> None:
        self.abort(f"Valkey closed the connection ({exc or 'end of stream'})")
        if not self._closed.done():
            self._closed.set_result(None)

    def send(self, command: tuple[Argument, ...]) -> asyncio.Future[object]:
        """Write a command and return the future of its reply."""
        future: asyncio.Future[object] = self._loop.create_future()
        if self._transport is None or not self.usable:
            future.set_exception(ValkeyUnavailable("Valkey closed the connection"))
            return future
        # No outbox of our own: uvloop already joins the writes of one turn, and waiting a turn costs a lone batch 10 %.
        self._transport.write(_pack(command))
        self._pending.append((future, self._loop.time() + self._timeout))
        if self._watch is None:
            # One timer for the oldest command instead of one per command; it re-arms itself for the next oldest.
            self._watch = self._loop.call_later(self._timeout, self._check_oldest)
        return future

    def abort(self, reason: str) -> None:
        """Fail everything that waits and drop the connection. Later calls do nothing."""
        if self.lost:
            return
        self.lost = True
        if self._watch is not None:
            self._watch.cancel()
        if self._transport is not None:
            self._transport.abort()
        for future, _ in self._pending:
            if not future.done():
                future.set_exception(ValkeyUnavailable(reason))
        self._pending.clear()

    async def close(self) -> None:
        """Drop the connection and wait until its socket is closed."""
        self.abort("the connection to Valkey was closed by us")
        if self._transport is not None:
            await self._closed

    def _resolve(self, reply: object) -> None:
        future, _ = self._pending.popleft()
        if future.done():
            return  # its caller was cancelled; the reply still had to be counted
        if isinstance(reply, hiredis.ReplyError):
            future.set_exception(ValkeyRefused(str(reply)))
        else:
            future.set_result(reply)

    def _check_oldest(self) -> None:
        self._watch = None
        if not self._pending:
            return
        oldest, until = self._pending[0]
        wait = until - self._loop.time()
        if wait > 0:
            self._watch = self._loop.call_later(wait, self._check_oldest)
        else:
            # Perhaps it was this loop that stood still: then the answer is there, and is read before timers run again.
            self._watch = self._loop.call_later(LAST_LOOK, self._give_up, oldest)

    def _give_up(self, overdue: asyncio.Future[object]) -> None:
        self._watch = None
        if self._pending and self._pending[0][0] is overdue:
            # Replies come in order: when the oldest is overdue, all behind it are lost too.
            self.abort(f"Valkey did not answer within {self._timeout:g} s")
        else:
            self._check_oldest()


class Valkey:
    """The connection as callers see it: `execute` connects when needed and pipelines by itself."""

    def __init__(self, settings: RedisSettings, address: Address | None = None) -> None:
        self.address = address or parse(settings.url)
        self._connect_timeout = settings.connect_timeout
        self._command_timeout = settings.command_timeout
        self._tls = ssl.create_default_context() if self.address.tls else None
        self._session: _Session | None = None
        self._connecting: asyncio.Task[_Session] | None = None
        self._pause = 0.0
        self._not_before = 0.0

    async def connect(self) -> None:
        """Connect if needed, with the connect timeout. Raises ValkeyUnavailable."""
        if self._session is None or not self._session.usable:
            await self._connected(self._connect_timeout)

    async def execute(self, *command: Argument) -> object:
        """Send one command and return its reply. Raises ValkeyUnavailable or ValkeyRefused.

        Reconnects when the connection was lost, but waits for that no longer than for a reply: callers of the hot path
        stand behind this. The attempt itself goes on and serves a later command.
        """
        session = self._session
        if session is None or not session.usable:
            session = await self._connected(self._command_timeout)
        return await session.send(command)

    async def send(self, commands: Sequence[tuple[Argument, ...]]) -> list[asyncio.Future[object]]:
        """Send commands together and return the futures of their replies. Raises ValkeyUnavailable; so may they."""
        session = self._session
        if session is None or not session.usable:
            session = await self._connected(self._command_timeout)
        return [session.send(command) for command in commands]

    async def ask(self, *command: Argument) -> object:
        """Send one command to a node that is only being given its slot. Raises what `execute` does."""
        # The permission holds for the very next command of the connection.
        _, reply = await asyncio.gather(*await self.send([(b"ASKING",), command]))
        return reply

    async def close(self) -> None:
        """Close the connection; pending commands fail. The next `execute` would open a new one."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _connected(self, patience: float) -> _Session:
        """Return an open session. All who wait share one attempt; a caller that gives up does not end it."""
        attempt = self._connecting
        if attempt is None:
            if asyncio.get_running_loop().time() < self._not_before:
                raise ValkeyUnavailable(f"{self.address} could not be reached a moment ago")
            attempt = self._connecting = asyncio.create_task(self._connect())
            attempt.add_done_callback(self._connect_ended)
        try:
            async with asyncio.timeout(patience):
                return await asyncio.shield(attempt)
        except TimeoutError:
            raise ValkeyUnavailable(f"{self.address}: no connection within {patience:g} s") from None
        except asyncio.CancelledError:
            if not attempt.cancelled():
                raise  # we were cancelled, not the attempt
            raise ValkeyUnavailable("the connection to Valkey was closed by us") from None

    def _connect_ended(self, task: asyncio.Task[_Session]) -> None:
        self._connecting = None
        if task.cancelled():
            return
        if task.exception() is None:
            self._session, self._pause = task.result(), 0.0
            return
        self._pause = min(max(self._pause * 2, FIRST_PAUSE), LONGEST_PAUSE)
        self._not_before = asyncio.get_running_loop().time() + self._pause

    async def _connect(self) -> _Session:
        session = _Session(self._command_timeout)
        try:
            async with asyncio.timeout(self._connect_timeout):
                await self._open(session)
                for reply in [session.send(command) for command in self.address.greeting()]:
                    await reply
        except (OSError, TimeoutError, ValkeyUnavailable, ValkeyRefused) as error:
            await session.close()
            raise ValkeyUnavailable(f"{self.address}: {_reason(error)}") from None
        except BaseException:
            await session.close()  # cancelled: the socket must not outlive the attempt
            raise
        return session

    async def _open(self, session: _Session) -> None:
        loop, address = asyncio.get_running_loop(), self.address
        if address.path:
            await loop.create_unix_connection(lambda: session, address.path)
        else:
            await loop.create_connection(lambda: session, address.host, address.port, ssl=self._tls)


def _reason(error: BaseException) -> str:
    return "no connection in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
