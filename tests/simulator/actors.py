"""What each kind of operation does. Work that answers 'unavailable' or loses its connection is tried again until it has
a definite answer, as a careful client does; the ledger must make that safe.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

from gateway.billing import budgets, credits
from gateway.database.pool import LOST, Connection
from gateway.errors import Conflict, EarningsShort, NotEligible, NotFound, Unavailable
from gateway.ids import uuid7
from gateway.jobs.expire import expire_lots, expire_stored_answers
from gateway.ledger import wallets
from gateway.ledger.entries import Settlement
from gateway.ledger.exchanges import refund
from gateway.ledger.holds import Capture, Hold
from gateway.ledger.resolutions import resolve, unended
from tests.simulator.callers import Attempt
from tests.simulator.conductor import EPOCH, SimulationError
from tests.simulator.payouts import ask
from tests.simulator.plan import Operation
from tests.simulator.process import Process
from tests.simulator.town import Held, Town
from tests.support.world import USDC

Result = TypeVar("Result")
MOST_TRIES = 400


async def act(town: Town, operation: Operation) -> None:
    """Do one operation to its end."""
    town.publishers.scripts[operation.number] = operation.script
    await ACTORS[operation.kind](town, operation)


async def call(town: Town, op: Operation) -> None:
    """Call once, without a key."""
    process = await town.some_process()
    await attempt(town, process, op, key=None)


async def keyed(town: Town, op: Operation) -> None:
    """Call with a key until there is an answer, then sometimes ask once more."""
    key = f"key-{op.number}"
    answer = await until_answered(town, op, key)
    if op.manner & 4 and is_kept(town, answer):
        again = await until_answered(town, op, key)
        if not again.replayed or (again.status, again.body) != (answer.status, answer.body):
            raise SimulationError(f"call {op.number}: asked again, got another answer: {answer} then {again}")


async def twice(town: Town, op: Operation) -> None:
    """Two callers with one key at once."""
    key = f"key-{op.number}"
    one, two = await asyncio.gather(until_answered(town, op, key), until_answered(town, op, key))
    if is_kept(town, one) and is_kept(town, two) and (one.status, one.body) != (two.status, two.body):
        raise SimulationError(f"call {op.number}: two answers for one key: {one} and {two}")


async def rush(town: Town, op: Operation) -> None:
    """Several calls at once: those that come while another is charged are charged in one batch."""
    process = await town.some_process()
    await asyncio.gather(*(attempt(town, process, op, key=None) for _ in range(3 + op.manner % 3)))


def is_kept(town: Town, answer: Attempt) -> bool:
    """Return whether an answer must be given again: its publisher heard the call, and the database was there."""
    return answer.exchange_id in town.publishers.heard and not answer.troubled


async def until_answered(town: Town, op: Operation, key: str) -> Attempt:
    """Repeat a keyed call until it has an answer of its own."""
    town.keys_waiting += 1
    for _ in range(MOST_TRIES):
        process = await town.some_process()
        made = await attempt(town, process, op, key=key)
        if made.complete and not made.headers.get("retry-after"):
            town.keys_waiting -= 1
            return made
        await asyncio.sleep(0.5)
    raise SimulationError(f"call {op.number} never got an answer")


async def attempt(town: Town, process: Process, op: Operation, *, key: str | None) -> Attempt:
    """Make one try."""
    leaves = not town.conductor.calm and town.conductor.random.random() < town.plan.leaves
    shop = (op.shop, town.shops[op.shop])
    return await town.caller.attempt(process, op.number, town.agents[op.agent], shop, key=key, leaves=leaves)


async def hold(town: Town, op: Operation) -> None:
    """Reserve, then capture a part or nothing."""
    process, agent, shop = await town.some_process(), town.agents[op.agent], town.shops[op.shop]
    capture = 0 if op.manner & 1 else op.manner % op.amount + 1
    fact = Held(str(uuid7()), op.agent, process, op.amount, capture)
    town.held.append(fact)
    exchange, holds, budget = UUID(fact.exchange_id), process.services.holds, town.key_budget(op.agent)
    today = (EPOCH + timedelta(seconds=town.conductor.loop.time())).date()
    counters = () if budget is None else budgets.decide(budget, USDC, op.amount, today)
    if not isinstance(counters, tuple):  # a key never pays so much for a call
        return

    async def work() -> None:
        verdict = await holds.place(Hold(exchange, agent.wallet_id, shop.id, shop.account_id, op.amount, counters))
        fact.placed = verdict.verdict
        if verdict.verdict in ("held", "repeated"):
            await town.conductor.turn(f"call {op.number} is measured: {capture} of {op.amount}")
            if op.manner & 4:  # a long query: what it was paid from may expire meanwhile
                await asyncio.sleep(op.manner % 30)
            fact.ended = "asked"
            end = Settlement(exchange, "delivered", 200, 0, 0)
            ending = Capture(end, capture, town.fee_of(op.shop, capture))
            if op.manner & 2:
                holds.finish_later(ending)
            else:
                fact.ended = (await holds.finish(ending)).verdict

    await once(process, work())


async def grant(town: Town, op: Operation) -> None:
    """Credit a wallet once, by a reference that is repeated until the answer comes."""
    await _grant(town, op, "fiat_purchase", None)


async def promo(town: Town, op: Operation) -> None:
    """Credit a lot that expires: in hours or in seconds, under the eyes of the calls; some are born expired."""
    lasts = timedelta(hours=op.manner % 100 - 2) if op.manner & 1 else timedelta(seconds=op.manner % 50 - 20)
    await _grant(town, op, "promo_code", lasts)


async def _grant(town: Town, op: Operation, source: str, lasts: timedelta | None) -> None:
    expires_at = None if lasts is None else EPOCH + timedelta(seconds=town.conductor.loop.time()) + lasts
    wallet, reference = town.agents[op.agent].wallet_id, f"op-{op.number}"
    await until_done(
        town,
        lambda connection: wallets.grant(
            connection, wallet, source=source, reference=reference, amount=op.amount, expires_at=expires_at
        ),
    )
    town.granted[op.agent] += op.amount


async def bonus(town: Town, op: Operation) -> None:
    """Credit what comes on top of a deposit: spent like money, and paid for by nobody."""
    await _grant(town, op, "tier_bonus", None)


async def payout(town: Town, op: Operation) -> None:
    """Ask for all that a publisher can be paid now."""
    process = await town.some_process()
    await once(process, ask(process.services, town.shops[op.shop].id, op.manner % 4 == 0))


async def deposit(town: Town, op: Operation) -> None:
    """Credit a lot for one publisher."""
    wallet, shop = town.agents[op.agent].wallet_id, town.shops[op.shop].id
    await until_done(
        town,
        lambda connection: wallets.deposit(
            connection, wallet, publisher_id=shop, reference=f"op-{op.number}", amount=op.amount, rail="eip155:8453"
        ),
    )
    town.granted[op.agent] += op.amount


async def signup(town: Town, op: Operation) -> None:
    """Claim the signup bonus: one for each agent and one for its referrer, whatever happens."""
    process = await town.some_process()
    now = EPOCH + timedelta(seconds=town.conductor.loop.time())
    money = process.services.settings.money
    await once(process, credits.claim_signup(process.services.database, town.agents[op.agent].id, USDC, money, now))


async def daily(town: Town, op: Operation) -> None:
    """Claim today's credit."""
    process = await town.some_process()
    now = EPOCH + timedelta(seconds=town.conductor.loop.time())
    money = process.services.settings.money
    await once(process, credits.claim_daily(process.services.database, town.agents[op.agent].id, USDC, money, now))


async def give_back(town: Town, op: Operation) -> None:
    """Refund an exchange that has ended, as a publisher may."""
    made = [attempt for attempt in town.caller.attempts if attempt.complete and attempt.status == 200]
    if not made:
        return
    exchange = made[op.manner % len(made)].exchange_id
    town.given_back.add(exchange)
    grace = town.grace
    await until_done(
        town,
        lambda connection: refund(
            connection, UUID(exchange), reason="publisher", status=None, grace=grace, only_open=False
        ),
    )


async def operator(town: Town, op: Operation) -> None:
    """End an open exchange by hand; the caller of a live one may be just being served."""
    process = await town.some_process()
    database, decision = process.services.database, "keep" if op.manner & 1 else "refund"

    async def work() -> None:
        async with database.acquire() as connection:
            rows = await unended(connection, dead_after=timedelta(seconds=15))
        if rows:
            row = rows[op.manner % len(rows)]
            town.resolved[str(row.exchange_id)].add(decision)
            async with database.transaction() as connection:
                await resolve(connection, row.exchange_id, decision, actor="simulator", note=None, grace=town.grace)

    await once(process, work())


async def beat(town: Town, op: Operation) -> None:
    """One process says that it lives."""
    process = await town.some_process()
    await once(process, process.beat())


async def reconcile(town: Town, op: Operation) -> None:
    """One process looks for dead ones."""
    process = await town.some_process()
    await once(process, process.reconciler.run())


async def expire(town: Town, op: Operation) -> None:
    """Book expired lots."""
    process = await town.some_process()
    await once(process, expire_lots(process.services.database))


async def forget(town: Town, op: Operation) -> None:
    """Remove expired keys."""
    process = await town.some_process()
    await once(process, expire_stored_answers(process.services.database))


async def pass_hours(town: Town, op: Operation) -> None:
    """Let hours go by, when no request is under way."""
    await town.conductor.turn(f"{op.manner % 30} hours pass, if nobody waits")
    if town.conductor.at_rest and not town.keys_waiting:
        town.conductor.tick(op.manner % 30 * 3600.0)


async def lock(town: Town, op: Operation) -> None:
    """Hold a wallet's row for some steps, as a slow transaction elsewhere would."""
    process = await town.some_process()

    async def work() -> None:
        async with process.services.database.transaction() as connection:
            await wallets.LOCK_WALLET.run(connection, town.agents[op.agent].wallet_id)
            for _ in range(op.manner % 8):
                await town.conductor.turn(f"wallet of agent {op.agent} stays locked")

    await once(process, work())


async def once(process: Process, work: Awaitable[Any]) -> None:
    """Do work in a process that may fail or die; periodic jobs and people try again later."""

    async def tried() -> None:
        try:
            await work
        except (*LOST, Unavailable, Conflict, EarningsShort, NotEligible, NotFound):
            pass

    task = process.spawn(tried())
    await asyncio.wait({task})
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error


async def until_done(town: Town, work: Callable[[Connection], Awaitable[Result]]) -> Result:
    """Do repeatable work in some process until an answer comes back."""
    for _ in range(MOST_TRIES):
        process = await town.some_process()

        async def tried(process: Process = process) -> Result:
            async with process.services.database.acquire() as connection:
                return await work(connection)

        task = process.spawn(tried())
        await asyncio.wait({task})
        if not task.cancelled():
            error = task.exception()
            if error is None:
                return task.result()
            if not isinstance(error, (*LOST, Unavailable)):
                raise error
        await asyncio.sleep(0.5)
    raise SimulationError("an operation never got an answer")


ACTORS: dict[str, Callable[[Town, Operation], Awaitable[None]]] = {
    "call": call, "keyed": keyed, "twice": twice, "rush": rush, "hold": hold, "grant": grant, "promo": promo, "deposit": deposit,
    "payout": payout, "bonus": bonus, "signup": signup, "daily": daily, "refund": give_back, "resolve": operator, "beat": beat, "reconcile": reconcile,
    "expire": expire, "forget": forget, "pass": pass_hours, "lock": lock,
}  # fmt: skip
