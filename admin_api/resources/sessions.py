"""Category `Sessions`: the logins of a person, seen and ended by a person who is logged in.

An API key is no login: it sees none and ends none, so that a key that leaked tells nobody where its owner is, and
nobody is thrown out by a program.
"""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter
from pydantic import Field

from admin_api.kit.access import ServicesDep
from admin_api.kit.body import StrictRoute
from admin_api.kit.envelope import Answer, Moment, PaginationMeta
from admin_api.kit.needs import AccountManager
from admin_api.kit.problems import refusals
from admin_api.kit.segments import SESSION
from gateway.errors import NotFound
from gateway.identity import sessions

router = APIRouter(tags=["Sessions"], route_class=StrictRoute)


class Session(Answer):
    """A login."""

    id: UUID
    created_at: Moment
    last_active_at: Moment
    expires_at: Moment
    ip_address: str | None
    user_agent: str | None
    is_current: bool


class SessionsRevoked(Answer):
    """How many logins have ended."""

    message: str
    revoked_count: int = Field(ge=0)


class SessionsRevokedResponse(Answer):
    """Envelope."""

    data: SessionsRevoked
    pagination: PaginationMeta | None = None


@router.get("/sessions", operation_id="list_sessions", responses=refusals(401))
async def list_sessions(caller: AccountManager, services: ServicesDep) -> list[Session]:
    """List your logins that have not ended, newest first. With an API key the list is empty."""
    if caller.session_id is None:
        return []
    async with services.database.acquire() as connection:
        found = await sessions.list_sessions(connection, caller.account_id)
    return [
        Session(
            id=one.id,
            created_at=one.created_at,
            last_active_at=one.last_active_at,
            expires_at=one.expires_at,
            ip_address=one.ip_address,
            user_agent=one.user_agent,
            is_current=one.id == caller.session_id,
        )
        for one in found
    ]


@router.post("/sessions/revoke-all", operation_id="revoke_all_sessions", responses=refusals(401))
async def revoke_all_sessions(caller: AccountManager, services: ServicesDep) -> SessionsRevokedResponse:
    """End all your logins, this one too. API keys stay."""
    if caller.session_id is None:
        return _revoked(0)
    return _revoked(await sessions.revoke_all(services.database, caller.account_id))


@router.delete(f"/sessions/{SESSION}", operation_id="revoke_session", responses=refusals(401, 404))
async def revoke_session(session_id: UUID, caller: AccountManager, services: ServicesDep) -> SessionsRevokedResponse:
    """End one of your logins; it may be this one."""
    if caller.session_id is None or not await sessions.revoke(services.database, caller.account_id, session_id):
        raise _unknown()
    return _revoked(1)


@router.post(f"/sessions/{SESSION}/revoke-others", operation_id="revoke_other_sessions", responses=refusals(401, 404))
async def revoke_other_sessions(
    session_id: UUID, caller: AccountManager, services: ServicesDep
) -> SessionsRevokedResponse:
    """End all your logins but the one in the path."""
    ended = None
    if caller.session_id is not None:
        ended = await sessions.revoke_others(services.database, caller.account_id, session_id)
    if ended is None:
        raise _unknown()
    return _revoked(ended)


def _unknown() -> NotFound:
    return NotFound("You have no session with this id, or it has ended.")


def _revoked(count: int) -> SessionsRevokedResponse:
    noun = "session has" if count == 1 else "sessions have"
    return SessionsRevokedResponse(data=SessionsRevoked(message=f"{count} {noun} ended.", revoked_count=count))
