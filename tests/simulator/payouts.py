"""Payouts in the simulation: a thief's publisher asks for all that it can get, whenever it likes, and nothing is held back.

What it may get a judge works out from the lots that paid and from how calls ended, not from what the gateway says.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

from gateway.billing.payouts import Order, Payouts
from gateway.database.pool import Connection
from gateway.identity.permissions import Member
from gateway.identity.principals import Principal
from gateway.services import Services
from gateway.settings import PayoutSettings
from tests.simulator.model import Model, expect
from tests.support.world import USDC

NETWORK, WALLET = "eip155:8453", "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
FOR_NOTHING = frozenset({"signup_bonus", "daily_claim", "referral_reward", "promo_code", "tier_bonus"})
"""Sources of credit that nobody has paid for, by the judge's own list."""


def payouts_of(services: Services) -> Payouts:
    """Return a process's way to payouts. No chain is simulated: what is asked for stays queued."""
    address = SimpleNamespace(address=b"signer")
    contracts = SimpleNamespace(permit2=b"1", exact_proxy=b"2", upto_proxy=b"3", multicall3=b"4")
    chain = SimpleNamespace(contracts=contracts, treasury=b"treasury", signer=address, buyer=None)
    settlements = cast(Any, SimpleNamespace(chains={NETWORK: chain}))
    rules = PayoutSettings(holdback=0, cooldown=0, minimum=1, approval_above=0)
    return Payouts(services.database, settlements, rules, lambda: services.catalog.assets)


async def ask(services: Services, shop: UUID, cancels: bool) -> None:
    """Ask for all that a publisher can be paid, and sometimes put it back. Raises EarningsShort."""
    payouts = payouts_of(services)
    async with services.database.acquire() as connection:
        owner = await connection.fetchrow(
            "SELECT organization_id, created_by FROM catalog.publisher WHERE id = $1", shop
        )
    assert owner is not None
    organization, account = owner["organization_id"], owner["created_by"]
    caller = Principal(account, organization, account, "key", "owner", "agent")
    member = Member(caller, organization, "owner", frozenset())
    made = await payouts.request(shop, member, Order(USDC, None, None))
    if cancels:
        await payouts.cancel(shop, made.id, member)


class Judge:
    """Holds payouts against what was earned. One per run."""

    def __init__(self) -> None:
        self._seen: set[tuple[UUID, str, int]] = set()

    async def follow(self, connection: Connection, model: Model) -> None:
        """Add to the model what payouts have moved, and judge them."""
        for row in await connection.fetch(
            "SELECT cause_id, kind::text, leg, debit_account, credit_account, amount FROM ledger.transfer"
            " WHERE kind IN ('payout', 'payout_back')"
        ):
            key = (row["cause_id"], row["kind"], row["leg"])
            if key not in self._seen:
                self._seen.add(key)
                model.kinds[row["kind"]] += 1
                model.debits[row["debit_account"]] += int(row["amount"])
                model.credits[row["credit_account"]] += int(row["amount"])
        delivered = await connection.fetch(
            "SELECT exchange_id FROM ledger.settlement WHERE outcome = 'settled'"
            " UNION SELECT exchange_id FROM simulator.undone"
        )
        ended = {row["exchange_id"] for row in delivered}
        for row in await connection.fetch(
            "SELECT a.id, sum(o.amount) AS amount FROM chain.payout o"
            "  JOIN ledger.account a ON a.publisher_id = o.publisher_id AND a.purpose = 'earnings'"
            " WHERE o.state <> 'cancelled' GROUP BY a.id"
        ):
            earned = sum(
                leg.amount - leg.fee
                for exchange, legs in model.taken.items()
                if exchange in ended
                for leg in legs.values()
                if leg.earnings == row["id"] and model.accounts[leg.lot].source not in FOR_NOTHING
            )
            expect(row["amount"] <= earned, f"account {row['id']} was paid {row['amount']}, money has paid it {earned}")
