"""Who acts, and from where: known where a request comes in, asked for where a change is written down.

It travels in a context variable, so that no function between the two has to hand it on. Without a request the gateway
itself acts (`system`), or what `acting` says.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

CredentialType = Literal["api_key", "session", "operator_token", "command_line"]


@dataclass(slots=True)
class Origin:
    """An actor and its request.

    `actor_type` is the account's kind (agent, human, service), or operator, system or anonymous; `actor_id` is the
    account, `credential_id` the row of the API key or session.
    """

    actor_type: str = "system"
    actor_id: UUID | None = None
    credential_type: CredentialType | None = None
    credential_id: UUID | None = None
    ip_address: str | None = None
    user_agent: str | None = None
    request_id: str | None = None
    refused: tuple[UUID, str] | None = None
    """The organization whose member it is, and the permission that it was refused for."""


_current: ContextVar[Origin | None] = ContextVar("tollway_origin", default=None)


def origin() -> Origin:
    """Return who acts now. Who finds out (admin_api/kit/access.py) fills it in."""
    return _current.get() or Origin()


@contextmanager
def acting(who: Origin) -> Generator[Origin]:
    """Let `who` act in this block, and in tasks that are begun in it."""
    token = _current.set(who)
    try:
        yield who
    finally:
        _current.reset(token)
