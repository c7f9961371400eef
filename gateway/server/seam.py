"""The seam between the server and whoever answers: what a handler is told, and what it may count on.

Above it connection.py parses, frames, and knows the life of a connection. Below it a handler answers one request: the
ASGI application (asgi.py, websocket.py), or whatever speaks to a `Request` directly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from gateway.errors import Problem
    from gateway.server.head import Head
    from gateway.server.request import Request

Address = tuple[str, int]


class Handler(Protocol):
    """Answers one request. It is told of what comes; all calls are from the event loop, and none may block."""

    def body_came(self) -> None:
        """More of the body is here (`Request.take`), or its end is."""

    def gone(self) -> None:
        """The client is gone: nothing that is sent from now on arrives."""


class Upgraded(Protocol):
    """Takes over a connection after 101."""

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""

    def wants_pause(self) -> bool:
        """Return whether no more should be read for now."""
        ...

    def room(self) -> None:
        """The client takes what is written again."""

    def gone(self) -> None:
        """The connection is lost."""

    def expire(self, now: float) -> None:
        """Look at the time, about every second."""


Open = Callable[["Request"], Handler]
# Says why a request is refused before anybody begins to answer it, from its head alone; None where it is not.
Shed = Callable[["Head"], "Problem | None"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a connection may take: bytes of a head and of its target, seconds until a head is here whole."""

    head: int
    target: int
    idle: float
