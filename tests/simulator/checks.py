"""What must hold: the books against the model at any moment, and what every caller got against what was paid.

A judge knows what really happened (scripts, callers, the order of the journal) and believes nothing that the gateway
says of itself, such as X-Cost. What it excuses it excuses for one stated reason: a worker that was fenced, a process
that was killed before it could write. Each excuse hides defects, and sabotage.py tells which.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import permutations
from typing import Any
from uuid import UUID

from gateway.database.pool import Connection
from gateway.ledger import proof
from pricing.money import format_amount
from tests.simulator.callers import Attempt
from tests.simulator.conductor import EPOCH
from tests.simulator.counts import Counts
from tests.simulator.model import Account, Model, Row, expect
from tests.simulator.payouts import Judge
from tests.simulator.publishers import STATUSES, Heard
from tests.simulator.tariffs import DECIMALS
from tests.simulator.town import Held, Town

ANSWERS = ("whole", "pieces", "slow", "error", "missing", "breaks")  # scripts by which something comes back
DELIVERED = (200, 404)  # the gateway itself gives neither here


class Books:
    """Checks the database against the model and the proof. Call it only when nothing runs."""

    def __init__(self, town: Town) -> None:
        self._town = town
        self.counts = Counts(town)
        self._payouts = Judge()
        self._seen: Counter[int] = Counter()
        shops = {shop.account_id: index for index, shop in enumerate(town.shops)}
        self.model = Model(
            grace=town.grace,
            hold_account=self._hold_account,
            fee_of=lambda account, amount: town.fee_of(shops[account], amount),
        )

    def check(self) -> None:
        """Raise SimulationError when anything is wrong."""
        self._town.conductor.observer.look(self._check)

    async def _check(self, connection: Connection) -> None:
        report = await proof.verify(connection)
        expect(report.sound, f"the ledger's own proof fails: {report.violations}")
        await self._follow(connection)
        self.model.check_whole()
        await self._payouts.follow(connection, self.model)
        await self._compare(connection)
        await self.counts.follow(connection)
        self.counts.check_money(self.model)
        await _check_ended_stays_ended(connection, self._town)
        late = await connection.fetch(
            "SELECT j.kind, j.cause_id FROM simulator.journal j JOIN simulator.fenced f USING (worker_id) WHERE j.seq > f.seq"
        )
        expect(not late, f"moved in the name of a worker that was fenced before: {late}")
        total = await connection.fetchval(
            "SELECT (SELECT coalesce(sum(balance), 0) FROM ledger.account)"
            " + (SELECT coalesce(sum(credits - debits), 0) FROM ledger.shard)"
        )
        expect(total == 0, f"all accounts together hold {total}")

    async def _follow(self, connection: Connection) -> None:
        """Apply what the journal has beyond the last check, wallet by wallet."""
        for row in await connection.fetch(
            "SELECT id, purpose::text, wallet_id, publisher_id, fee_account_id, source FROM ledger.account"
        ):
            self.model.accounts.setdefault(row["id"], Account(**dict(row)))
        fresh: defaultdict[int, list[Row]] = defaultdict(list)
        for record in await connection.fetch("SELECT * FROM simulator.journal ORDER BY wallet_id, seq"):
            row = Row(**{**dict(record), "amount": int(record["amount"]), "fee": int(record["fee"])})
            if row.seq > self._seen[row.wallet_id]:
                fresh[row.wallet_id].append(row)
        holds = await connection.fetch("SELECT exchange_id, account_id FROM ledger.hold")
        self._holds = {row["exchange_id"]: row["account_id"] for row in holds}
        for wallet, rows in fresh.items():
            self.model.apply(rows)
            self._seen[wallet] = rows[-1].seq

    def _hold_account(self, exchange: Any) -> int:
        return self._holds[exchange]

    async def _compare(self, connection: Connection) -> None:
        model = self.model
        for row in await connection.fetch(
            "SELECT id, purpose::text, wallet_id, balance, expires_at, spent FROM ledger.account WHERE balance IS NOT NULL"
        ):
            if row["purpose"] == "held":
                expect(row["balance"] == model.held[row["wallet_id"]], f"wallet {row['wallet_id']} holds {row['balance']}, "
                       f"expected {model.held[row['wallet_id']]}")  # fmt: skip
                continue
            lot = model.lots[row["id"]]
            actual, wanted = (row["balance"], row["expires_at"]), (lot.balance, lot.expires_at)
            expect(actual == wanted, f"lot {row['id']} of wallet {row['wallet_id']} is {actual}, expected {wanted}")
        for row in await connection.fetch(
            "SELECT account_id, sum(debits) AS debits, sum(credits) AS credits FROM ledger.shard GROUP BY account_id"
        ):
            account = row["account_id"]
            actual, wanted = (row["debits"], row["credits"]), (model.debits[account], model.credits[account])
            expect(actual == wanted, f"account {account} has debits and credits {actual}, expected {wanted}")


@dataclass(frozen=True)
class End:
    """How the database says that an exchange ended: none (nothing was charged), settled, refunded or open."""

    exchange_id: str
    end: str
    charged: int


def check_ends(town: Town, books: Books) -> None:
    """Hold what the callers saw against what they paid. Call it when every process has stopped."""
    ends = town.conductor.observer.look(_ends)
    _check_one_at_a_time(town, town.conductor.observer.look(_fenced))
    heard = town.publishers.heard
    paid: Counter[str] = Counter()
    for attempt in town.caller.attempts:
        end = ends.get(attempt.exchange_id, End(attempt.exchange_id, "none", 0))
        price, booked = price_of(town, books, attempt), town.plan.books(attempt.shop)
        allowed = may_end(town, attempt, booked=booked)
        if attempt.complete and attempt.status in DELIVERED and not attempt.replayed:
            due = format_amount(price if costs(town, attempt) else 0, DECIMALS)
            expect(attempt.cost == due, f"{attempt} says that it cost {attempt.cost}, expected {due}")
        expect(end.end in allowed, f"{attempt} ended {end.end}, allowed is {sorted(allowed)}")
        expect(end.charged in (0, price), f"{attempt} was charged {end.charged}, the price is {price}")
        if booked and attempt.exchange_id in heard:
            expect(end.end != "none", f"{attempt} reached its publisher without being paid first")
        kept = "keep" in town.resolved.get(attempt.exchange_id, ())  # an operator's word stands above the rule
        if end.end == "settled" and attempt.key is not None and not kept:
            paid[attempt.key] += 1
            expect(paid[attempt.key] == 1, f"key {attempt.key} was paid for {paid[attempt.key]} times")
            _check_answers(town, attempt)
        if attempt.key is not None and booked and costs(town, attempt):
            _check_paid_for(town, attempt, ends)
    for held in town.held:
        end = ends.get(held.exchange_id, End(held.exchange_id, "none", 0))
        expect((end.end, end.charged) in held_may_end(town, held), f"{held} ended {end}")
    _check_totals(town, books, ends)
    books.counts.check_ends({end.exchange_id for end in ends.values() if end.end == "settled"})


def price_of(town: Town, books: Books, attempt: Attempt) -> int:
    """Return what an attempt costs: a publisher's one price, or that of the place that it has got; 0 without one."""
    if town.plan.tiers[attempt.shop] is None:
        return town.plan.prices[attempt.shop]
    exchange = UUID(attempt.exchange_id)
    return books.counts.price_of(exchange) if exchange in books.counts.places else 0


def _check_answers(town: Town, paid: Attempt) -> None:
    """Every answer that was given for a key is the one that was paid for."""
    for attempt in town.caller.attempts:
        if attempt.key == paid.key and attempt.complete and attempt.status == 200:
            expect(paid.exchange_id.encode() in attempt.body, f"{attempt} got another answer than the one paid for")


def held_may_end(town: Town, held: Held) -> set[tuple[str, int]]:
    """Return how a held call may have ended and what it may have cost."""
    given_back = {("refunded", held.capture), ("refunded", 0)}
    captured = ("settled", held.capture) if held.capture else ("refunded", 0)
    if held.exchange_id in town.resolved:  # `keep` captures all that was held
        return {*given_back, captured, *((end, held.amount) for end in ("settled", "refunded"))}
    if held.ended in ("captured", "voided"):
        return {captured}
    if held.ended == "repeated":  # the operator or the reconciler may have been there first, with the same word
        return {captured}
    nothing = {("none", 0), ("refunded", 0)}
    return nothing if held.ended == "" else {*nothing, *given_back, captured}


def costs(town: Town, attempt: Attempt) -> bool:
    """Return whether the answer that its publisher gives to an attempt costs something, by the rule (who-pays.md).

    From the script and the publisher's own list, never from what the gateway says that it cost.
    """
    heard = town.publishers.heard.get(attempt.exchange_id)
    if heard is None or heard.script not in ANSWERS:
        return False
    status = STATUSES.get(heard.script, 200)
    return status < 500 and str(status) not in town.plan.refunds[attempt.shop]


def may_end(town: Town, attempt: Attempt, *, booked: bool) -> set[str]:
    """Return how an exchange may have ended, from what its caller and its publisher know.

    `booked`: its publisher's calls have a price, or a place in tiers, be it free; others leave no trace.
    """
    if not booked or attempt.replayed:
        return {"none"}
    costly, keyed = costs(town, attempt), attempt.key is not None
    ends = {"none", "refunded"}
    if attempt.complete and attempt.status in DELIVERED and costly:
        ends = {"settled"}
        # Without a key it ends after its answer, which its process may not live to write. With one both are one.
        if not keyed and (attempt.process.in_doubt or attempt.process.taken_for_dead):
            ends.add("refunded")
    elif costly and keyed and town.publishers.heard[attempt.exchange_id].script != "breaks":
        ends.add("settled")  # stored without its caller's knowing: whoever asks again gets it (_check_answers)
    elif costly and attempt.left and attempt.status in DELIVERED:
        ends.add("settled")  # who leaves in the middle pays
    if attempt.exchange_id in town.given_back:
        ends.add("refunded")
    resolved = town.resolved.get(attempt.exchange_id, set())
    if "keep" in resolved:
        ends.add("settled")
    if "refund" in resolved and not (keyed and attempt.complete):
        ends.add("refunded")
    return ends


def _check_paid_for(town: Town, first: Attempt, ends: dict[str, End]) -> None:
    """Whoever has a whole answer by a key has one that was paid for, however often it was given again."""
    given = [
        attempt
        for attempt in town.caller.attempts
        if attempt.key == first.key
        and attempt.complete
        and attempt.status == 200
        and first.exchange_id.encode() in attempt.body
    ]
    end = ends.get(first.exchange_id, End(first.exchange_id, "none", 0)).end
    back = first.exchange_id in town.given_back
    expect(not given or end == "settled" or back, f"{given} got the answer of {first}, which ended {end}")


def _check_one_at_a_time(town: Town, fenced: dict[int, datetime]) -> None:
    """No call reaches its publisher while another with its key is under way, unless that one's worker was fenced.

    One whose publisher broke off may have given its key back before it is told that it has.
    """
    tries: defaultdict[str, list[tuple[Attempt, Heard]]] = defaultdict(list)
    for attempt in town.caller.attempts:
        heard = town.publishers.heard.get(attempt.exchange_id)
        if attempt.key is not None and heard is not None:
            tries[attempt.key].append((attempt, heard))
    for same in tries.values():
        for (first, arrived), (second, again) in permutations(same, 2):
            overlap = arrived.step < again.step < (arrived.broke or first.ended)
            moments = [fenced[worker] for worker in first.process.worker_ids if worker in fenced]
            excused = any(moment <= EPOCH + timedelta(seconds=again.at) for moment in moments)
            expect(not overlap or excused, f"{second} reached its publisher while {first} was under way")


async def _fenced(connection: Connection) -> dict[int, datetime]:
    return {row["worker_id"]: row["at"] for row in await connection.fetch("SELECT worker_id, at FROM simulator.fenced")}


async def _check_ended_stays_ended(connection: Connection, town: Town) -> None:
    """What has ended settled stays so, unless its publisher gives it back, or a process could not know a hold's end."""
    may = town.given_back | {held.exchange_id for held in town.held}
    for row in await connection.fetch("SELECT exchange_id::text AS id FROM simulator.undone"):
        expect(row["id"] in may, f"exchange {row['id']} had ended settled and was refunded")


def _check_totals(town: Town, books: Books, ends: dict[str, End]) -> None:
    """Each agent has what it was granted, less what expired and what its settled exchanges cost."""
    spent: Counter[UUID] = Counter()
    known = {attempt.exchange_id: attempt.agent.id for attempt in town.caller.attempts}
    known |= {held.exchange_id: town.agents[held.agent].id for held in town.held}
    for end in ends.values():
        if end.end == "settled":
            spent[known[end.exchange_id]] += end.charged
    for index, agent in enumerate(town.agents):
        has = sum(lot.balance for lot in books.model.lots.values() if lot.account.wallet_id == agent.wallet_id)
        bonuses = town.conductor.observer.look(lambda connection, agent=agent: _bonuses(connection, agent.wallet_id))
        wanted = town.granted[index] + bonuses - books.model.expired[agent.wallet_id] - spent[agent.id]
        expect(has == wanted, f"agent {index} has {has}, expected {wanted}")
        expect(books.model.held[agent.wallet_id] == 0, f"agent {index} still has held money")


async def _ends(connection: Connection) -> dict[str, End]:
    rows = await connection.fetch(
        """
        SELECT t.cause_id::text AS exchange_id, sum(t.amount) FILTER (WHERE t.kind IN ('charge', 'capture')) AS charged,
               bool_or(t.kind = 'refund') AS refunded, max(s.outcome::text) AS outcome
          FROM ledger.transfer t LEFT JOIN ledger.settlement s ON s.exchange_id = t.cause_id
         WHERE t.kind IN ('charge', 'capture', 'refund', 'hold') GROUP BY t.cause_id
        """
    )
    ends: dict[str, End] = {}
    for row in rows:
        end = "refunded" if row["refunded"] else row["outcome"] or "open"
        ends[row["exchange_id"]] = End(row["exchange_id"], end, int(row["charged"] or 0))
    free = await connection.fetch(
        "SELECT DISTINCT d.exchange_id::text AS id, s.outcome::text AS outcome FROM ledger.counted d"
        " LEFT JOIN ledger.settlement s USING (exchange_id) WHERE d.alone"
    )
    ends.update({row["id"]: End(row["id"], row["outcome"] or "open", 0) for row in free})
    return ends


async def _bonuses(connection: Connection, wallet: int) -> int:
    """Return what claims and referrals granted; each may exist once."""
    rows = await connection.fetch(
        "SELECT source, reference, sum(granted)::bigint AS granted, count(*) AS lots FROM ledger.account"
        " WHERE wallet_id = $1 AND source IN ('signup_bonus', 'daily_claim', 'referral_reward') GROUP BY source, reference",
        wallet,
    )
    expect(all(row["lots"] == 1 for row in rows), f"wallet {wallet} was granted a bonus twice: {rows}")
    return sum(row["granted"] for row in rows)
