"""Webhook endpoints of an organization and the log of what was sent to them: reading and writing the tables.

Secrets are sealed with the gateway's keys, bound to their endpoint, and never read back for an answer.

Order of locks, everywhere: the endpoint, its deliveries, the audit chain's head. The endpoint is locked FOR NO KEY
UPDATE, because every change of its organization takes the head first and then refers to the endpoint in a new delivery:
a stronger lock would wait for the head and hold up who has it. Deleting needs the stronger lock, so it comes last.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from gateway.database.pool import Connection
from gateway.database.statement import Command, Statement
from gateway.ids import uuid7
from gateway.webhooks.signing import new_secret

MOST = 50
"""Endpoints of one organization."""
OVERLAP = timedelta(hours=24)
"""How long the secret before a rotation signs too."""
REPLAYED = 1_000
"""Events that one replay sends again."""


class Box(Protocol):
    """The credential box, as far as it is needed here (it belongs to an upper step)."""

    def seal(self, plaintext: bytes, context: bytes) -> bytes:
        """Encrypt, bound to a context."""
        ...


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A webhook as its organization sees it."""

    id: UUID
    organization_id: UUID
    project_id: UUID | None
    name: str
    url: str
    events: list[str]
    enabled: bool
    disabled_reason: str | None
    created_by: UUID
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of one delivery."""

    id: UUID
    webhook_id: UUID
    event_id: UUID
    event_type: str
    data: dict[str, Any]
    happened_at: datetime
    attempt_number: int
    response_status: int | None
    response_body: str | None
    error_message: str | None
    next_retry_at: datetime | None
    delivered_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Sent:
    """A delivery that has ended, and when its event happened."""

    id: UUID
    happened_at: datetime


@dataclass(frozen=True, slots=True)
class Replay:
    """How many events come again, and from when on there are more; None when these were all."""

    events: int
    next_since: datetime | None


LIST = Statement(
    """
    SELECT id, organization_id, project_id, name, url, events, enabled, disabled_reason, created_by, created_at
      FROM webhook.endpoint WHERE organization_id = $1 ORDER BY created_at DESC, id DESC
    """,
    Endpoint,
)
FIND = Statement(
    """
    SELECT id, organization_id, project_id, name, url, events, enabled, disabled_reason, created_by, created_at
      FROM webhook.endpoint WHERE organization_id = $1 AND id = $2
    """,
    Endpoint,
)
LOCK = Statement(
    """
    SELECT id, organization_id, project_id, name, url, events, enabled, disabled_reason, created_by, created_at
      FROM webhook.endpoint WHERE organization_id = $1 AND id = $2 FOR NO KEY UPDATE
    """,
    Endpoint,
)
# Counted under a lock of the organization's row, so that two cannot both be the last one.
LOCK_ORGANIZATION = Command("SELECT FROM identity.organization WHERE id = $1 FOR NO KEY UPDATE")
COUNT = Statement("SELECT count(*) FROM webhook.endpoint WHERE organization_id = $1", int, scalar=True)
INSERT = Command(
    """
    INSERT INTO webhook.endpoint (id, organization_id, name, url, events, secret, created_by, project_id)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    """
)
# Whoever switches it on again, or sends it elsewhere, gives it a new start.
UPDATE = Command(
    """
    UPDATE webhook.endpoint
       SET name = $2, url = $3, events = $4, enabled = $5,
           disabled_reason = CASE WHEN $5 THEN NULL ELSE disabled_reason END,
           failing_since = CASE WHEN $5 AND NOT enabled THEN NULL ELSE failing_since END,
           paused_until = CASE WHEN $5 AND NOT enabled OR $3 <> url THEN NULL ELSE paused_until END
     WHERE id = $1
    """
)
DELETE = Command("DELETE FROM webhook.endpoint WHERE id = $1")
ROTATE = Command(
    """
    UPDATE webhook.endpoint SET previous_secret = secret, previous_until = now() + $3::interval, secret = $2
     WHERE id = $1
    """
)
ATTEMPTS = Statement(
    """
    SELECT a.id, d.endpoint_id AS webhook_id, e.id AS event_id, e.type AS event_type, e.data,
           e.created_at AS happened_at, a.number AS attempt_number, a.response_status, a.response_body,
           a.error AS error_message, a.next_retry_at, a.delivered_at, a.created_at
      FROM webhook.attempt a
      JOIN webhook.delivery d ON d.id = a.delivery_id
      JOIN webhook.event e ON e.id = d.event_id
     WHERE a.endpoint_id = $1 ORDER BY a.created_at DESC, a.id DESC LIMIT $2 OFFSET $3
    """,
    Attempt,
)
# One event again, to the endpoint that it was for, with a new schedule of tries.
REPLAY = Statement(
    """
    UPDATE webhook.delivery d
       SET next_at = now(), schedule_from = CASE WHEN state = 'pending' THEN schedule_from ELSE attempts END,
           state = 'pending'
      FROM webhook.attempt a
     WHERE a.id = $2 AND d.id = a.delivery_id AND d.endpoint_id = $1
    RETURNING d.event_id::text
    """,
    UUID,
    scalar=True,
)
# What is still to come is left alone, so a repeated replay sends nothing twice as often.
SENT_SINCE = Statement(
    """
    SELECT d.id, v.created_at AS happened_at
      FROM webhook.event v JOIN webhook.delivery d ON d.event_id = v.id AND d.endpoint_id = $2
     WHERE v.organization_id = $1 AND v.created_at >= $3 AND ($4::timestamptz IS NULL OR v.created_at < $4)
       AND (d.state = 'failed' OR d.state = 'delivered' AND NOT $5)
     ORDER BY v.created_at, v.id LIMIT $6
    """,
    Sent,
)
REPLAY_ALL = Command(
    """
    UPDATE webhook.delivery SET state = 'pending', next_at = now(), schedule_from = attempts
     WHERE id = ANY ($1::uuid[]) AND state <> 'pending'
    """
)


async def create(
    connection: Connection,
    box: Box,
    organization_id: UUID,
    account_id: UUID,
    name: str,
    url: str,
    events: list[str],
    project_id: UUID | None,
) -> tuple[Endpoint, str] | None:
    """Store an endpoint and return it with its secret; None when the organization has too many."""
    await LOCK_ORGANIZATION.run(connection, organization_id)
    if await COUNT.one(connection, organization_id) >= MOST:
        return None
    endpoint_id, secret = uuid7(), new_secret()
    sealed = box.seal(secret.encode(), endpoint_id.bytes)
    await INSERT.run(connection, endpoint_id, organization_id, name, url, events, sealed, account_id, project_id)
    return await FIND.one(connection, organization_id, endpoint_id), secret


async def rotate(connection: Connection, box: Box, endpoint_id: UUID) -> str:
    """Give an endpoint a new secret and return it; the one before it signs as well for OVERLAP."""
    secret = new_secret()
    await ROTATE.run(connection, endpoint_id, box.seal(secret.encode(), endpoint_id.bytes), OVERLAP)
    return secret


async def replay(
    connection: Connection, endpoint: Endpoint, since: datetime, until: datetime | None, *, only_failed: bool
) -> Replay:
    """Send the events of a time again, the oldest first, at most REPLAYED of them. The endpoint is locked."""
    ended = await SENT_SINCE.all(
        connection, endpoint.organization_id, endpoint.id, since, until, only_failed, REPLAYED + 1
    )
    events = await REPLAY_ALL.run(connection, [delivery.id for delivery in ended[:REPLAYED]])
    return Replay(events, ended[REPLAYED].happened_at if len(ended) > REPLAYED else None)


async def delete(connection: Connection, endpoint_id: UUID) -> None:
    """Delete an endpoint with what waits for it and its log: last in the transaction (see above)."""
    await DELETE.run(connection, endpoint_id)
