"""Sends what the outbox holds: leased by one worker at a time, signed, tried again for days, and written down.

Which deliveries a worker takes, and that no organization delays another's, is gateway/webhooks/queue.py.

At least once: a delivery is noted after its receiver has answered, so whoever dies in between has it sent again when
the lease is over, with the same `webhook-id`. An endpoint's events are first tried one after the other, in the order in
which they were written; a try that failed comes again later and holds up none after it.

Only addresses that the egress guard lets through are contacted, redirects are not followed, of an answer not more than
KEPT bytes is read, and the whole of a try takes no longer than the timeout, however slowly a receiver drips.
"""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import orjson

from gateway.audit.entries import record
from gateway.database.pool import LOST, Connection, Database
from gateway.database.statement import Command, Statement
from gateway.errors import Unavailable
from gateway.faults import ARMED, act
from gateway.ids import uuid7
from gateway.settings import WebhookSettings
from gateway.upstreams.credentials import CredentialBox, CredentialError
from gateway.upstreams.documents import read_url
from gateway.upstreams.egress import EgressGuard, EgressRefused
from gateway.upstreams.http.client import UpstreamClient
from gateway.upstreams.http.errors import UpstreamError
from gateway.upstreams.http.response import UpstreamResponse
from gateway.upstreams.http.timeouts import Timeouts
from gateway.webhooks.queue import Due, Shares, claim
from gateway.webhooks.retry_after import retry_after
from gateway.webhooks.signing import headers

log = logging.getLogger(__name__)

KEPT = 500
"""Bytes of an answer that the delivery log keeps."""
POLL_SECONDS = 1.0
GONE = 410
OLD_ROUND = 500
_RANDOM = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one try. `status` is None where nobody answered; it asks us to `wait` until then."""

    status: int | None
    body: str | None = None
    error: str | None = None
    wait: datetime | None = None

    @property
    def delivered(self) -> bool:
        """Return whether the receiver has taken it."""
        return self.status is not None and 200 <= self.status < 300


# First of all: the order of locks is the one of gateway/webhooks/endpoints.py.
LOCK = Statement("SELECT true FROM webhook.endpoint WHERE id = $1 FOR NO KEY UPDATE", bool, scalar=True)
# Whose lease is over has nothing to say any more: the delivery is somebody else's. What was given up meanwhile, because
# the endpoint was switched off, stays so unless it has arrived.
NOTE = Statement(
    """
    UPDATE webhook.delivery
       SET state = CASE WHEN $3 THEN 'delivered'
                        WHEN $4::timestamptz IS NULL OR state = 'failed' THEN 'failed' ELSE 'pending' END,
           attempts = attempts + 1, next_at = coalesce($4, next_at), leased_until = NULL
     WHERE id = $1 AND leased_until = $2
    RETURNING attempts
    """,
    int,
    scalar=True,
)
LOG = Command(
    """
    INSERT INTO webhook.attempt (id, endpoint_id, delivery_id, number, response_status, response_body, error,
                                 delivered_at, next_retry_at)
    SELECT $1, $2, id, $4, $5, $6, $7, CASE WHEN $8 THEN now() END, CASE WHEN state = 'pending' THEN $9::timestamptz END
      FROM webhook.delivery WHERE id = $3
    """
)
SUCCEEDED = Command("UPDATE webhook.endpoint SET failing_since = NULL WHERE id = $1 AND failing_since IS NOT NULL")
FAILED = Statement(
    """
    UPDATE webhook.endpoint
       SET failing_since = coalesce(failing_since, now()), paused_until = greatest(paused_until, $3::timestamptz)
     WHERE id = $1 AND enabled
    RETURNING now() - failing_since > $2::interval
    """,
    bool,
    scalar=True,
)
DISABLE = Command("UPDATE webhook.endpoint SET enabled = false, disabled_reason = $2 WHERE id = $1 AND enabled")
GIVE_UP = Command("UPDATE webhook.delivery SET state = 'failed' WHERE endpoint_id = $1 AND state = 'pending'")
OLD = Statement(
    """
    SELECT id::text FROM webhook.event WHERE created_at < now() - $1::interval
     ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED
    """,
    UUID,
    scalar=True,
)
LOCK_ALL = Command(
    """
    SELECT FROM webhook.endpoint
     WHERE id IN (SELECT endpoint_id FROM webhook.delivery WHERE event_id = ANY ($1::uuid[]))
     ORDER BY id FOR NO KEY UPDATE
    """
)
FORGET = Command("DELETE FROM webhook.event WHERE id = ANY ($1::uuid[])")


class WebhookSender:
    """One per worker. `run` is its periodic job, `forget` another; `aclose` ends what is under way."""

    def __init__(self, database: Database, box: CredentialBox, guard: EgressGuard, settings: WebhookSettings) -> None:
        self._database, self._box, self._guard, self._settings = database, box, guard, settings
        self._client = UpstreamClient(guard, max_connections=settings.at_once, max_idle=0)
        self._timeouts = Timeouts(settings.timeout, settings.timeout, settings.timeout, settings.timeout)
        self._lease = timedelta(seconds=2 * settings.timeout + 5)
        self._pauses = [float(pause) for pause in settings.retries]
        self._most_wait = timedelta(seconds=settings.retry_after_max)
        self._shares = Shares(settings.at_once, settings.at_once_per_endpoint, settings.at_once_per_organization)
        self._tasks: dict[asyncio.Task[None], Due] = {}
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Begin what is due, and return when something has ended or after a moment."""
        self._ended.clear()
        room = self._shares.worker - len(self._tasks)
        if room > 0:
            failing = sum(due.failing for due in self._tasks.values())
            claimed = await claim(self._database, self._shares, room=room, failing=failing, lease=self._lease)
            if claimed is None:
                return
            for due in claimed:
                task = asyncio.get_running_loop().create_task(self._deliver(due))
                self._tasks[task] = due
                task.add_done_callback(self._done)
        try:
            await asyncio.wait_for(self._ended.wait(), POLL_SECONDS)
        except TimeoutError:
            return

    async def forget(self) -> int:
        """Remove events that are older than the log is kept, with their deliveries, and return how many."""
        total = 0
        while True:
            async with self._database.transaction() as connection:
                old = await OLD.all(connection, timedelta(seconds=self._settings.keep), OLD_ROUND)
                if old:
                    await LOCK_ALL.run(connection, old)
                    await FORGET.run(connection, old)
            total += len(old)
            if len(old) < OLD_ROUND:
                return total

    async def aclose(self) -> None:
        """Break off what is under way; its lease ends by itself."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()

    def _done(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        self._ended.set()

    async def _deliver(self, due: Due) -> None:
        try:
            if ARMED == "webhook.claimed":
                await act()
            outcome = await self._send(due)
            if ARMED == "webhook.sent":
                await act()
            async with self._database.transaction() as connection:
                await self._note(connection, due, outcome)
        except (*LOST, Unavailable) as error:
            log.warning("a webhook's delivery could not be noted: %s", type(error).__name__)
        except Exception:
            log.exception("a webhook could not be delivered")

    async def _send(self, due: Due) -> Outcome:
        """Post one event. Whatever goes wrong is an outcome."""
        body = message(due)
        try:
            sealed = [due.secret] + ([due.previous_secret] if due.previous_secret is not None else [])
            keys = [self._box.open(one, due.endpoint_id.bytes).decode() for one in sealed]
            base, target = read_url(self._guard, due.url)
        except CredentialError as error:
            return Outcome(None, error=f"its secret does not open: {error}")
        except EgressRefused as error:
            return Outcome(None, error=str(error))
        fields = [
            (b"host", base.origin.authority),
            (b"content-type", b"application/json"),
            (b"accept-encoding", b"identity"),
            (b"user-agent", b"tollway"),
            *headers(str(due.event_id), datetime.now(UTC), body, keys),
        ]
        ends = asyncio.get_running_loop().time() + self._settings.timeout
        try:
            async with asyncio.timeout_at(ends):
                answer = await self._client.send(base.origin, b"POST", target, fields, body, self._timeouts)
            try:
                return self._outcome(answer, await _beginning(answer, ends))
            finally:
                await answer.aclose()
        except TimeoutError:
            return Outcome(None, error=f"the receiver had not answered after {self._settings.timeout:g} seconds")
        except UpstreamError as error:
            return Outcome(None, error=str(error))

    def _outcome(self, answer: UpstreamResponse, body: bytes) -> Outcome:
        status, text = answer.status, body.decode("utf-8", "replace").replace("\0", "") or None
        if 200 <= status < 300:
            return Outcome(status, text)
        error = f"the receiver answered {status}"
        if 300 <= status < 400:
            error += "; redirects are not followed"
        return Outcome(status, text, error, retry_after(answer.headers, datetime.now(UTC), self._most_wait))

    async def _note(self, connection: Connection, due: Due, outcome: Outcome) -> None:
        """Write down what became of a try, and switch an endpoint off that has failed for too long."""
        if await LOCK.first(connection, due.endpoint_id) is None:
            return
        again = None if outcome.delivered else self._next(due.attempts - due.schedule_from, outcome.wait)
        number = await NOTE.first(connection, due.id, due.lease, outcome.delivered, again)
        if number is None:
            return
        await LOG.run(
            connection, uuid7(), due.endpoint_id, due.id, number, outcome.status, outcome.body, outcome.error,
            outcome.delivered, again,
        )  # fmt: skip
        if outcome.delivered:
            await SUCCEEDED.run(connection, due.endpoint_id)
            return
        after = timedelta(seconds=self._settings.disable_after)
        too_long = await FAILED.first(connection, due.endpoint_id, after, outcome.wait)
        if outcome.status == GONE:
            await _switch_off(connection, due, "its receiver answered 410 Gone")
        elif too_long:
            days = self._settings.disable_after / 86_400
            await _switch_off(connection, due, f"nothing was delivered for {days:g} days")

    def _next(self, attempts: int, wait: datetime | None) -> datetime | None:
        """Return when the try after so many comes, not before `wait`; None after the last one."""
        if attempts >= len(self._pauses):
            return None
        again = datetime.now(UTC) + timedelta(seconds=self._pauses[attempts] * _RANDOM.uniform(0.9, 1.1))
        return again if wait is None else max(again, wait)


def message(due: Due) -> bytes:
    """Return the body of an event."""
    moment = due.happened_at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return orjson.dumps({"type": due.type, "timestamp": moment, "data": due.data})


async def _beginning(answer: UpstreamResponse, ends: float) -> bytes:
    """Return the first bytes of an answer; the rest is not read, nor what has not come when the try ends."""
    pieces = b""
    try:
        async with asyncio.timeout_at(ends):
            while len(pieces) < KEPT and (piece := await answer.read()):
                pieces += piece
    except (TimeoutError, UpstreamError):
        pass  # its status counts
    return pieces[:KEPT]


async def _switch_off(connection: Connection, due: Due, reason: str) -> None:
    """Switch an endpoint off and say so, in its organization's audit log and to its other webhooks."""
    if await DISABLE.run(connection, due.endpoint_id, reason):
        await GIVE_UP.run(connection, due.endpoint_id)
        details = {"name": due.name, "reason": reason}
        await record(connection, "webhook.disable", due.organization_id, due.endpoint_id, details=details)
