"""Every kind of money goes through an archive: what charges, cards, payouts and invoices have booked is put away whole, and
what becomes of them later is booked beside it or refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from gateway.billing import charges
from gateway.billing.invoices import issuing, lines
from gateway.billing.invoices.drafts import generate
from gateway.billing.invoices.month import month_of
from gateway.billing.quotas import KIND
from gateway.catalog.earnings import earnings_of
from gateway.database.pool import Database
from gateway.ids import uuid7
from gateway.ledger import counters, proof
from gateway.ledger.archive import archive, check
from gateway.ledger.entries import Charge, Settlement, post
from gateway.ledger.statements import Opening, Subject, of_publisher, of_wallet
from gateway.ledger.statements import read as statement
from gateway.ledger.wallets import FROZEN, HISTORY, HISTORY_COUNT, OWED
from gateway.settings import DatabaseSettings, InvoiceSettings
from tests.ledger.past import GRACE, MONTHS, Past, archived, floor, id_in, month
from tests.support.world import USDC, Agent, Shop

OLD, LATE, YOUNG = 5, 3, 1  # months ago; what is booked late has its cause in the old one
CENT = 10_000
HOLDBACK = timedelta(days=7)
SELLER = InvoiceSettings(seller_name="Tollway", seller_address="A street", seller_country="DE", tax_rates=("DE=19",))
CAUSES = {
    "card.deposit": ("cause_id",),
    "card.refund": ("cause_id", "returned_cause"),
    "card.dispute": ("cause_id", "end_cause", "returned_cause"),
    "card.fee": ("cause_id",),
    "card.recovery": ("cause_id",),
    "invoice.invoice": ("booking", "receipt", "reversal"),
    "ledger.transfer": ("cause_id",),
    "ledger.settlement": ("exchange_id",),
}


def cause_in(ago: int) -> UUID:
    """Return an id in that month; in this one, of now."""
    return id_in(ago) if ago else uuid7()


@dataclass
class Money:
    """A ledger with months behind it, and everything that moves money in it."""

    past: Past
    shop: Shop
    plain: Agent
    agents: dict[str, Agent] = field(default_factory=dict[str, Agent])
    deposits: dict[str, UUID] = field(default_factory=dict[str, UUID])

    async def run(self, query: str, *arguments: object) -> Any:
        return await self.past.connection.fetchval(query, *arguments)

    async def put_back(self, ago: int) -> None:
        """Let what was booked just now have been in a month; of what has an id of an older one, the booking."""
        at, run = month(ago) + timedelta(days=9), self.past.connection.execute
        async with self.past.connection.transaction():
            for table, columns in CAUSES.items():
                await run(f"ALTER TABLE {table} DISABLE TRIGGER USER")
                for column in columns:
                    await run(
                        f"UPDATE {table} SET {column} = overlay({column}::text PLACING left(ledger.id_at($1)::text, 13)"
                        f" FROM 1)::uuid WHERE ledger.moment_of({column}) > now() - interval '1 day'", at,
                    )  # fmt: skip
                if table.startswith("ledger."):
                    stamp = {"ledger.transfer": "created_at", "ledger.settlement": "ended_at"}[table]
                    await run(f"UPDATE {table} SET {stamp} = $1 WHERE {stamp} > now() - interval '1 day'", at)
                await run(f"ALTER TABLE {table} ENABLE TRIGGER USER")

    async def agent(self, name: str) -> Agent:
        self.agents[name] = await self.past.world.agent()
        return self.agents[name]

    async def paid(self, name: str, cents: int, bonus: int = 0) -> UUID:
        """Make a deposit by card that was paid; each has an agent of its own."""
        agent = self.agents.get(name) or await self.agent(name)
        made = uuid7()
        await self.run(
            "INSERT INTO card.deposit (id, wallet_id, cents, amount, bonus, state, expires_at)"
            " VALUES ($1, $2, $3, $4, $5, 'open', now())", made, agent.wallet_id, cents, cents * CENT, bonus,
        )  # fmt: skip
        await self.run("SELECT card.pay($1)", made)
        self.deposits[name] = made
        return made

    async def spent(self, agent: Agent, ago: int, amount: int, counted: bool = False) -> UUID:
        exchange, day = cause_in(ago), month(ago).date()
        count = (
            (counters.Counter(agent.organization_id, agent.organization_id, KIND, day, 1, most=50),) if counted else ()
        )
        charge = Charge(exchange, agent.wallet_id, self.shop.id, self.shop.account_id, amount, amount // 10, count)
        ended = Settlement(exchange, "delivered", 200, 10, 20, "GET", b"\1" * 32)
        assert [one.verdict for one in await post(self.past.connection, [charge], None, [ended])] == ["posted"]
        return exchange

    async def charged(self, ago: int, amount: int = 1_000) -> UUID:
        made, wallet = cause_in(ago), self.plain.wallet_id
        said = await charges.CHARGE.one(
            self.past.connection, made, self.shop.id, wallet, str(amount), str(amount // 10), "x", None
        )
        assert said.verdict == "charged"
        return made

    async def slashed(self, charge: UUID, ago: int, amount: int = 300) -> str:
        return (await charges.SLASH.one(self.past.connection, cause_in(ago), charge, str(amount), "late", None)).verdict

    async def refunded(self, charge: UUID) -> str:
        return (await charges.REFUND_CHARGE.one(self.past.connection, charge, "wrong", None, GRACE)).verdict

    async def payout(self, ago: int, amount: int, penalties: int = 0) -> UUID:
        made, shop = cause_in(ago), self.shop
        await self.run(
            "SELECT chain.request_payout($1, p.organization_id, p.id, $3, 'eip155:8453', b, b, $4, $5, '', NULL, false, $1)"
            " FROM catalog.publisher p, decode(repeat('ab', 20), 'hex') AS x (b) WHERE p.id = $2",
            made, shop.id, USDC, amount, penalties,
        )  # fmt: skip
        return made

    async def sent(self, payout: UUID) -> None:
        """Let the network have paid it."""
        sending = await self.run(
            "INSERT INTO chain.sending (network, sender, nonce, target, data, gas, purpose, status)"
            " SELECT 'eip155:8453', b, 0, b, b, 1, 'payout', 'final' FROM decode(repeat('ab', 20), 'hex') AS x (b)"
            " RETURNING id"
        )
        await self.run("UPDATE chain.payout SET state = 'processing', sending_id = $2 WHERE id = $1", payout, sending)
        assert await self.run("SELECT chain.complete_payout($1, sha256($2::text::bytea))", payout, str(payout))

    async def cancelled(self, payout: UUID) -> None:
        assert await self.run("SELECT chain.return_payout($1, 'cancelled', 'x')", payout)

    async def invoiced(self, names: list[str]) -> dict[str, UUID]:
        """Issue an invoice to each for a plan of the old month."""
        old = month_of(month(OLD).date())
        for name in names:
            agent = self.agents.get(name) or await self.agent(name)
            await self.run(
                "INSERT INTO identity.organization_plan (id, organization_id, plan_id, terms, started_at, ends_at)"
                " VALUES ($1, $2, $1, $3, $4, $5)", uuid7(), agent.organization_id, TERMS, old.start, old.end,
            )  # fmt: skip
        drafts = await self.generated(OLD)
        whose = {agent.organization_id: name for name, agent in self.agents.items()}
        found: dict[str, UUID] = {}
        for one in drafts:
            async with self.past.connection.transaction():
                issued = await issuing.issue(self.past.connection, SELLER, one)
            if issued.organization_id in whose:
                found[whose[issued.organization_id]] = one
        return {name: found[name] for name in names}

    async def generated(self, ago: int) -> list[UUID]:
        database = Database(DatabaseSettings(url=self.past.url))
        await database.start()
        try:
            return await generate(database, SELLER, month_of(month(ago).date()))
        finally:
            await database.stop()

    async def invoice_paid(self, invoice: UUID) -> None:
        receipt = uuid7()
        async with self.past.connection.transaction():
            seen = await issuing.demand(self.past.connection, invoice)
            await self.run(
                "UPDATE invoice.invoice SET status = 'paid', paid_at = now(), receipt = $2 WHERE id = $1",
                invoice,
                receipt,
            )
            await issuing.RECEIVE.run(
                self.past.connection, receipt, seen.asset_id, "stripe", issuing.debtor(seen), seen.due
            )

    async def invoice_void(self, invoice: UUID) -> None:
        async with self.past.connection.transaction():
            assert (await issuing.void(self.past.connection, invoice, "wrong")).status == "void"

    async def card(self, function: str, *arguments: object) -> str:
        places = ", ".join(f"${number}" for number in range(1, len(arguments) + 1))
        async with self.past.connection.transaction():
            return await self.run(f"SELECT card.{function}({places})", *arguments)

    async def disputed(self, name: str, dispute: str, cents: int) -> None:
        assert await self.card("freeze", self.deposits[name], dispute, cents) == "frozen"

    async def sound(self) -> None:
        """Ask the proof, the sums of days, and each wallet's history."""
        report = await proof.verify(self.past.connection)
        assert report.sound, report.violations
        await self.run("SELECT analytics.roll_up(clock_timestamp())")
        assert await self.past.connection.fetch("SELECT * FROM analytics.differences()") == []
        for name, agent in {**self.agents, "plain": self.plain}.items():
            lines = await HISTORY.all(self.past.connection, agent.wallet_id, 1_000, 0)
            lots = await self.run(
                "SELECT sum(balance) FROM ledger.account WHERE wallet_id = $1 AND granted IS NOT NULL", agent.wallet_id
            )
            assert sum(line.amount for line in lines) == (lots or 0), name
            assert await HISTORY_COUNT.one(self.past.connection, agent.wallet_id) == len(lines), name

    async def told(self) -> dict[str, Any]:
        """Return what everybody is told that an archive must not change."""
        everybody = {**self.agents, "plain": self.plain}
        wallets = {
            name: (
                await self.past.world.balance(agent), await OWED.one(self.past.connection, agent.wallet_id),
                await FROZEN.one(self.past.connection, agent.wallet_id), await self.ends(of_wallet(agent.wallet_id)),
            )
            for name, agent in everybody.items()
        }  # fmt: skip
        earnings = await earnings_of(self.past.connection, self.shop.id, HOLDBACK)
        assert earnings[USDC].holdings.available > 0
        assert earnings[USDC].all_free_at is not None, "something is held back"
        publisher = await of_publisher(self.past.connection, self.shop.id, USDC)
        invoices = {ago: await self.bought(ago) for ago in (OLD, LATE, YOUNG)}
        return {**wallets, "earnings": earnings, "publisher": await self.ends(publisher), "invoices": invoices}

    async def bought(self, ago: int) -> dict[str, lines.Bought]:
        """Return what the invoices of a month would say."""
        then, connection = month_of(month(ago).date()), self.past.connection
        everybody = {**self.agents, "plain": self.plain}
        found = {
            name: await lines.lines_of(connection, agent.organization_id, then, CENT)
            for name, agent in everybody.items()
        }  # fmt: skip
        some = {everybody[name].organization_id for name, bought in found.items() if bought.lines}
        assert some <= set(await lines.organizations_of(connection, then))
        return found

    async def ends(self, subject: Subject) -> list[int]:
        """Return where statements close, and where one opens from a time on in which nothing archived was booked."""
        whole, rest = await self.paper(subject, month(MONTHS)), await self.paper(subject, month(LATE - 1))
        assert whole[1] == rest[1]
        return [whole[1], *rest]

    async def paper(self, subject: Subject, since: datetime) -> tuple[int, int]:
        """Return the opening and closing balance of a statement."""
        until = datetime.now(UTC) + timedelta(days=1)
        parts = [part async for part in statement(DatabaseSettings(url=self.past.url), subject, since, until)]
        opening = parts[0]
        assert isinstance(opening, Opening)
        change = sum(line.change for part in parts[1:] if isinstance(part, list) for line in part)
        return opening.balance, opening.balance + change

    async def said(self, since: datetime) -> datetime | None:
        """Return what the publisher's statement says of archived calls."""
        subject = await of_publisher(self.past.connection, self.shop.id, USDC)
        parts = [part async for part in statement(DatabaseSettings(url=self.past.url), subject, since, since)]
        assert isinstance(parts[0], Opening)
        return parts[0].archived


TERMS = {
    "display_name": "Pro", "price_monthly": "20", "included_calls": 1, "overage_price": "1.00",
}  # fmt: skip


async def begun(past: Past) -> Money:
    """Return a month in which every kind of money moved, and some of what stayed open in it."""
    await past.connection.execute("UPDATE analytics.mark SET upto = $1", month(MONTHS))
    money = Money(past, past.shop, past.agent)
    await past.connection.execute("UPDATE catalog.pricing SET price_per_call = 1 WHERE publisher_id = $1", past.shop.id)
    await charges.SET_TERMS.run(past.connection, past.shop.id, USDC, "5000", "100000")
    return money


async def of_charges(money: Money) -> dict[str, UUID]:
    made = {name: await money.charged(OLD) for name in ("kept", "refunded", "slashed", "both", "late", "back")}
    assert await money.refunded(made["refunded"]) == "refunded"
    assert await money.slashed(made["slashed"], OLD) == "slashed"
    assert await money.slashed(made["both"], OLD) == "slashed"
    assert await money.refunded(made["both"]) == "refunded"
    for _ in range(3):
        await money.spent(money.plain, OLD, 100, counted=True)
    return made


async def of_cards(money: Money) -> None:
    """Deposits of the old month: with fee, partly refunded, disputed, spent, owed and recovered."""
    await money.paid("refunded", 1_000, bonus=100_000)
    assert await money.run("SELECT card.book_fee('txn_1', $1, 59, $2)", USDC, money.deposits["refunded"])
    assert await money.card("give_back", money.deposits["refunded"], "re_1", 300) == "booked"
    assert await money.card("give_back", money.deposits["refunded"], "re_2", 100) == "booked"
    await money.paid("won", 500, bonus=50_000)
    await money.disputed("won", "dp_won", 500)
    assert await money.card("win", "dp_won") == "won"
    await money.paid("lost", 500)
    await money.spent(money.agents["lost"], OLD, 4_000_000, counted=True)
    await money.disputed("lost", "dp_lost", 500)
    assert await money.card("lose", "dp_lost") == "lost"
    lost = money.deposits["lost"]
    await money.paid("lost", 700)  # pays what is owed
    money.deposits["again"], money.deposits["lost"] = money.deposits["lost"], lost
    for name in ("will win", "will lose"):
        await money.paid(name, 500, bonus=50_000)
        await money.disputed(name, f"dp_{name}", 500)
    for name in ("refund later", "dispute later", "shortfall later"):
        await money.paid(name, 500, bonus=50_000)
    await money.spent(money.agents["shortfall later"], OLD, 4_000_000)


async def test_all_money_goes_through_an_archive(past: Past, tmp_path: Path) -> None:
    money = await begun(past)
    made = await of_charges(money)
    await of_cards(money)
    completed = await money.payout(OLD, 900_000, penalties=300)
    await money.sent(completed)
    await money.cancelled(await money.payout(OLD, 500_000, penalties=0))
    open_one = await money.payout(OLD, 700_000)
    invoices = await money.invoiced(["pays", "is void", "pays later", "is void later"])
    await money.invoice_paid(invoices["pays"])
    await money.invoice_void(invoices["is void"])
    await money.put_back(OLD)
    assert await money.slashed(made["late"], YOUNG) == "slashed"
    young = await money.charged(YOUNG)
    assert await money.slashed(young, YOUNG) == "slashed"
    await money.spent(money.plain, YOUNG, 100, counted=True)
    await money.put_back(YOUNG)
    await money.sound()

    with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError, match=f"payout {open_one} has no end"):
        await archived(past, OLD - 1, tmp_path)
    await money.sound()
    await money.sent(open_one)
    assert await money.refunded(made["back"]) == "refunded"
    await money.sound()
    await money.put_back(LATE)  # booked then, by a cause of the old month
    await money.spent(money.plain, 0, 100)
    await money.sound()

    before = await money.told()
    (back,) = before["invoices"][LATE]["plain"].lines
    assert (back.line_type, back.quantity, back.amount, back.paid) == ("refund", 1, -1_000, True)
    assert len(before["invoices"][OLD]["plain"].lines) == 3, "charges, penalties, and a call"
    assert [one async for one in archive(past.connection, floor(OLD - 1), tmp_path)]
    await money.sound()
    assert await check(past.connection, tmp_path) == []
    assert await money.told() == before
    told = [await money.said(moment) for moment in (month(OLD), month(LATE), datetime.now(UTC))]
    assert told == [month(OLD - 1), month(OLD - 1), None], (
        "what was booked late is missing from a window after the bound"
    )
    await later(money, made, young, invoices)
    before = await money.told()
    assert await archived(past, 0, tmp_path) == OLD - 1, "the young charge, its penalty and what is between"
    await money.sound()
    assert await money.refunded(young) == "again"
    after = await money.told()
    for name in ("earnings", "invoices"):
        assert after[name] == before[name]
    assert after["plain"][:3] == before["plain"][:3]
    assert await check(past.connection, tmp_path) == []
    await invoices_are_made(money, before["invoices"])


async def invoices_are_made(money: Money, expected: dict[int, dict[str, lines.Bought]]) -> None:
    """Make and issue the invoices of months that are archived."""
    for ago in (LATE, OLD):
        for draft in await money.generated(ago):
            async with money.past.connection.transaction():
                if (await issuing.demand(money.past.connection, draft)).status == "draft":
                    await issuing.issue(money.past.connection, SELLER, draft)
    shown = await money.run(
        "SELECT array_agg(subtotal::int ORDER BY period_start) FROM invoice.invoice"
        " WHERE organization_id = $1 AND status <> 'void'", money.plain.organization_id,
    )  # fmt: skip
    assert shown == [expected[ago]["plain"].subtotal for ago in (OLD, LATE)]
    await money.sound()


async def later(money: Money, made: dict[str, UUID], young: UUID, invoices: dict[str, UUID]) -> None:
    """Do to what is archived whatever can still be done, one after the other."""
    deposits = money.deposits
    steps: list[tuple[str, Any, str | None]] = [
        *((f"refund of {name}", money.refunded(made[name]), "archived") for name in ("kept", "slashed", "late")),
        *((f"slash of {name}", money.slashed(made[name], 0, 5), "archived") for name in ("kept", "late")),
        ("again", money.refunded(made["refunded"]), "again"),
        ("refund of a young charge", money.refunded(young), "refunded"),
        ("late refund", money.card("give_back", deposits["refund later"], "re_late", 500), "booked"),
        ("more of a refund", money.card("give_back", deposits["refunded"], "re_3", 100), "booked"),
        ("refund that failed", money.card("take_again", "re_1"), "returned"),
        ("late dispute", money.disputed("dispute later", "dp_late", 500), None),
        ("late dispute lost", money.card("lose", "dp_late"), "lost"),
        ("late dispute won", money.card("win", "dp_late"), "won"),
        ("late shortfall", money.disputed("shortfall later", "dp_short", 500), None),
        ("late shortfall lost", money.card("lose", "dp_short"), "lost"),
        ("debt paid", money.paid("shortfall later", 900), None),
        ("open dispute won", money.card("win", "dp_will win"), "won"),
        ("open dispute lost", money.card("lose", "dp_will lose"), "lost"),
        ("lost one won", money.card("win", "dp_lost"), "won"),
        ("lost one twice", money.card("win", "dp_lost"), "repeated"),
        ("late fee", money.run("SELECT card.book_fee('txn_2', $1, 30, $2)::text", USDC, deposits["won"]), "true"),
        ("known fee", money.run("SELECT card.book_fee('txn_1', $1, 59, $2)::text", USDC, deposits["won"]), "false"),
        ("late payment", money.invoice_paid(invoices["pays later"]), None),
        ("late void", money.invoice_void(invoices["is void later"]), None),
    ]  # fmt: skip
    for step, work, expected in steps:
        assert await work == expected or expected is None, step
        try:
            await money.sound()
        except AssertionError as error:
            raise AssertionError(f"after {step}: {error}") from error
    await money.cancelled(await money.payout(0, 100))
    await money.sound()


async def test_the_proof_sees_what_a_transfer_does_not_say(past: Past) -> None:
    money = await begun(past)
    await money.paid("card", 500)
    await money.disputed("card", "dp_1", 500)
    assert await money.card("lose", "dp_1") == "lost"
    assert await money.card("win", "dp_1") == "won"
    await money.sound()
    harms = {
        "what touches a wallet's money names that wallet": "wallet_id = NULL WHERE kind = 'dispute'",
        "disputes froze what they say, and ended in exactly that": (
            "amount = amount + 1 WHERE cause_id = (SELECT returned_cause FROM card.dispute)"
        ),
    }
    for rule, harm in harms.items():
        transaction = past.connection.transaction()
        await transaction.start()
        assert await proof.RULES[rule].all(past.connection) == []
        await past.connection.execute("ALTER TABLE ledger.transfer DISABLE TRIGGER USER")
        await past.connection.execute(f"UPDATE ledger.transfer SET {harm}")
        assert len(await proof.RULES[rule].all(past.connection)) == 1, rule
        await transaction.rollback()
