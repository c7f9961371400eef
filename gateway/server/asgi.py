"""ASGI on top of the server: one task for each request, with `receive` and `send` over a `Request`.

Lives here: HTTP. WebSockets are in websocket.py, the application's start and end in worker.py. The head of an answer
waits for the first part of its body until the loop turns, so that both go out in one write.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote

from gateway.errors import InternalError, Problem
from gateway.server.head import Fields
from gateway.server.problems import problem_parts
from gateway.server.request import Request
from gateway.server.seam import Handler, Shed

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Application = Callable[[Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]
ASGI = {"version": "3.0", "spec_version": "2.3"}  # from 2.4 on, sending to a client that is gone must fail


class Asgi:
    """Hands requests on to an application."""

    def __init__(
        self,
        application: Application,
        sockets: Callable[[Asgi, Request], Handler] | None = None,
        shed: Shed | None = None,
    ) -> None:
        self.application = application
        self.tasks: set[asyncio.Task[None]] = set()
        self._sockets = sockets  # opens those that ask for a WebSocket; without it they are requests like others
        self._shed = shed
        self._create_task = asyncio.get_running_loop().create_task

    def open(self, request: Request) -> Handler:
        """Begin to answer a request."""
        problem = None if self._shed is None else self._shed(request.head)
        if problem is not None:
            refuse(request, problem, closes=not request.body_ended)  # the rest of its body is not waited for
            return NOBODY
        if request.head.websocket and self._sockets is not None:
            return self._sockets(self, request)
        call = HttpCall(self, request)
        self.run(call.run())
        return call

    def run(self, call: Any) -> None:
        """Run the application for one call, in a task of its own."""
        task: asyncio.Task[None] = self._create_task(call)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


class Nobody:
    """Stands where nobody answers a request any more."""

    def body_came(self) -> None:
        """Do nothing."""

    def gone(self) -> None:
        """Do nothing."""


NOBODY = Nobody()


def refuse(request: Request, problem: Problem, *, closes: bool) -> None:
    """Answer a request without the application, and end the connection after it where it `closes`."""
    fields, body = problem_parts(problem)
    fields.append((b"content-length", b"%d" % len(body)))
    if closes:
        fields.append((b"connection", b"close"))
    request.respond(problem.status, fields, body, end=True)


class HttpCall:
    """One request of HTTP."""

    __slots__ = ("_app", "_flush", "_request", "_start", "_told", "_waiters")

    def __init__(self, asgi: Asgi, request: Request) -> None:
        self._app = asgi.application
        self._request = request
        self._start: tuple[int, Fields] | None = None  # the head of the answer, until it goes out
        self._flush: asyncio.Handle | None = None
        self._told = False  # whether the application knows that the body has ended
        self._waiters: list[asyncio.Future[None]] = []

    async def run(self) -> None:
        """Run the application, and end what it leaves unanswered."""
        request = self._request
        try:
            await self._app(http_scope(request), self.receive, self.send)
        except asyncio.CancelledError:  # the call was cut off; nobody waits for this task
            pass
        except Exception as error:
            log.error("the application failed", exc_info=error)
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        if request.done or request.lost:
            return
        if request.responded or self._start is not None:
            self._write_head()
            request.cut()
        else:
            fields, body = problem_parts(InternalError("Something failed on our side."))
            request.respond(500, [*fields, (b"connection", b"close")], body, end=True)

    async def receive(self) -> Message:
        """Return what comes next (ASGI)."""
        request = self._request
        while not (request.lost or request.done):
            data = request.take()
            if data or (request.body_ended and not self._told):
                self._told = request.body_ended
                return {"type": "http.request", "body": data, "more_body": not request.body_ended}
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Send a part of the answer (ASGI); nothing, when nobody is there to take it: `receive` says that."""
        request, kind = self._request, message["type"]
        if request.lost:
            return
        if kind == "http.response.start":
            if self._start is not None or request.responded:
                raise RuntimeError("the answer has begun before")
            # In small letters, as ASGI has it: a Content-Length that is not seen would be a second framing.
            fields = [(name.lower(), value) for name, value in message.get("headers", ())]
            self._start = (message["status"], fields)
            self._flush = asyncio.get_running_loop().call_soon(self._write_head)
            return
        if kind != "http.response.body":
            raise RuntimeError(f"{kind} is no part of an answer")
        body, end = message.get("body", b""), not message.get("more_body", False)
        start, self._start = self._start, None
        if start is not None:
            if self._flush is not None:
                self._flush.cancel()
                self._flush = None
            request.respond(start[0], start[1], body, end=end)
        elif not request.responded:
            raise RuntimeError("the answer has not begun")
        elif not request.done:
            request.send(body, end=end)
        if request.done:
            self._wake()
        if request.full:
            await self._room()

    def body_came(self) -> None:
        """Let whoever waits for the body have it."""
        self._wake()

    def gone(self) -> None:
        """Let whoever waits for the client know."""
        self._wake()

    def _write_head(self) -> None:
        """Write the head alone: the body takes longer."""
        start, self._start, self._flush = self._start, None, None
        if start is not None and not self._request.lost:
            self._request.respond(start[0], start[1], end=False)

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _room(self) -> None:
        await room(self._request)


async def room(request: Request) -> None:
    """Wait until the client takes what was written, or is gone."""
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake() -> None:
        if not waiter.done():
            waiter.set_result(None)

    request.connection.when_room(wake)
    await waiter


def http_scope(request: Request) -> Scope:
    """Return what the application is told of a request."""
    head, connection = request.head, request.connection
    path, query = head.origin_form
    text = path.decode("ascii")
    return {
        "type": "http",
        "asgi": ASGI,
        "http_version": "1.1" if head.http_1_1 else "1.0",
        "method": head.method.decode("ascii"),
        "scheme": "https" if connection.secure else "http",
        "path": unquote(text) if "%" in text else text,
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": head.fields,
        "client": connection.client,
        "server": connection.server,
    }
