"""A batch of charges says and writes what the same charges do when they are posted one by one, in the same order.

Hypothesis makes wallets and a list of charges. The charges are posted twice, as one batch for some agents and one by
one for their twins, who have the same lots; then verdicts and every row that was written are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from gateway.database.pool import Connection, UniqueViolation
from gateway.ids import floor_at, uuid7
from gateway.ledger import proof, wallets
from gateway.ledger.counters import Counter
from gateway.ledger.entries import Charge, post
from gateway.ledger.exchanges import START_WORKER, ChargeVerdict
from tests.support.world import Agent, Shop, World

DAY = date(2031, 3, 1)
MOST_CALLS, MOST_MONEY = 2, 25
UNKNOWN_WALLET = 2**40


class Lot(NamedTuple):
    """Money of a wallet: what kind, how much, and until which day from now, if it expires."""

    kind: str
    amount: int
    days: int | None


class Call(NamedTuple):
    """A charge: `repeats` is the number of an earlier call whose exchange it is again, with another amount or not.

    One that is posted `before` the batch is sent again in it.
    """

    payer: int
    shop: int
    amount: int
    fee_percent: int
    counted: str
    repeats: int | None
    same_amount: bool
    before: bool


lots = st.builds(
    Lot,
    st.sampled_from(("funded", "promo", "funded", "promo", "funded", "promo", "first shop's", "second shop's")),
    st.integers(1, 60),
    st.sampled_from((None, 1, 2, -1)),
)
calls = st.builds(
    Call,
    st.sampled_from((0, 0, 0, 0, 1, 1, 1, 2, 2, 3)),
    st.sampled_from((0, 0, 1)),
    st.one_of(st.integers(1, 12), st.sampled_from((0, 30, 60, 200))),
    st.sampled_from((0, 0, 3, 50, 100)),
    st.sampled_from(("", "", "", "calls", "money", "both", "unbounded")),
    st.sampled_from((None,) * 20 + (0, 1, 2)),
    st.booleans(),
    st.sampled_from((False,) * 20 + (True,)),
)
uncounted = calls.map(lambda call: call._replace(counted=""))
plans = st.one_of(st.lists(calls, min_size=1, max_size=14), st.lists(uncounted, min_size=2, max_size=14))
wallets_of = st.tuples(*(st.lists(lots, min_size=least, max_size=4) for least in (2, 1, 0)))


@dataclass
class Side:
    """One of the twins: agents, shops and what they were asked for."""

    agents: list[Agent]
    shops: list[Shop]
    charges: list[Charge]
    before: list[Charge]
    verdicts: list[ChargeVerdict]


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(money=wallets_of, plan=plans, worker=st.sampled_from(("none", "runs", "runs", "runs", "fenced")))
async def test_a_batch_says_and_writes_what_its_charges_do_one_by_one(
    money: tuple[list[Lot], ...], plan: list[Call], worker: str, connection: Connection, world: World
) -> None:
    worker_id = await a_worker(connection, worker)
    together, alone = [await a_side(world, connection, money, plan) for _ in range(2)]
    for side in (together, alone):
        for charge in side.before:
            await post(connection, [charge], worker_id, [])
    fees = await platform_fees(connection)
    together.verdicts = await as_the_gateway_does(connection, together.charges, worker_id)
    fees_together = await platform_fees(connection) - fees
    for charge in alone.charges:
        alone.verdicts += await post(connection, [charge], worker_id, [])
    fees_alone = await platform_fees(connection) - fees - fees_together
    describe(together)
    assert together.verdicts == alone.verdicts
    assert await written(connection, together) == await written(connection, alone)
    assert fees_together == fees_alone
    report = await proof.verify(connection)
    assert report.sound, report.violations


def describe(side: Side) -> None:
    for charge, verdict in zip(side.charges, side.verdicts, strict=True):
        event(verdict.verdict)
        if [verdict.deposit, verdict.promotional, verdict.funded].count(0) < 2:
            event("drawn from several kinds of lots")
        if verdict.verdict == "posted" and charge.counters:
            event("posted and counted")


async def a_worker(connection: Connection, state: str) -> int | None:
    if state == "none":
        return None
    worker = await START_WORKER.one(connection, floor_at(0), [])
    if state == "fenced":
        await connection.execute("UPDATE ledger.worker SET fenced_at = now() WHERE id = $1", worker)
    return worker


async def a_side(world: World, connection: Connection, money: Sequence[list[Lot]], plan: list[Call]) -> Side:
    shops = [await world.publisher(), await world.publisher()]
    agents = [await world.agent() for _ in money]
    for agent, own in zip(agents, money, strict=True):
        for number, lot in enumerate(own):
            await give(connection, agent, shops, str(number), lot)
    charges: list[Charge] = []
    for call in plan:
        charges.append(charge_of(call, agents, shops, charges))
    before = [charge for charge, call in zip(charges, plan, strict=True) if call.before]
    # A batch takes what costs something before what is free.
    return Side(agents, shops, sorted(charges, key=lambda charge: charge.amount == 0), before, [])


async def give(connection: Connection, agent: Agent, shops: list[Shop], reference: str, lot: Lot) -> None:
    if lot.kind.endswith("shop's"):
        shop = shops[lot.kind == "second shop's"]
        await wallets.deposit(
            connection, agent.wallet_id, publisher_id=shop.id, reference=reference, amount=lot.amount,
            rail="eip155:8453",
        )  # fmt: skip
        return
    until = None if lot.days is None else datetime.now(UTC) + timedelta(days=lot.days)
    source = "fiat_purchase" if lot.kind == "funded" else "promo_code"
    await wallets.grant(
        connection, agent.wallet_id, source=source, reference=reference, amount=lot.amount, expires_at=until
    )


def charge_of(call: Call, agents: list[Agent], shops: list[Shop], before: list[Charge]) -> Charge:
    amount = call.amount
    if call.repeats is not None and call.repeats < len(before) and before[call.repeats].amount and amount:
        first = before[call.repeats]
        if call.same_amount:
            return first
        return replace(first, amount=amount, fee=amount * call.fee_percent // 100)
    payer = agents[call.payer] if call.payer < len(agents) else None
    shop = shops[call.shop]
    counted = call.counted or ("calls" if amount == 0 else "")
    scope = payer.id if payer is not None else UUID(int=0)
    counters = {
        "calls": Counter(scope, shop.id, "calls", DAY, 1, 0, MOST_CALLS),
        "money": Counter(scope, shop.id, "spent", DAY, None, 0, MOST_MONEY),
        "unbounded": Counter(scope, shop.id, "seen", DAY, 1),
    }
    names = ("calls", "money") if counted == "both" else (counted,) if counted else ()
    return Charge(
        uuid7(), payer.wallet_id if payer is not None else UNKNOWN_WALLET, shop.id, shop.account_id, amount,
        amount * call.fee_percent // 100, tuple(counters[name] for name in names),
    )  # fmt: skip


async def as_the_gateway_does(
    connection: Connection, charges: list[Charge], worker_id: int | None
) -> list[ChargeVerdict]:
    """Post a batch; where an exchange in it was posted before, again item by item (batches.py)."""
    try:
        return await post(connection, charges, worker_id, [])
    except UniqueViolation:
        event("sent again item by item")
        return [verdict for charge in charges for verdict in await post(connection, [charge], worker_id, [])]


async def platform_fees(connection: Connection) -> int:
    return await connection.fetchval(
        "SELECT coalesce(sum(s.credits - s.debits), 0)::bigint FROM ledger.shard s JOIN ledger.account a"
        " ON a.id = s.account_id WHERE a.purpose = 'fees'"
    )


async def written(connection: Connection, side: Side) -> dict[str, Any]:
    """Return everything that charges write, in words that mean the same for both sides."""
    exchanges = [charge.exchange_id for charge in side.charges]
    names: dict[Any, str] = {UUID(int=0): "nobody"}
    names |= {agent.id: f"agent {number}" for number, agent in enumerate(side.agents)}
    names |= {shop.id: f"shop {number}" for number, shop in enumerate(side.shops)}
    names |= {shop.account_id: f"earnings {number}" for number, shop in enumerate(side.shops)}
    owned = await connection.fetch(
        "SELECT id, wallet_id, reference, balance, spent FROM ledger.account WHERE wallet_id = ANY ($1) ORDER BY id",
        [agent.wallet_id for agent in side.agents],
    )
    numbers = {agent.wallet_id: number for number, agent in enumerate(side.agents)}
    for row in owned:
        names[row["id"]] = f"lot {row['reference']} of agent {numbers[row['wallet_id']]}"
    transfers = await connection.fetch(
        "SELECT cause_id, kind::text, leg, worker_id, debit_account, credit_account, wallet_id, amount, fee"
        " FROM ledger.transfer WHERE cause_id = ANY ($1) ORDER BY array_position($1, cause_id), kind, leg",
        exchanges,
    )
    counted = await connection.fetch(
        "SELECT * FROM ledger.counted WHERE exchange_id = ANY ($1) ORDER BY array_position($1, exchange_id), kind",
        exchanges,
    )
    counters = await connection.fetch(
        "SELECT * FROM ledger.counter WHERE subject = ANY ($1) ORDER BY array_position($1, subject), kind, scope = $2",
        [shop.id for shop in side.shops],
        UUID(int=0),
    )
    shards = await connection.fetch(
        "SELECT account_id, sum(debits) AS debits, sum(credits) AS credits FROM ledger.shard"
        " WHERE account_id = ANY ($1) GROUP BY account_id ORDER BY account_id",
        [shop.account_id for shop in side.shops],
    )
    return {
        "transfers": [
            (exchanges.index(row["cause_id"]), row["kind"], row["leg"], row["worker_id"], names[row["debit_account"]],
             names[row["credit_account"]], numbers[row["wallet_id"]], row["amount"], row["fee"])
            for row in transfers
        ],
        "lots": [(names[row["id"]], row["balance"], row["spent"]) for row in owned],
        "counted": [
            (exchanges.index(row["exchange_id"]), names[row["scope"]], names[row["subject"]], row["kind"],
             row["period"], row["amount"], row["money"], row["alone"], row["worker_id"])
            for row in counted
        ],
        "counters": sorted(
            (names[row["scope"]], names[row["subject"]], row["kind"], row["period"], row["value"]) for row in counters
            if row["value"]
        ),
        "earnings": [(names[row["account_id"]], row["debits"], row["credits"]) for row in shards],
    }  # fmt: skip
