"""From an Authorization header to a principal: parse, look up, compare in constant time, cache.

A key is `seren_<key_id>_<secret>`; the database holds sha256(secret). Found keys are cached in each worker: a
revocation reaches the cache by NOTIFY at its commit, and while the listener is away entries live at most
STALE_SECONDS, so that "revoked" is honoured everywhere within a second. Unknown keys are cached too, briefly and
bounded, so that guessing does not become a database load.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from gateway.database.pool import Database
from gateway.database.statement import Command, Statement
from gateway.errors import Unauthenticated, Unavailable
from gateway.identity import budgets
from gateway.identity.budgets import KeyBudget
from gateway.identity.clients import Network
from gateway.plans import Plan, Plans
from gateway.suspensions import Suspension

KEY = re.compile(r"seren_([0-9a-f]{16})_([A-Za-z0-9]{43})", re.ASCII)
BEARER = re.compile(rb"[Bb]earer seren_([0-9a-f]{16})_([A-Za-z0-9]{43})")  # as nearly everybody writes it
ACCESS_PREFIX = "seren_access_"
FRESH_SECONDS = 300.0
STALE_SECONDS = 1.0
UNKNOWN_SECONDS = 5.0
AWAY_SECONDS = 600.0  # how long a known key goes on without a database
ASK_SECONDS, ASK_AGAIN_SECONDS = 1.0, 2.0  # how long one is asked for a known key, and how often while it is away
CACHE_SIZE = 20_000

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller who has proven who it is. `organization_id` is what its key belongs to, `budget` what it may spend.

    `scopes` are what its key may do, None for all that its account may. A `confined` key, one of a shared organization,
    acts in that one only, and `addresses` are where it may be used from, None for anywhere. A person who logged in has
    a `session_id` instead of a key, and the session in the key's place. `plan` is that of the key's organization, where
    it limits calls.
    """

    account_id: UUID
    organization_id: UUID
    api_key_id: UUID
    key_id: str
    name: str
    kind: str
    budget: KeyBudget | None = None
    session_id: UUID | None = None
    scopes: frozenset[str] | None = None
    confined: bool = False
    addresses: tuple[Network, ...] | None = None
    plan: Plan | None = None
    frozen: Suspension | None = None
    """The suspension of its wallet: it buys nothing."""


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What the database says of a key."""

    api_key_id: UUID
    key_id: str
    secret_hash: bytes
    organization_id: UUID
    account_id: UUID
    name: str
    kind: str
    expires_at: datetime | None
    budget: list[str | None] | None
    scopes: list[str] | None
    confined: bool
    addresses: list[Network] | None
    plan_id: UUID | None
    plan_terms: dict[str, Any] | None
    plan_ends_at: datetime | None
    suspension: dict[str, str] | None
    frozen: dict[str, str] | None

    def knows(self, secret: bytes) -> bool:
        """Return whether a secret is this key's; how long that takes tells nothing."""
        return hmac.compare_digest(hashlib.sha256(secret).digest(), self.secret_hash)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A fresh API key. `text` is shown to its owner once and kept nowhere."""

    text: str
    key_id: str
    secret_hash: bytes


@dataclass(slots=True)
class _Entry:
    record: KeyRecord | None
    principal: Principal | None
    loaded: float
    suspension: Suspension | None = None


FIND_KEY = Statement(
    """
    SELECT k.id AS api_key_id, k.key_id, k.secret_hash, k.organization_id, k.account_id, a.name, a.kind, k.expires_at,
           k.budget, k.scopes, NOT (o.is_personal AND o.created_by = k.account_id) AS confined, k.addresses,
           p.plan_id, p.terms AS plan_terms, p.ends_at AS plan_ends_at,
           identity.suspension_of(k.id, k.account_id, k.organization_id) AS suspension,
           identity.suspension_of_wallet(k.account_id) AS frozen
      FROM identity.api_key k
      JOIN identity.account a ON a.id = k.account_id
      JOIN identity.organization o ON o.id = k.organization_id
      JOIN identity.membership m ON m.organization_id = k.organization_id AND m.account_id = k.account_id
      LEFT JOIN identity.plan_now p ON p.organization_id = k.organization_id
     WHERE k.key_id = $1 AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
       AND a.status = 'active' AND o.deleted_at IS NULL
    """,
    KeyRecord,
)
TOUCH_KEYS = Command(
    """
    UPDATE identity.api_key SET last_used_at = now()
     WHERE key_id = ANY ($1::text[]) AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')
    """
)


def new_key() -> NewKey:
    """Make a key with a 64-bit public id and 256 bits of secret."""
    key_id = secrets.token_hex(8)
    secret = "".join(secrets.choice(_ALPHABET) for _ in range(43))
    return NewKey(f"seren_{key_id}_{secret}", key_id, hashlib.sha256(secret.encode()).digest())


def access_token_in(authorization: str | None) -> str | None:
    """Return the access token of an Authorization field value, None where it has none; it may be nobody's."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip().startswith(ACCESS_PREFIX) else None


def refused_key() -> Unauthenticated:
    """Return the refusal of a key, which does not tell why."""
    return Unauthenticated("The API key is unknown, expired or revoked. Send `Authorization: Bearer seren_…`.")


def buys_nothing() -> Unauthenticated:
    """Return the refusal of an access token where a key is asked for; it says nothing of whether the token is good."""
    return Unauthenticated(
        "A login buys nothing: make an API key (POST /organizations/default/api-keys) and call by it."
    )


class Identities:
    """Resolves API keys to principals. One per worker. `plans` are those that limit calls; None: none do."""

    def __init__(
        self, database: Database, plans: Plans | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._plans = plans
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._used: set[str] = set()
        self._changes = 0
        self._ask_from = 0.0
        self.listening = False
        self.hits = 0
        self.misses = 0

    def known(self, authorization: bytes) -> Principal | None:
        """Return the principal of an Authorization field that the cache vouches for, else None: then `resolve` it."""
        match = BEARER.fullmatch(authorization)
        entry = self._entries.get(match[1].decode("ascii")) if match is not None else None
        if match is None or entry is None or entry.suspension is not None or self._is_old(entry):
            return None
        record = entry.record
        if record is None or record.expires_at is not None:
            return None
        if not record.knows(match[2]):
            return None
        self.hits += 1
        self._used.add(record.key_id)
        return entry.principal

    async def resolve(self, authorization: str | None) -> Principal:
        """Return the principal of an Authorization field value. Raises Unauthenticated; all failures read alike.

        Raises Suspended for a good key that an operator has stopped: its holder is told why.
        """
        if authorization is None:
            raise Unauthenticated(
                "This needs an API key: send `Authorization: Bearer seren_…`. POST /auth/agent makes one."
            )
        scheme, _, token = authorization.partition(" ")
        match = KEY.fullmatch(token.strip()) if scheme.lower() == "bearer" else None
        if match is None:
            raise refused_key() if access_token_in(authorization) is None else buys_nothing()
        key_id, secret = match[1], match[2]
        entry = self._entries.get(key_id)
        if entry is None or entry.record is None:
            entry = await self._load(key_id) if entry is None or self._is_old(entry) else entry
        elif self._is_old(entry):
            entry = await self._renew(key_id, entry)
        else:
            self.hits += 1
        record = entry.record
        if record is None or entry.principal is None or not record.knows(secret.encode()):
            raise refused_key()
        if record.expires_at is not None and record.expires_at <= datetime.now(UTC):
            raise refused_key()
        if entry.suspension is not None:
            raise entry.suspension.refusal()
        self._used.add(key_id)
        return entry.principal

    async def suspended(self, key_id: str) -> bool:
        """Return whether a key is suspended, by itself or with its account or organization."""
        entry = self._entries.get(key_id)
        if entry is None or self._is_old(entry):
            entry = await self._load(key_id)
        return entry.suspension is not None or (entry.principal is not None and entry.principal.frozen is not None)

    @property
    def changes(self) -> int:
        """Return a number that grows with each change that the cache was told of."""
        return self._changes

    def forget(self, key_id: str | None = None) -> None:
        """Drop one key, or all of them, from the cache."""
        self._changes += 1
        if key_id is None:
            self._entries.clear()
        else:
            self._entries.pop(key_id, None)

    def told(self, payload: str) -> None:
        """Handle a NOTIFY on `tollway_identity`: 'key:<key_id>', 'account:<uuid>' or 'organization:<uuid>'."""
        self._changes += 1
        kind, _, value = payload.partition(":")
        if kind == "key":
            self.forget(value)
            return
        for key_id, entry in list(self._entries.items()):
            record = entry.record
            if record is not None and value == str(
                record.organization_id if kind == "organization" else record.account_id
            ):
                self.forget(key_id)

    async def flush_used(self) -> None:
        """Write last-used times of the keys seen since the last flush (a job, never the hot path)."""
        used, self._used = list(self._used), set()
        if used:
            async with self._database.acquire() as connection:
                await TOUCH_KEYS.run(connection, used)

    @property
    def size(self) -> int:
        """Return how many keys are cached."""
        return len(self._entries)

    def _is_old(self, entry: _Entry) -> bool:
        if entry.record is None:
            limit = UNKNOWN_SECONDS
        else:
            limit = FRESH_SECONDS if self.listening else STALE_SECONDS
        return self._clock() - entry.loaded > limit

    def _plan_of(self, record: KeyRecord) -> Plan | None:
        if self._plans is None:
            return None
        plan = self._plans.by_terms(record.plan_id, record.plan_terms)
        return None if plan.included_calls is None and plan.calls_per_minute is None else plan

    def _until_plan_ends(self, started: float, record: KeyRecord) -> float:
        """Make an entry old as soon as its plan ends: nobody notifies of a moment that comes."""
        if record.plan_ends_at is None:
            return started
        left = (record.plan_ends_at - datetime.now(UTC)).total_seconds()
        return min(started, started + left - FRESH_SECONDS)

    async def _renew(self, key_id: str, entry: _Entry) -> _Entry:
        """Look a known key up again. While the database is away what is known of it holds for a while."""
        holds = self._clock() - entry.loaded < AWAY_SECONDS
        if holds and self._clock() < self._ask_from:
            return entry
        try:
            async with asyncio.timeout(ASK_SECONDS if holds else None):
                return await self._load(key_id)
        except (Unavailable, TimeoutError):
            if not holds:
                raise
        self._ask_from = self._clock() + ASK_AGAIN_SECONDS
        return entry

    async def _load(self, key_id: str) -> _Entry:
        self.misses += 1
        started, changes = self._clock(), self._changes
        record = await self._database.read(lambda connection: FIND_KEY.first(connection, key_id))
        principal = None
        if record is not None:
            scopes = None if record.scopes is None else frozenset(record.scopes)
            principal = Principal(
                record.account_id, record.organization_id, record.api_key_id, record.key_id, record.name, record.kind,
                budgets.read(record.budget), scopes=scopes, confined=record.confined,
                addresses=None if record.addresses is None else tuple(record.addresses), plan=self._plan_of(record),
                frozen=Suspension.read(record.frozen),
            )  # fmt: skip
            started = self._until_plan_ends(started, record)
        suspension = None if record is None else Suspension.read(record.suspension)
        entry = _Entry(record, principal, started, suspension)
        if changes != self._changes:  # maybe of this key, after it was read: it serves this once
            return entry
        if len(self._entries) >= CACHE_SIZE:
            self._entries.pop(next(iter(self._entries)))
        self._entries[key_id] = entry
        return entry
