"""Any interleaving of grant, charge, count, hold, capture, refund and expiry keeps every rule of the proof.

Hypothesis drives the real functions on a real PostgreSQL beside a model that is a page of integers.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.database.pool import Connection
from gateway.ids import uuid7
from gateway.ledger import proof, wallets
from gateway.ledger.counters import READ_COUNTER, Counter
from gateway.ledger.entries import Charge, post
from gateway.ledger.exchanges import END_HOLD, refund
from gateway.ledger.holds import Hold, post_holds
from tests.support.world import World

GRACE = timedelta(days=7)
MOST_CALLS, MOST_MONEY = 6, 150
"""What the second shop's calls may come to; the first one's are not counted."""

amounts = st.integers(1, 60)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("grant"), amounts, st.booleans()),
        st.tuples(st.just("promo"), amounts, st.booleans()),
        st.tuples(st.just("deposit"), amounts, st.booleans()),
        st.tuples(st.just("charge"), amounts, st.booleans()),
        st.tuples(st.just("batch"), st.lists(amounts, min_size=2, max_size=5), st.booleans()),
        st.tuples(st.just("free"), st.just(0), st.just(True)),
        st.tuples(st.just("hold"), amounts, st.booleans()),
        st.tuples(st.just("end"), st.integers(0, 60), st.booleans()),
        st.tuples(st.just("refund"), st.integers(0, 5), st.booleans()),
        st.tuples(st.just("expire"), st.just(0), st.booleans()),
    ),
    max_size=25,
)


class Model:
    """What must come out, in integers: spendable money per shop, open holds, what each exchange took and counted."""

    def __init__(self) -> None:
        self.general = 0
        self.deposits = [0, 0]
        self.holds: dict[object, int] = {}
        self.taken: dict[object, int] = {}
        self.parts: dict[object, tuple[int, int]] = {}
        self.earned = 0
        self.counted: dict[object, int] = {}

    def counts(self, exchange: object, amount: int, shop: int) -> bool:
        """Count what is wanted of the second shop, or say that it goes beyond the bounds."""
        if shop == 1:
            if len(self.counted) >= MOST_CALLS or sum(self.counted.values()) + amount > MOST_MONEY:
                return False
            self.counted[exchange] = amount
        return True

    def take(self, amount: int, shop: int) -> tuple[int, int] | None:
        """Draw deposit first; return (deposit, general) or None when it does not fit."""
        if self.general + self.deposits[shop] < amount:
            return None
        deposit = min(self.deposits[shop], amount)
        self.deposits[shop] -= deposit
        self.general -= amount - deposit
        return deposit, amount - deposit


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=steps)
async def test_every_interleaving_keeps_the_books(plan, connection: Connection, world: World) -> None:
    await play(plan, connection, world)


async def play(plan, connection: Connection, world: World) -> None:
    agent, shops, model = await world.agent(), [await world.publisher(), await world.publisher()], Model()
    for number, (kind, value, flag) in enumerate(plan):
        index = int(flag)
        shop = shops[index]
        if kind in ("grant", "promo"):
            source = "fiat_purchase" if kind == "grant" else "promo_code"
            later = datetime.now(UTC) + timedelta(days=1 + number) if flag else None
            await wallets.grant(
                connection, agent.wallet_id, source=source, reference=str(number), amount=value, expires_at=later
            )
            model.general += value
        elif kind == "deposit":
            await wallets.deposit(
                connection,
                agent.wallet_id,
                publisher_id=shop.id,
                reference=str(number),
                amount=value,
                rail="eip155:8453",
            )
            model.deposits[index] += value
        elif kind == "charge":
            await charge(connection, agent, shop, index, model, value)
        elif kind == "batch":
            await batch(connection, agent, shop, index, model, value)
        elif kind == "free":
            await batch(connection, agent, shop, index, model, [value])
        elif kind == "hold":
            await hold(connection, agent, shop, index, model, value)
        elif kind == "end" and model.holds:
            await end(connection, model, value)
        elif kind == "refund" and model.taken:
            exchange = list(model.taken)[value % len(model.taken)]
            undone = await refund(connection, exchange, reason="x", status=None, grace=GRACE, only_open=False)
            assert (undone.verdict, undone.amount) == ("refunded", model.taken.pop(exchange))
            model.counted.pop(exchange, None)
            where, deposit = model.parts[exchange]
            model.deposits[where] += deposit
            model.general += undone.amount - deposit
            model.earned -= undone.amount
        elif kind == "expire":
            lost = await connection.fetchval(
                "UPDATE ledger.account SET expires_at = now() WHERE id = (SELECT min(id) FROM ledger.account"
                " WHERE wallet_id = $1 AND purpose = 'promotional' AND NOT spent) RETURNING balance",
                agent.wallet_id,
            )
            await wallets.EXPIRE_LOTS.one(connection, 100)
            model.general -= int(lost or 0)
    assert await world.balance(agent) == model.general + sum(model.deposits)
    assert await world.earned(shops[0]) + await world.earned(shops[1]) == model.earned
    stands = [
        await READ_COUNTER.one(connection, c.scope, c.subject, c.kind, c.period) for c in counters(agent, shops[1], 1)
    ]
    assert stands == [len(model.counted), sum(model.counted.values())]
    report = await proof.verify(connection)
    assert report.sound, report.violations


async def charge(connection, agent, shop, index, model, value) -> None:
    await batch(connection, agent, shop, index, model, [value])


async def batch(connection, agent, shop, index, model, values) -> None:
    charges = [
        Charge(uuid7(), agent.wallet_id, shop.id, shop.account_id, value, 0, counters(agent, shop, index))
        for value in values
    ]
    verdicts = await post(connection, charges, None, [])
    for charged, verdict, value in zip(charges, verdicts, values, strict=True):
        record(model, charged.exchange_id, verdict, index, value)


def record(model, exchange, verdict, index, value) -> None:
    if not model.counts(exchange, value, index):
        assert verdict.verdict == "beyond"
        return
    parts = model.take(value, index)
    assert verdict.verdict == ("short" if parts is None else "posted")
    if parts is None:
        model.counted.pop(exchange, None)
        return
    assert (verdict.deposit, verdict.promotional + verdict.funded) == parts
    model.taken[exchange], model.parts[exchange] = value, (index, parts[0])
    model.earned += value


def counters(agent, shop, index) -> tuple[Counter, ...]:
    if index == 0:
        return ()
    day = date(2031, 3, 1)
    return (
        Counter(agent.id, shop.id, "calls", day, 1, 0, MOST_CALLS),
        Counter(agent.id, shop.id, "spent", day, None, 0, MOST_MONEY),
    )


async def hold(connection, agent, shop, index, model, value) -> None:
    exchange = uuid7()
    placed = Hold(exchange, agent.wallet_id, shop.id, shop.account_id, value, counters(agent, shop, index))
    (verdict,) = await post_holds(connection, [placed], None, [], GRACE)
    if not model.counts(exchange, value, index):
        assert verdict.verdict == "beyond"
        return
    parts = model.take(value, index)
    assert verdict.verdict in (("short", "busy") if parts is None else ("held",))
    if parts is None:
        model.counted.pop(exchange, None)
    else:
        model.holds[exchange], model.parts[exchange] = value, (index, parts[0])


async def end(connection, model, value) -> None:
    exchange, held = next(iter(model.holds.items()))
    verdict = await END_HOLD.one(connection, exchange, str(value), "0", "x", None, 0, 0, GRACE)
    if value > held:
        assert verdict.verdict == "excess"
        return
    assert verdict.verdict == ("captured" if value else "voided")
    del model.holds[exchange]
    index, deposit = model.parts[exchange]
    if exchange in model.counted:
        model.counted[exchange] = value
        if not value:
            del model.counted[exchange]
    kept = min(deposit, value)
    model.deposits[index] += deposit - kept
    model.general += held - value - (deposit - kept)
    if value:
        model.taken[exchange], model.parts[exchange] = value, (index, kept)
        model.earned += value
