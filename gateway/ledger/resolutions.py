"""Exchanges without an end, as operators see and end them, and debts that they forgive.

Every decision leaves an audit line. A debt is a call that was delivered on trust (x402, `deferred`) and whose payment
failed: it counts against what its wallet is trusted with until it is forgiven.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from gateway.audit.entries import record
from gateway.database.pool import Connection
from gateway.database.statement import Command, Statement
from gateway.errors import NotFound
from gateway.ledger.entries import SETTLE, Settlement, settlement_columns
from gateway.ledger.exchanges import END_HOLD, refund

Decision = Literal["refund", "keep", "forgive"]
NOT_OPEN = "No open exchange has this id."
NO_DEBT = "No call with this id was delivered on trust and not paid."


@dataclass(frozen=True, slots=True)
class UnendedExchange:
    """An exchange that was paid or counted, or may be, and whose end is not recorded. `amount` is atomic units.

    Of a payment on a chain `payer` is the wallet, network and address, and `owner_id` is None. A `count` is a call that
    is free and was counted.
    """

    exchange_id: UUID
    kind: Literal["charge", "hold", "payment", "count"]
    owner_id: UUID | None
    publisher: str | None
    asset: str
    amount: int
    since: datetime
    worker_id: int | None
    worker_alive: bool
    payer: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "amount", int(self.amount))


@dataclass(frozen=True, slots=True)
class Debt:
    """A delivered call whose payment failed. `amount` is atomic units, `payer` network and address, `reason` a code."""

    exchange_id: UUID
    payer: str
    publisher: str
    asset: str
    amount: int
    reason: str | None
    since: datetime

    def __post_init__(self) -> None:
        object.__setattr__(self, "amount", int(self.amount))


FIND_UNENDED = Statement(
    """
    SELECT t.cause_id AS exchange_id, t.kind::text AS kind, w.owner_id, p.slug AS publisher, a.symbol AS asset,
           sum(t.amount) AS amount, min(t.created_at) AS since, t.worker_id,
           coalesce(bool_or(k.reconciled_at IS NULL AND k.stopped_at IS NULL
                            AND k.seen_at > now() - $1::interval), false) AS worker_alive
      FROM ledger.transfer t
      JOIN ledger.wallet w ON w.id = t.wallet_id
      JOIN catalog.asset a ON a.id = w.asset_id
      LEFT JOIN ledger.hold h ON h.exchange_id = t.cause_id
      LEFT JOIN ledger.account e ON e.id = coalesce(h.account_id, t.credit_account)
      LEFT JOIN catalog.publisher p ON p.id = e.publisher_id
      LEFT JOIN ledger.worker k ON k.id = t.worker_id
     WHERE t.kind IN ('charge', 'hold') AND ($2::uuid IS NULL OR t.cause_id = $2)
       AND t.cause_id >= coalesce($2, (SELECT settled_through FROM ledger.worker WHERE reconciled_at IS NULL
                                        ORDER BY settled_through LIMIT 1), 'ffffffff-ffff-ffff-ffff-ffffffffffff')
       AND NOT EXISTS (SELECT FROM ledger.settlement s WHERE s.exchange_id = t.cause_id)
     GROUP BY t.cause_id, t.kind, w.owner_id, p.slug, a.symbol, t.worker_id
     ORDER BY t.cause_id LIMIT $3
    """,
    UnendedExchange,
)
# Payments for calls that have no end, and those whose money is on its way back.
FIND_UNENDED_PAYMENTS = Statement(
    """
    SELECT m.id AS exchange_id, 'payment' AS kind, NULL::uuid AS owner_id, p.slug AS publisher, a.symbol AS asset,
           m.amount, m.reserved_at AS since, m.worker_id,
           coalesce(k.reconciled_at IS NULL AND k.stopped_at IS NULL AND k.seen_at > now() - $1::interval, false)
               AS worker_alive,
           format('%s:0x%s', m.network, encode(m.payer, 'hex')) AS payer
      FROM chain.payment m
      JOIN ledger.account e ON e.id = m.account_id
      JOIN catalog.publisher p ON p.id = e.publisher_id
      JOIN catalog.asset a ON a.id = e.asset_id
      LEFT JOIN ledger.worker k ON k.id = m.worker_id
     WHERE m.state <> 'cancelled' AND NOT (m.state = 'failed' AND m.final)
       AND ($2::uuid IS NULL OR m.id = $2)
       AND m.id >= coalesce($2, least(
               (SELECT min(settled_through::text) FROM ledger.worker WHERE reconciled_at IS NULL),
               (SELECT min(payment_id::text) FROM chain.undelivered))::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
       AND m.id >= (SELECT upto FROM ledger.archived)
       AND NOT EXISTS (SELECT FROM ledger.settlement s WHERE s.exchange_id = m.id)
     ORDER BY m.id LIMIT $3
    """,
    UnendedExchange,
)
# Free calls that were counted and have no end. Their ids say since when.
FIND_UNENDED_COUNTS = Statement(
    """
    SELECT DISTINCT ON (d.exchange_id)
           d.exchange_id, 'count' AS kind, o.id AS owner_id, p.slug AS publisher, coalesce(a.symbol, '') AS asset,
           0 AS amount,
           to_timestamp(('x' || left(replace(d.exchange_id::text, '-', ''), 12))::bit(48)::bigint / 1000.0) AS since,
           d.worker_id,
           coalesce(k.reconciled_at IS NULL AND k.stopped_at IS NULL AND k.seen_at > now() - $1::interval, false)
               AS worker_alive
      FROM ledger.counted d
      LEFT JOIN identity.account o ON o.id = d.scope
      LEFT JOIN catalog.publisher p ON p.id = d.subject
      LEFT JOIN catalog.asset a ON a.id = p.primary_asset_id
      LEFT JOIN ledger.worker k ON k.id = d.worker_id
     WHERE d.alone AND ($2::uuid IS NULL OR d.exchange_id = $2)
       AND d.exchange_id >= coalesce($2, (SELECT settled_through FROM ledger.worker WHERE reconciled_at IS NULL
                                           ORDER BY settled_through LIMIT 1), 'ffffffff-ffff-ffff-ffff-ffffffffffff')
       AND d.exchange_id >= (SELECT upto FROM ledger.archived)
       AND NOT EXISTS (SELECT FROM ledger.settlement s WHERE s.exchange_id = d.exchange_id)
     ORDER BY d.exchange_id, p.slug LIMIT $3
    """,
    UnendedExchange,
)
FIND_DEBTS = Statement(
    """
    SELECT m.id AS exchange_id, format('%s:0x%s', m.network, encode(m.payer, 'hex')) AS payer, p.slug AS publisher,
           a.symbol AS asset, m.amount, m.reason, m.reserved_at AS since
      FROM chain.payment m
      JOIN ledger.account e ON e.id = m.account_id
      JOIN catalog.publisher p ON p.id = e.publisher_id
      JOIN catalog.asset a ON a.id = e.asset_id
     WHERE m.state = 'failed' AND m.deferred ORDER BY m.id LIMIT $1
    """,
    Debt,
)
# `deferred` is what makes an unpaid payment count; that it was, the audit line says.
FORGIVE = Statement(
    "UPDATE chain.payment SET deferred = false WHERE id = $1 AND state = 'failed' AND deferred RETURNING 'forgiven'",
    str,
    scalar=True,
)
FIND_DEBT = Statement(
    "SELECT amount::text FROM chain.payment WHERE id = $1 AND state = 'failed' AND deferred", str, scalar=True
)
GIVE_BACK = Statement("SELECT chain.give_back($1, 'operator', NULL)", str, scalar=True)
SUBMIT = Command("SELECT chain.submit($1, NULL, NULL)")
NOTE_RESOLUTION = Command(
    "INSERT INTO ledger.resolution (exchange_id, decision, verdict, actor, note) VALUES ($1, $2, $3, $4, $5)"
)


async def unended(
    connection: Connection, *, dead_after: timedelta, exchange_id: UUID | None = None, limit: int = 100
) -> list[UnendedExchange]:
    """Return exchanges without an end, oldest first; those of live workers are usually just being served."""
    found = await FIND_UNENDED.all(connection, dead_after, exchange_id, limit)
    found += await FIND_UNENDED_PAYMENTS.all(connection, dead_after, exchange_id, limit)
    found += await FIND_UNENDED_COUNTS.all(connection, dead_after, exchange_id, limit)
    return sorted(found, key=lambda exchange: exchange.exchange_id)[:limit]


async def debts(connection: Connection, *, limit: int = 100) -> list[Debt]:
    """Return what was delivered on trust and not paid, oldest first."""
    return await FIND_DEBTS.all(connection, limit)


async def at_stake(connection: Connection, exchange_id: UUID, decision: Decision) -> int:
    """Return the most that a decision can move or write off, in atomic units. Raises NotFound as `resolve` does."""
    if decision == "forgive":
        debt = await FIND_DEBT.first(connection, exchange_id)
        if debt is None:
            raise NotFound(NO_DEBT)
        return int(debt)
    rows = await unended(connection, dead_after=timedelta(0), exchange_id=exchange_id)
    if not rows:
        raise NotFound(NOT_OPEN)
    return sum(row.amount for row in rows)


async def resolve(
    connection: Connection, exchange_id: UUID, decision: Decision, *, actor: str, note: str | None, grace: timedelta
) -> str:
    """End an open exchange and write the audit line, in the caller's transaction. Returns what the ledger did.

    `refund` gives the money back, `keep` settles the charge (a hold is captured whole, a payment submitted); `forgive`
    is for a debt. Raises NotFound when no money moved for this id or the exchange has an end, or there is no debt.
    """
    if decision == "forgive":
        verdict = await FORGIVE.first(connection, exchange_id)
        if verdict is None:
            raise NotFound(NO_DEBT)
    else:
        found = await unended(connection, dead_after=timedelta(0), exchange_id=exchange_id)
        if not found:
            raise NotFound(NOT_OPEN)
        verdict = await _end(connection, found[0], decision, grace)
    await _note(connection, exchange_id, decision, verdict, actor, note)
    return verdict


async def _note(
    connection: Connection, exchange_id: UUID, decision: str, verdict: str, actor: str, note: str | None
) -> None:
    await NOTE_RESOLUTION.run(connection, exchange_id, decision, verdict, actor, note)
    details = {"decision": decision, "verdict": verdict, "by": actor, "note": note}
    await record(connection, "exchange.resolve", None, exchange_id, details=details)


async def _end(connection: Connection, exchange: UnendedExchange, decision: Decision, grace: timedelta) -> str:
    if exchange.kind == "payment" and decision == "refund":
        return await GIVE_BACK.one(connection, exchange.exchange_id)
    if exchange.kind == "hold":
        capture = exchange.amount if decision == "keep" else 0
        ended = await END_HOLD.one(
            connection, exchange.exchange_id, str(capture), "0", "operator", None, 0, 0, grace
        )  # fmt: skip
        return ended.verdict
    if decision == "keep":
        settlement = Settlement(exchange.exchange_id, "operator", None, 0, 0)
        await SETTLE.run(connection, *settlement_columns([settlement]))
        if exchange.kind == "payment":
            await SUBMIT.run(connection, exchange.exchange_id)
        return "settled"
    undone = await refund(connection, exchange.exchange_id, reason="operator", status=None, grace=grace, only_open=True)
    return undone.verdict
