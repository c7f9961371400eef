"""Sessions of people: opening, refreshing and ending them, and recognising their access tokens.

A login opens a session with two tokens. The access token lives for minutes and is looked up for each request, so that
an end holds everywhere with its commit and no cache has to be told. The refresh token works once and brings the next
pair; one that is shown a second time ends the session, since one of the two who showed it is a thief.

What does not live here: proving who somebody is (people.py), cookies (admin_api/kit/cookies.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from gateway.database.pool import Connection, Database
from gateway.database.statement import Command, Statement
from gateway.errors import Unauthenticated
from gateway.identity.principals import Principal
from gateway.identity.tokens import TokenKind, hash_of, new_token
from gateway.identity.trail import note
from gateway.ids import uuid7
from gateway.settings import SessionSettings
from gateway.suspensions import Suspension, demand_account

EndedBy = Literal["logout", "revoked", "reuse", "password"]
KEEP_ENDED = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long an access token and a session last."""

    access: timedelta
    session: timedelta

    @staticmethod
    def of(settings: SessionSettings) -> Lifetimes:
        """Return the lifetimes that are configured."""
        return Lifetimes(timedelta(seconds=settings.access), timedelta(seconds=settings.lifetime))


@dataclass(frozen=True, slots=True)
class Client:
    """Who opened a session, as its owner sees it in the list."""

    ip_address: str | None
    user_agent: str | None


@dataclass(frozen=True, slots=True)
class Opened:
    """A session with a fresh pair of tokens, which go to its owner and are kept nowhere."""

    session_id: UUID
    account_id: UUID
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_in: int
    lasts: int
    """Seconds until the session ends, whatever is refreshed."""


@dataclass(frozen=True, slots=True)
class Session:
    """A session as its owner sees it."""

    id: UUID
    created_at: datetime
    last_active_at: datetime
    expires_at: datetime
    ip_address: str | None
    user_agent: str | None


@dataclass(frozen=True, slots=True)
class _Found:
    session_id: UUID
    account_id: UUID
    organization_id: UUID
    name: str
    kind: str
    idle: bool
    suspension: dict[str, str] | None
    frozen: dict[str, str] | None


@dataclass(frozen=True, slots=True)
class _Shown:
    """A refresh token that was shown, with its session, both locked."""

    session_id: UUID
    account_id: UUID
    used: bool
    lasts: int


INSERT_SESSION = Command(
    """
    INSERT INTO identity.session (id, account_id, expires_at, ip_address, user_agent)
    VALUES ($1, $2, now() + $3::interval, $4, $5)
    """
)
INSERT_TOKEN = Command(
    """
    INSERT INTO identity.session_token (hash, session_id, kind, expires_at)
    SELECT $1, s.id, $3, least(s.expires_at, now() + $4::interval) FROM identity.session s WHERE s.id = $2
    """
)
FIND_ACCESS = Statement(
    """
    SELECT s.id AS session_id, s.account_id, a.name, a.kind, s.last_active_at < now() - interval '1 minute' AS idle,
           coalesce((SELECT o.id FROM identity.membership m JOIN identity.organization o ON o.id = m.organization_id
                      WHERE m.account_id = a.id AND o.deleted_at IS NULL
                      ORDER BY o.is_personal DESC, m.created_at, o.id LIMIT 1), a.id) AS organization_id,
           identity.suspension_of(NULL, a.id, NULL) AS suspension, identity.suspension_of_wallet(a.id) AS frozen
      FROM identity.session_token t
      JOIN identity.session s ON s.id = t.session_id
      JOIN identity.account a ON a.id = s.account_id
     WHERE t.hash = $1 AND t.kind = 'access' AND t.expires_at > now()
       AND s.ended_at IS NULL AND s.expires_at > now() AND a.status = 'active'
    """,
    _Found,
)
TOUCH = Command(
    "UPDATE identity.session SET last_active_at = now() WHERE id = $1 AND last_active_at < now() - interval '1 minute'"
)
# Of two who show one token at the same moment the second waits here, and then finds it used.
LOCK_REFRESH = Statement(
    """
    SELECT s.id AS session_id, s.account_id, t.used_at IS NOT NULL AS used,
           ceil(extract(epoch FROM s.expires_at - now()))::int AS lasts
      FROM identity.session_token t
      JOIN identity.session s ON s.id = t.session_id
      JOIN identity.account a ON a.id = s.account_id
     WHERE t.hash = $1 AND t.kind = 'refresh' AND s.ended_at IS NULL AND s.expires_at > now() AND a.status = 'active'
       FOR UPDATE OF t, s
    """,
    _Shown,
)
USE_REFRESH = Command("UPDATE identity.session_token SET used_at = now() WHERE hash = $1")
REFRESHED = Command("UPDATE identity.session SET last_active_at = now() WHERE id = $1")
LIST_SESSIONS = Statement(
    """
    SELECT id, created_at, last_active_at, expires_at, ip_address, user_agent FROM identity.session
     WHERE account_id = $1 AND ended_at IS NULL AND expires_at > now() ORDER BY created_at DESC, id DESC
    """,
    Session,
)
IS_LIVE = Statement(
    """
    SELECT true FROM identity.session
     WHERE account_id = $1 AND id = $2 AND ended_at IS NULL AND expires_at > now() FOR SHARE
    """,
    bool,
    scalar=True,
)
END_ONE = Command(
    """
    UPDATE identity.session SET ended_at = now(), ended_by = $3
     WHERE account_id = $1 AND id = $2 AND ended_at IS NULL AND expires_at > now()
    """
)
END_BUT = Command(
    """
    UPDATE identity.session SET ended_at = now(), ended_by = $3
     WHERE account_id = $1 AND id IS DISTINCT FROM $2::uuid AND ended_at IS NULL AND expires_at > now()
    """
)
# Tokens go with their session; used refresh tokens stay until then.
FORGET_TOKENS = Command(
    "DELETE FROM identity.session_token WHERE kind = 'access' AND expires_at < now() - interval '1 day'"
)
FORGET_SESSIONS = Command(
    "DELETE FROM identity.session WHERE expires_at < now() - $1::interval OR ended_at < now() - $1::interval"
)


def refused_login() -> Unauthenticated:
    """Return the refusal of an access or refresh token, which does not tell why."""
    return Unauthenticated("This login has ended, or there was none. Log in again: POST /auth/login.")


async def open_session(connection: Connection, account_id: UUID, client: Client, lifetimes: Lifetimes) -> Opened:
    """Open a session. Nothing that the client brought along has a part in it, so none can be planted on somebody.

    Raises Suspended: whoever has proven to be the account's owner is told why it opens nothing.
    """
    await demand_account(connection, account_id)
    session_id = uuid7()
    await INSERT_SESSION.run(
        connection, session_id, account_id, lifetimes.session, client.ip_address, client.user_agent
    )  # fmt: skip
    return await _new_pair(connection, session_id, account_id, int(lifetimes.session.total_seconds()), lifetimes)


async def refresh(database: Database, token: str, lifetimes: Lifetimes) -> Opened:
    """Return the next pair of tokens for a refresh token. A used one ends its session.

    Raises Unauthenticated, or Suspended; then the token is as good as before.
    """
    digest = hash_of(TokenKind.REFRESH, token)
    if digest is None:
        raise refused_login()
    async with database.transaction() as connection:
        shown = await LOCK_REFRESH.first(connection, digest)
        if shown is not None and not shown.used:
            await demand_account(connection, shown.account_id)
            await USE_REFRESH.run(connection, digest)
            await REFRESHED.run(connection, shown.session_id)
            return await _new_pair(connection, shown.session_id, shown.account_id, shown.lasts, lifetimes)
        if shown is not None:
            await END_ONE.run(connection, shown.account_id, shown.session_id, "reuse")
            await note(connection, "session.revoke", shown.account_id, shown.session_id, by="reuse")
    # Outside of the transaction: what was ended stays ended.
    raise refused_login()


async def principal_of(database: Database, token: str) -> Principal:
    """Return who an access token belongs to. Raises Unauthenticated; all failures read alike. Raises Suspended."""
    digest = hash_of(TokenKind.ACCESS, token)
    found = None if digest is None else await database.read(lambda connection: FIND_ACCESS.first(connection, digest))
    if found is None:
        raise refused_login()
    suspension = Suspension.read(found.suspension)
    if suspension is not None:
        raise suspension.refusal()
    if found.idle:
        async with database.acquire() as connection:
            await TOUCH.run(connection, found.session_id)
    # A session stands where a key does: limits count by it, and as a key it is nobody's.
    return Principal(
        found.account_id, found.organization_id, found.session_id, f"session-{found.session_id.hex}", found.name,
        found.kind, session_id=found.session_id, frozen=Suspension.read(found.frozen),
    )  # fmt: skip


async def demand_live(connection: Connection, caller: Principal) -> None:
    """Hold the caller's session for this transaction: it ends before or afterwards. Raises Unauthenticated."""
    if not await IS_LIVE.first(connection, caller.account_id, caller.session_id):
        raise refused_login()


async def list_sessions(connection: Connection, account_id: UUID) -> list[Session]:
    """Return the sessions of an account that have not ended, newest first."""
    return await LIST_SESSIONS.all(connection, account_id)


async def log_out(database: Database, account_id: UUID, session_id: UUID) -> None:
    """End the session that asks for it."""
    async with database.transaction() as connection:
        if await END_ONE.run(connection, account_id, session_id, "logout"):
            await note(connection, "session.revoke", account_id, session_id, by="logout")


async def revoke(database: Database, account_id: UUID, session_id: UUID) -> bool:
    """End a session of an account; False when it has none with this id."""
    async with database.transaction() as connection:
        ended = await END_ONE.run(connection, account_id, session_id, "revoked") > 0
        if ended:
            await note(connection, "session.revoke", account_id, session_id)
    return ended


async def revoke_others(database: Database, account_id: UUID, kept: UUID) -> int | None:
    """End all sessions of an account but one, and return how many; None when that one is not the account's."""
    async with database.transaction() as connection:
        if not await IS_LIVE.first(connection, account_id, kept):
            return None
        ended = await END_BUT.run(connection, account_id, kept, "revoked")
        await note(connection, "session.revoke_others", account_id, kept, ended=ended)
    return ended


async def revoke_all(database: Database, account_id: UUID) -> int:
    """End every session of an account, as its owner asks, and return how many."""
    async with database.transaction() as connection:
        ended = await end_all(connection, account_id, "revoked")
        await note(connection, "session.revoke_all", account_id, account_id, ended=ended)
    return ended


async def end_all(connection: Connection, account_id: UUID, by: EndedBy) -> int:
    """End every session of an account in the transaction of what makes it necessary, and return how many."""
    return await END_BUT.run(connection, account_id, None, by)


async def forget_old(database: Database) -> None:
    """Remove what nobody can use or ask about any more."""
    async with database.acquire() as connection:
        await FORGET_TOKENS.run(connection)
        await FORGET_SESSIONS.run(connection, KEEP_ENDED)


async def _new_pair(
    connection: Connection, session_id: UUID, account_id: UUID, lasts: int, lifetimes: Lifetimes
) -> Opened:
    access, following = new_token(TokenKind.ACCESS), new_token(TokenKind.REFRESH)
    for token, kind, lifetime in ((access, "access", lifetimes.access), (following, "refresh", lifetimes.session)):
        await INSERT_TOKEN.run(connection, token.hash, session_id, kind, lifetime)
    expires_in = min(int(lifetimes.access.total_seconds()), lasts)
    return Opened(session_id, account_id, access.text, following.text, expires_in, lasts)
