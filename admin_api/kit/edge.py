"""The outermost layer of the admin API: request ids, the body bound, and the last word on faults.

Plain ASGI. Every answer carries X-Request-Id, which a problem repeats as `instance` and the log as `request`. An
unexpected exception is logged whole and answered with nothing but that id. What does not live here: problems that the
routes raise themselves (problems.py).
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from admin_api.kit.problems import problem_response
from gateway.audit.origin import Origin, acting
from gateway.database.pool import LOST
from gateway.dates import http_date
from gateway.errors import InternalError, PayloadTooLarge, Problem, RequestTimeout, Unavailable
from gateway.identity.clients import networks, whole_address
from gateway.ids import uuid7
from gateway.proxy.browsers import opens, readable
from gateway.proxy.framing import CLOSE, check_head
from gateway.proxy.unread import end_answer, may_come
from gateway.telemetry.logging import of

log = logging.getLogger(__name__)

BODY_LIMIT = 1_048_576
LARGE_LIMIT = 2_097_152
LARGE = ("/logo", "/import-openapi")


def request_id(scope: Any) -> str:
    """Return the id of a request, made on first use."""
    state = scope.setdefault("state", {})
    if "request_id" not in state:
        state["request_id"] = str(uuid7())
    return state["request_id"]


class Edge:
    """Wraps the application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection scope."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        identity, body = request_id(scope), _Body(scope, receive)
        begun, open_to_pages = False, scope["app"].state.services.settings.proxy.cors and opens(scope)
        without_body = scope["method"] == "HEAD"
        if without_body:
            # RFC 9110 section 9.3.2: what GET would answer, without its content. The routes know GET only.
            scope = {**scope, "method": "GET"}

        async def answer(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = _completed(list(message.get("headers", [])), identity)
                message["headers"] = readable(headers) if open_to_pages else headers
            elif without_body and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            if body.left and message["type"] == "http.response.body" and not message.get("more_body"):
                await end_answer(send, receive, message.get("body", b""))
            else:
                await send(message)

        try:
            check_head(scope)
            body.begin()
            with acting(_origin(scope, identity)):
                await self._app(scope, body.receive, answer)
        except ClientDisconnect:
            return
        except Exception as error:
            # A fault once the answer has begun cannot be told any more: let the server cut the connection.
            if begun:
                raise
            # Not kept by a name: its traceback leads to this frame, and such a ring would keep `receive` (body.py).
            await problem_response(_problem(error, scope, identity), identity)(scope, body.receive, answer)


def _origin(scope: Scope, identity: str) -> Origin:
    """Return who asks, for the audit log: nobody known yet (access.py finds out), from where."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    forwarded = [value.decode("latin-1") for name, value in headers if name == b"x-forwarded-for"]
    agent = next((value.decode("latin-1") for name, value in headers if name == b"user-agent"), None)
    peer, trusted = scope.get("client"), scope["app"].state.services.settings.server.trusted_proxies
    address = whole_address(peer[0] if peer else None, forwarded, networks(trusted))
    return Origin(
        "anonymous", ip_address=None if address is None else str(address), user_agent=agent, request_id=identity
    )


def _completed(fields: list[tuple[bytes, bytes]], identity: str) -> list[tuple[bytes, bytes]]:
    """Add the date and the request id, and forbid storing what says nothing about it: keys and codes are shown once."""
    if not any(name.lower() == b"cache-control" for name, _ in fields):
        fields.append((b"cache-control", b"no-store"))
    return [*fields, (b"date", http_date()), (b"x-request-id", identity.encode())]


def _problem(error: Exception, scope: Scope, identity: str) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, LOST):
        log.warning("the database was lost: %s", type(error).__name__, extra=of(identity))
        return Unavailable(
            "The database was lost during this request. See whether it took effect before you repeat it."
        )
    log.error("%s %s failed", scope["method"], scope["path"], exc_info=error, extra=of(identity))
    return InternalError("Something went wrong on our side. Quote the request id when you report it.")


class _Body:
    """The request's body on its way in, bounded. `left` says whether some of it is still to come."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._fields: dict[bytes, bytes] = dict(scope["headers"])
        self._receive = receive
        self._limit = LARGE_LIMIT if scope["path"].endswith(LARGE) else BODY_LIMIT
        self._size = 0
        self.left = False
        self._patience = float(scope["app"].state.services.settings.proxy.body_timeout)
        self._ends = 0.0

    def begin(self) -> None:
        """Expect what the (sound) head announces. Raises PayloadTooLarge."""
        self.left = may_come(self._fields)
        self._ends = asyncio.get_running_loop().time() + self._patience
        announced = self._fields.get(b"content-length", b"0")
        if len(announced) > 15 or not announced.isdigit() or int(announced) > self._limit:
            raise self._too_large()

    async def receive(self) -> Message:
        """Receive a message. Raises PayloadTooLarge, or RequestTimeout while a body is on its way."""
        try:
            async with asyncio.timeout_at(self._ends if self.left else None):
                message = await self._receive()
        except TimeoutError:
            raise RequestTimeout(f"The body did not come within {self._patience:g} s.", headers=CLOSE) from None
        self.left = message.get("more_body", False)
        self._size += len(message.get("body", b""))
        if self._size > self._limit:
            raise self._too_large()
        return message

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(f"The body must be at most {self._limit} bytes.", limit=self._limit)
