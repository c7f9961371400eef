"""Writing down a change: `record`, in the transaction of the change itself.

Entries of one organization form a chain: each carries the digest of the one before it, so that a changed, removed,
moved or inserted one shows (verify.py). The chain's head is locked from `record` to the end of the transaction; so
record last, when the rows of the change are locked already, and changes of other organizations never wait.

What does not live here: reading the log (log.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, cast
from uuid import UUID

import orjson
from pydantic import BaseModel

from gateway.audit.actions import ACTIONS
from gateway.audit.origin import origin
from gateway.database.pool import Connection, Database
from gateway.database.statement import Command, Statement
from gateway.ids import uuid7
from gateway.webhooks.events import EVENT_OF_ACTION
from gateway.webhooks.outbox import emit

Status = Literal["success", "denied"]
NO_ORGANIZATION = UUID(int=0)
"""The chain of what belongs to no organization: the operator's own actions."""
LONGEST = 500
"""Characters of a foreign text (a user agent, a reason) that are kept."""
_HIDDEN = "hidden"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry as it is stored. `metadata` has the changed fields, the digests before and after, and more names."""

    id: UUID
    chain: UUID
    seq: int
    created_at: datetime
    actor_type: str
    actor_id: UUID | None
    credential_type: str | None
    credential_id: UUID | None
    action: str
    category: str
    resource_type: str
    resource_id: UUID | None
    status: str
    error_message: str | None
    ip_address: str | None
    user_agent: str | None
    request_id: str | None
    metadata: dict[str, Any]
    previous: bytes
    digest: bytes


_NAMES = tuple(one.name for one in fields(Entry))


@dataclass(frozen=True, slots=True)
class Place:
    """The place of the next entry in its chain, which is ours until the transaction ends."""

    seq: int
    previous: bytes
    moment: datetime


# The moment is taken when the lock has been got, so that moments grow along a chain.
TAKE_PLACE = Statement(
    """
    INSERT INTO audit.head AS h (chain, seq, digest) VALUES ($1, 1, ''::bytea)
    ON CONFLICT (chain) DO UPDATE SET seq = h.seq + 1
    RETURNING h.seq, h.digest AS previous, clock_timestamp() AS moment
    """,
    Place,
)
APPEND = Command(
    """
    WITH entry AS (
        INSERT INTO audit.entry (id, chain, seq, created_at, actor_type, actor_id, credential_type, credential_id,
                                 action, category, resource_type, resource_id, status, error_message, ip_address,
                                 user_agent, request_id, metadata, previous, digest)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)
    )
    UPDATE audit.head SET digest = $20 WHERE chain = $2
    """
)


async def record(
    connection: Connection,
    action: str,
    organization_id: UUID | None,
    resource_id: UUID | None = None,
    *,
    before: object = None,
    after: object = None,
    secret: Collection[str] = (),
    details: Mapping[str, object] | None = None,
    status: Status = "success",
    error: str | None = None,
    projects: Collection[UUID] = (),
) -> None:
    """Write down a change in its own transaction: call it last in there. The actor is whoever `origin` says.

    `action` is one of ACTIONS. `before` and `after` are what the object is to its owner (a mapping, dataclass or model;
    nothing for what was not there): kept are one digest of each and the names of the fields that differ, never a value.
    Fields named in `secret` take part in the comparison only. `details` are names and ids that help to read the entry,
    `projects` those whose webhooks hear of it.
    """
    who, chain = origin(), organization_id or NO_ORGANIZATION
    place = await TAKE_PLACE.one(connection, chain)
    made = Entry(
        id=uuid7(),
        chain=chain,
        seq=place.seq,
        created_at=place.moment,
        actor_type=who.actor_type,
        actor_id=who.actor_id,
        credential_type=who.credential_type,
        credential_id=who.credential_id,
        action=action,
        category=ACTIONS[action],
        resource_type=action.partition(".")[0],
        resource_id=resource_id,
        status=status,
        error_message=_short(error),
        ip_address=who.ip_address,
        user_agent=_short(who.user_agent),
        request_id=who.request_id,
        metadata={**_difference(before, after, secret), **_plain(details or {})},
        previous=place.previous,
        digest=b"",
    )
    values = [getattr(made, name) for name in _NAMES]
    await APPEND.run(connection, *values[:-1], digest_of(made))
    event = EVENT_OF_ACTION.get(action)
    if event is not None and organization_id is not None and status == "success":
        await emit(connection, organization_id, event, _told(made), projects)


def _told(entry: Entry) -> dict[str, object]:
    """Return what a webhook hears of an entry: what was changed, by whom, and how it is called."""
    kept = {name: value for name, value in entry.metadata.items() if name not in ("before", "after")}
    actor = {"type": entry.actor_type, "id": entry.actor_id}
    named = {} if entry.resource_id is None else {f"{entry.resource_type}_id": entry.resource_id}
    return {**kept, **named, "actor": actor, "audit_log_id": entry.id}


async def record_refusal(database: Database, operation: str, reason: str) -> None:
    """Write down that a member asked for what its role does not let it do, in a transaction of its own."""
    refused = origin().refused
    if refused is not None:
        details = {"permission": refused[1], "operation": operation}
        async with database.transaction() as connection:
            await record(connection, "permission.deny", refused[0], details=details, status="denied", error=reason)


def digest_of(entry: Entry) -> bytes:
    """Return the digest that binds an entry and its place: everything but the digest itself."""
    bound: list[object] = []
    for name in _NAMES[:-1]:
        value: object = getattr(entry, name)
        if isinstance(value, datetime):
            value = microseconds(value)
        elif isinstance(value, UUID):
            value = str(value)
        bound.append(value.hex() if isinstance(value, bytes) else value)
    return hashlib.sha256(orjson.dumps(bound, option=orjson.OPT_SORT_KEYS)).digest()


def microseconds(moment: datetime) -> int:
    """Return a moment as an integer, exactly as the database keeps it."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _difference(before: object, after: object, secret: Collection[str]) -> dict[str, object]:
    """Return which fields differ, and a digest of each side without its secrets."""
    old, new = _fields(before), _fields(after)
    found: dict[str, object] = {}
    if before is not None and after is not None:
        found["changed"] = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    for side, given, members in (("before", before, old), ("after", after, new)):
        if given is not None:
            shown = {name: _HIDDEN if name in secret else value for name, value in members.items()}
            found[side] = "sha256:" + hashlib.sha256(_json(shown)).hexdigest()
    return found


def _fields(value: object) -> dict[str, object]:
    if value is None:
        return {}
    if isinstance(value, BaseModel):
        return value.model_dump()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return dict(cast("Mapping[str, object]", value))


def _plain(details: Mapping[str, object]) -> dict[str, object]:
    # The database's JSON codec takes 64 bits as well, and readers of JSON often 53: larger numbers are text.
    return json.loads(_json(dict(details)), parse_int=lambda digits: int(digits) if len(digits) < 16 else digits)


def _json(value: object) -> bytes:
    # Not orjson: a price of a token with 18 decimals has more than its 64 bits.
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=_text).encode()


def _text(value: object) -> object:
    if isinstance(value, (set, frozenset)):
        return sorted(str(one) for one in cast("Collection[object]", value))
    return str(value)


def _short(text: str | None) -> str | None:
    return None if text is None else text.replace("\0", "")[:LONGEST]
