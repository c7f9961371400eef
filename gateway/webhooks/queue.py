"""Which deliveries a worker takes next, so that one organization's dead endpoints delay nobody else's events.

Deliveries under way are bounded per endpoint and per organization, over all workers: a claim counts what is leased,
under one lock for all claims. Free slots go to the organizations in turn, first to those with nothing under way, which
alone get the last slots of a worker. Endpoints that are failing share at most half of a worker's slots, so that those
which answer never wait for them. Within an endpoint first tries go one after the other, in the order of the events.

The statement skips from endpoint to endpoint along an index: how much waits for one of them does not matter.
What does not live here: sending, and what becomes of a try (gateway/jobs/webhooks.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from gateway.database.pool import Database
from gateway.database.statement import Statement

LAST_SLOTS = 5
"""One of so many slots of a worker is for endpoints that answer, of organizations with nothing under way."""


@dataclass(frozen=True, slots=True)
class Due:
    """A delivery that is ours until `lease`, with all that sending it takes."""

    id: UUID
    attempts: int
    schedule_from: int
    lease: datetime
    event_id: UUID
    organization_id: UUID
    type: str
    data: dict[str, Any]
    happened_at: datetime
    endpoint_id: UUID
    name: str
    url: str
    failing: bool
    secret: bytes
    previous_secret: bytes | None


@dataclass(frozen=True, slots=True)
class Shares:
    """How many deliveries may be under way: per worker, and over all workers per endpoint and organization."""

    worker: int
    endpoint: int
    organization: int

    @property
    def failing(self) -> int:
        """Return how many slots of a worker failing endpoints may have."""
        return max(self.worker // 2, 1)

    @property
    def reserved(self) -> int:
        """Return how many slots of a worker are for organizations with nothing under way."""
        return self.worker // LAST_SLOTS


# One claim at a time: who counts has to see what the others have leased.
LOCK = Statement("SELECT pg_try_advisory_xact_lock(hashtextextended('tollway.webhook.claim', 0))", bool, scalar=True)
CLAIM = Statement(
    """
    WITH RECURSIVE waiting AS (
        (SELECT endpoint_id FROM webhook.delivery WHERE state = 'pending' ORDER BY endpoint_id LIMIT 1)
        UNION ALL
        SELECT (SELECT d.endpoint_id FROM webhook.delivery d
                 WHERE d.state = 'pending' AND d.endpoint_id > w.endpoint_id ORDER BY d.endpoint_id LIMIT 1)
          FROM waiting w WHERE w.endpoint_id IS NOT NULL
    ), busy AS (
        SELECT d.endpoint_id, e.organization_id, count(*) AS deliveries
          FROM webhook.delivery d JOIN webhook.endpoint e ON e.id = d.endpoint_id
         WHERE d.state = 'pending' AND d.leased_until IS NOT NULL AND d.leased_until >= now()
         GROUP BY d.endpoint_id, e.organization_id
    ), open AS (
        SELECT e.id, e.organization_id, e.failing_since IS NOT NULL AS failing,
               $5::bigint - coalesce((SELECT deliveries FROM busy b WHERE b.endpoint_id = e.id), 0) AS room
          FROM waiting w JOIN webhook.endpoint e ON e.id = w.endpoint_id
         WHERE e.enabled AND (e.paused_until IS NULL OR e.paused_until <= now())
    ), due AS (
        SELECT c.id, c.next_at, c.place, o.organization_id, o.failing, o.room,
               row_number() OVER (PARTITION BY o.id ORDER BY c.next_at, c.place) AS turn
          FROM open o
          CROSS JOIN LATERAL (
              (SELECT d.id, d.next_at, d.place, d.leased_until FROM webhook.delivery d
                WHERE d.endpoint_id = o.id AND d.state = 'pending' AND d.attempts = 0 ORDER BY d.place LIMIT 1)
              UNION ALL
              (SELECT d.id, d.next_at, d.place, d.leased_until FROM webhook.delivery d
                WHERE d.endpoint_id = o.id AND d.state = 'pending' AND d.attempts > 0 AND d.next_at <= now()
                  AND (d.leased_until IS NULL OR d.leased_until < now())
                ORDER BY d.next_at, d.place LIMIT greatest(o.room, 0))
          ) c
         WHERE c.next_at <= now() AND (c.leased_until IS NULL OR c.leased_until < now())
    ), shared AS (
        SELECT d.id, d.next_at, d.place, d.failing,
               coalesce((SELECT sum(deliveries) FROM busy b WHERE b.organization_id = d.organization_id), 0)
                 + row_number() OVER (PARTITION BY d.organization_id ORDER BY d.failing, d.turn, d.next_at, d.place)
               AS of_organization
          FROM due d WHERE d.turn <= d.room
    ), ranked AS (
        SELECT s.id, s.of_organization, s.failing,
               row_number() OVER (PARTITION BY s.failing ORDER BY s.of_organization, s.next_at, s.place) AS of_kind,
               row_number() OVER (ORDER BY s.failing, s.of_organization, s.next_at, s.place) AS turn
          FROM shared s WHERE s.of_organization <= $6::bigint
    ), chosen AS (
        SELECT d.id FROM webhook.delivery d
         WHERE d.state = 'pending' AND d.id IN (
                   SELECT r.id FROM ranked r
                    WHERE (r.of_kind <= $3::bigint OR NOT r.failing)
                      AND r.turn <= CASE WHEN r.of_organization = 1 AND NOT r.failing
                                          THEN $1::bigint ELSE $2::bigint END)
           FOR UPDATE SKIP LOCKED
    )
    UPDATE webhook.delivery d SET leased_until = now() + $4::interval
      FROM chosen, webhook.event v, webhook.endpoint e
     WHERE d.id = chosen.id AND v.id = d.event_id AND e.id = d.endpoint_id
    RETURNING d.id, d.attempts, d.schedule_from, d.leased_until AS lease, v.id AS event_id, v.organization_id, v.type,
              v.data, v.created_at AS happened_at, e.id AS endpoint_id, e.name, e.url,
              e.failing_since IS NOT NULL AS failing, e.secret,
              CASE WHEN e.previous_until > now() THEN e.previous_secret END AS previous_secret
    """,
    Due,
)


async def claim(database: Database, shares: Shares, *, room: int, failing: int, lease: timedelta) -> list[Due] | None:
    """Lease what this worker sends next. None when another worker is just claiming.

    `room` is how many slots are free, `failing` how many are used for endpoints that fail.
    """
    async with database.transaction() as connection:
        if not await LOCK.one(connection):
            return None
        return await CLAIM.all(
            connection, room, room - shares.reserved, shares.failing - failing, lease, shares.endpoint,
            shares.organization,
        )  # fmt: skip
