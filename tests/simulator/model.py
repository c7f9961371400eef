"""The ledger on a page of integers: what each wallet must hold after the transfers that were made.

It follows the journal in the order in which each wallet's money really moved, and decides for itself which lots a
charge draws, what a refund gives back and what expires; a transfer that differs is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from tests.simulator.conductor import SimulationError

ORDER = {"deposit": 0, "promotional": 1, "funded": 2}


@dataclass(frozen=True)
class Row:
    """One transfer, as the journal has it."""

    seq: int
    xact: int
    at: datetime
    cause_id: Any
    kind: str
    worker_id: int | None
    leg: int
    debit_account: int
    credit_account: int
    wallet_id: int
    amount: int
    fee: int
    expires_at: datetime | None


@dataclass(frozen=True)
class Account:
    """What never changes of an account."""

    id: int
    purpose: str
    wallet_id: int | None
    publisher_id: Any
    fee_account_id: int | None
    source: str | None  # of a lot


@dataclass
class Lot:
    """Spendable money of one credit."""

    account: Account
    balance: int
    expires_at: datetime | None
    lapsed_at: datetime | None = None  # when it expired that has had money given back since


@dataclass
class Hold:
    """Reserved money and the lots it came from."""

    earnings: int
    legs: list[tuple[int, int, int]]  # leg, lot, amount
    captured: int = 0
    fee: int = 0
    released: int = 0

    @property
    def amount(self) -> int:
        return sum(amount for _, _, amount in self.legs)


@dataclass(frozen=True)
class Taken:
    """What one leg of a charge or captured hold took from a lot."""

    lot: int
    earnings: int
    amount: int
    fee: int


@dataclass
class Model:
    """See the module. `hold_account` says whose earnings a hold is for; `fee_of(account, amount)` is the platform's."""

    grace: timedelta
    hold_account: Callable[[Any], int]
    fee_of: Callable[[int, int], int]
    accounts: dict[int, Account] = field(default_factory=dict)
    lots: dict[int, Lot] = field(default_factory=dict)
    held: Counter[int] = field(default_factory=Counter)  # by wallet
    holds: dict[Any, Hold] = field(default_factory=dict)
    taken: dict[Any, dict[int, Taken]] = field(default_factory=dict)
    refunded: dict[Any, set[int]] = field(default_factory=dict)
    debits: Counter[int] = field(default_factory=Counter)
    credits: Counter[int] = field(default_factory=Counter)
    expired: Counter[int] = field(default_factory=Counter)  # by wallet
    kinds: Counter[str] = field(default_factory=Counter)

    def apply(self, rows: Sequence[Row]) -> None:
        """Follow more transfers of one wallet, in their order."""
        for (_, kind), group in groupby(rows, key=lambda row: (row.xact, row.kind)):
            same = list(group)
            self.kinds[kind] += len(same)
            if kind == "charge":
                self._charges(same)
            elif kind == "hold":
                for _, legs in groupby(same, key=lambda row: row.cause_id):
                    self._hold(list(legs))
            else:
                for row in same:
                    getattr(self, f"_{kind}")(row)
            for row in same:
                self._post(row)

    def check_whole(self) -> None:
        """Refuse a refund that gave back only some legs."""
        for exchange, legs in self.refunded.items():
            expect(legs == set(self.taken[exchange]), f"exchange {exchange} was refunded in part: legs {legs}")

    def wallet_of(self, exchange: Any) -> int | None:
        """Return whose money an exchange took or held."""
        hold = self.holds.get(exchange)
        lots = [lot for _, lot, _ in hold.legs] if hold else [leg.lot for leg in self.taken[exchange].values()]
        return self.accounts[lots[0]].wallet_id

    def draw(self, wallet: int, publisher: Any, amount: int, at: datetime) -> list[tuple[int, int]]:
        """Return (lot, amount) in draw order. Raises SimulationError when the wallet cannot pay."""
        usable = sorted(
            (
                lot
                for lot in self.lots.values()
                if lot.account.wallet_id == wallet
                and lot.balance
                and (lot.expires_at is None or lot.expires_at > at)
                and (lot.account.purpose != "deposit" or lot.account.publisher_id == publisher)
            ),
            key=lambda lot: (ORDER[lot.account.purpose], lot.expires_at is None, lot.expires_at or at, lot.account.id),
        )
        drawn: list[tuple[int, int]] = []
        for lot in usable:
            if part := min(lot.balance, amount):
                drawn.append((lot.account.id, part))
                amount -= part
        expect(amount == 0, f"wallet {wallet} paid {amount} more than it has")
        return drawn

    def _charges(self, rows: list[Row]) -> None:
        """Follow the charges of one transaction. A batch decides all of them as one line of money."""
        calls: dict[Any, list[Row]] = {}
        for row in rows:
            calls.setdefault(row.cause_id, []).append(row)
        for exchange, legs in calls.items():
            legs.sort(key=lambda row: row.leg)
            expect(exchange not in self.taken, f"exchange {exchange} was charged twice")
            self._check_fees(legs)
            self.taken[exchange] = {
                row.leg: Taken(row.debit_account, row.credit_account, row.amount, row.fee) for row in legs
            }
        before = {lot: self.lots[lot].balance for lot in self.lots}
        try:
            for legs in calls.values():
                self._charge_one(legs)
        except SimulationError:
            if len(calls) == 1 or any(lot.account.purpose == "deposit" for lot in self._lots_of(rows[0].wallet_id)):
                raise
            for lot, balance in before.items():
                self.lots[lot].balance = balance
            self._charge_together(rows)

    def _charge_one(self, legs: list[Row]) -> None:
        first = legs[0]
        publisher = self.accounts[first.credit_account].publisher_id
        drawn = self.draw(first.wallet_id, publisher, sum(row.amount for row in legs), first.at)
        actual = [(row.debit_account, row.amount) for row in legs]
        expect(actual == drawn, f"exchange {first.cause_id} drew {actual}, expected {drawn}")
        self._take(drawn)

    def _charge_together(self, rows: list[Row]) -> None:
        drawn = self.draw(rows[0].wallet_id, None, sum(row.amount for row in rows), rows[0].at)
        actual: Counter[int] = Counter()
        for row in rows:
            actual[row.debit_account] += row.amount
        expect(dict(actual) == dict(drawn), f"a batch drew {dict(actual)}, expected {dict(drawn)}")
        self._take(drawn)

    def _check_fees(self, legs: list[Row]) -> None:
        amount, fee, upto, done = sum(row.amount for row in legs), sum(row.fee for row in legs), 0, 0
        expected = self.fee_of(legs[0].credit_account, amount)
        expect(fee == expected, f"exchange {legs[0].cause_id}: fee {fee} of {amount}, expected {expected}")
        for row in legs:
            upto += row.amount
            part = fee * upto // amount - done
            expect(row.fee == part, f"exchange {row.cause_id} leg {row.leg}: fee {row.fee}, expected {part}")
            done += part

    def _hold(self, legs: list[Row]) -> None:
        first, earnings = legs[0], self.hold_account(legs[0].cause_id)
        expect(first.cause_id not in self.holds, f"exchange {first.cause_id} was held twice")
        drawn = self.draw(
            first.wallet_id, self.accounts[earnings].publisher_id, sum(row.amount for row in legs), first.at
        )
        actual = [(row.debit_account, row.amount) for row in legs]
        expect(actual == drawn, f"hold {first.cause_id} drew {actual}, expected {drawn}")
        self._take(drawn)
        self.held[first.wallet_id] += sum(row.amount for row in legs)
        self.holds[first.cause_id] = Hold(earnings, [(row.leg, row.debit_account, row.amount) for row in legs])

    def _capture(self, row: Row) -> None:
        hold = self.holds[row.cause_id]
        expect(hold.captured == 0, f"hold {row.cause_id} was captured twice")
        expect(row.credit_account == hold.earnings, f"hold {row.cause_id} was captured for another publisher")
        expect(row.fee <= row.amount, f"hold {row.cause_id}: fee {row.fee} of {row.amount}")
        expect(row.amount <= hold.amount, f"hold {row.cause_id} of {hold.amount} was captured for {row.amount}")
        hold.captured, hold.fee = row.amount, row.fee
        self.held[row.wallet_id] -= row.amount
        self.taken[row.cause_id] = self._captured_legs(hold)

    def _captured_legs(self, hold: Hold) -> dict[int, Taken]:
        taken: dict[int, Taken] = {}
        left, upto = hold.captured, 0
        for leg, lot, amount in hold.legs:
            if part := min(amount, left):
                left -= part
                fee = hold.fee * (upto + part) // hold.captured - hold.fee * upto // hold.captured
                taken[leg] = Taken(lot, hold.earnings, part, fee)
                upto += part
        return taken

    def _release(self, row: Row) -> None:
        hold = self.holds[row.cause_id]
        left = hold.amount - hold.captured
        expected: dict[int, tuple[int, int]] = {}
        for leg, lot, amount in reversed(hold.legs):
            expected[leg] = (lot, min(amount, left))
            left -= min(amount, left)
        actual = (row.credit_account, row.amount)
        expect(actual == expected[row.leg], f"hold {row.cause_id} released {actual}, expected {expected[row.leg]}")
        hold.released += row.amount
        self.held[row.wallet_id] -= row.amount
        self._give(row.credit_account, row.amount, row.at)

    def _refund(self, row: Row) -> None:
        taken = self.taken.get(row.cause_id, {}).get(row.leg)
        expect(taken is not None, f"exchange {row.cause_id} was refunded a leg {row.leg} that it never took")
        legs = self.refunded.setdefault(row.cause_id, set())
        expect(row.leg not in legs, f"exchange {row.cause_id} leg {row.leg} was refunded twice")
        legs.add(row.leg)
        actual = Taken(row.credit_account, row.debit_account, row.amount, row.fee)
        expect(actual == taken, f"exchange {row.cause_id} was refunded {actual}, it took {taken}")
        self._give(row.credit_account, row.amount, row.at)

    def _grant(self, row: Row) -> None:
        account = self.accounts[row.credit_account]
        expect(row.credit_account not in self.lots, f"lot {row.credit_account} was opened twice")
        payer = self.accounts[row.debit_account].purpose
        expect(payer == ("promotional_expense" if account.purpose == "promotional" else "clearing"), f"paid by {payer}")
        self.lots[account.id] = Lot(account, row.amount, row.expires_at)

    def _expire(self, row: Row) -> None:
        lot = self.lots[row.debit_account]
        expect(lot.expires_at is not None and lot.expires_at <= row.at, f"lot {lot} expired at {row.at}")
        expect(row.amount == lot.balance, f"of lot {lot} {row.amount} expired")
        lot.balance = 0
        self.expired[row.wallet_id] += row.amount

    def _take(self, drawn: list[tuple[int, int]]) -> None:
        for lot, amount in drawn:
            self.lots[lot].balance -= amount

    def _give(self, lot_id: int, amount: int, at: datetime) -> None:
        lot = self.lots[lot_id]
        if lot.expires_at is not None and lot.expires_at <= at:
            expect(lot.balance == 0, f"money came back to lot {lot}, which still had what had expired")
            lot.lapsed_at = lot.lapsed_at or lot.expires_at
            lot.expires_at = max(lot.expires_at, lot.lapsed_at + self.grace)
        lot.balance += amount

    def _post(self, row: Row) -> None:
        charged, refunded = row.kind in ("charge", "capture"), row.kind == "refund"
        self.debits[row.debit_account] += row.amount - (row.fee if refunded else 0)
        self.credits[row.credit_account] += row.amount - (row.fee if charged else 0)
        if row.fee:
            fees = self.accounts[row.debit_account if refunded else row.credit_account].fee_account_id
            assert fees is not None
            (self.debits if refunded else self.credits)[fees] += row.fee

    def _lots_of(self, wallet: int) -> list[Lot]:
        return [lot for lot in self.lots.values() if lot.account.wallet_id == wallet]


def expect(condition: bool, message: str) -> None:
    """Raise SimulationError unless the condition holds."""
    if not condition:
        raise SimulationError(message)
