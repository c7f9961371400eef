"""The outermost layer of the admin API: request ids, the body bound, and the last word on faults.

Plain ASGI. Every answer carries X-Request-Id, which a problem repeats as `instance` and the log as `request`. An
unexpected exception is logged whole and answered with nothing but that id. What does not live here: problems that the
routes raise themselves (problems.py).
"""

from __future__ import annotations

import logging
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from admin_api.kit.problems import problem_response
from gateway.database.pool import LOST
from gateway.errors import InternalError, PayloadTooLarge, Problem, Unavailable
from gateway.ids import uuid7
from gateway.proxy.framing import check_head

log = logging.getLogger(__name__)

BODY_LIMIT = 1_048_576
LOGO_LIMIT = 2_097_152


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
        identity = request_id(scope)
        begun = False
        without_body = scope["method"] == "HEAD"
        if without_body:
            # RFC 9110 section 9.3.2: what GET would answer, without its content. The routes know GET only.
            scope = {**scope, "method": "GET"}

        async def answer(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message["headers"] = _completed(list(message.get("headers", [])), identity)
            elif without_body and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        try:
            check_head(scope)
            _refuse_announced(scope)
            await self._app(scope, _bounded(scope, receive), answer)
        except ClientDisconnect:
            return
        except Exception as error:
            # A fault once the answer has begun cannot be told any more: let the server cut the connection.
            if begun:
                raise
            problem = _problem(error, scope, identity)
            await problem_response(problem, identity)(scope, receive, answer)


def _completed(fields: list[tuple[bytes, bytes]], identity: str) -> list[tuple[bytes, bytes]]:
    """Add the request id, and forbid storing what says nothing about it: keys and codes are shown once, to one."""
    if not any(name.lower() == b"cache-control" for name, _ in fields):
        fields.append((b"cache-control", b"no-store"))
    return [*fields, (b"x-request-id", identity.encode())]


def _problem(error: Exception, scope: Scope, identity: str) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, LOST):
        log.warning("request %s: the database was lost: %s", identity, type(error).__name__)
        return Unavailable(
            "The database was lost during this request. See whether it took effect before you repeat it."
        )
    log.error("request %s: %s %s failed", identity, scope["method"], scope["path"], exc_info=error)
    return InternalError("Something went wrong on our side. Quote the request id when you report it.")


def _limit(scope: Scope) -> int:
    return LOGO_LIMIT if scope["path"].endswith("/logo") else BODY_LIMIT


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The body must be at most {limit} bytes.", limit=limit)


def _refuse_announced(scope: Scope) -> None:
    for name, value in scope["headers"]:
        if name == b"content-length" and (len(value) > 15 or not value.isdigit() or int(value) > _limit(scope)):
            raise _too_large(_limit(scope))


def _bounded(scope: Scope, receive: Receive) -> Receive:
    limit, size = _limit(scope), 0

    async def bounded() -> Message:
        nonlocal size
        message = await receive()
        if message["type"] == "http.request":
            size += len(message.get("body", b""))
            if size > limit:
                raise _too_large(limit)
        return message

    return bounded
