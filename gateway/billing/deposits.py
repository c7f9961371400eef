"""Deposits on a chain: an x402 payment to the treasury becomes a lot that only one publisher's calls can spend.

It belongs to the wallet that paid (gateway/identity/wallets.py), or to the account whose API key came along. The lot is
booked with the confirmation, in one transaction (chain.confirm). An authorization makes one deposit: presented again
for the same deposit it tells what became of it, and for anything else it is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from gateway.catalog.assets import Asset
from gateway.catalog.settlement import SETTINGS_DECIMALS
from gateway.database.pool import Connection, Database
from gateway.database.statement import Statement
from gateway.errors import Unavailable
from gateway.identity.accounts import wallet_address
from gateway.identity.wallets import caip10, open_account
from gateway.ids import uuid7
from gateway.ledger.wallets import FIND_WALLET, Wallet, open_wallet
from gateway.payments.evm.rpc import NoAnswer
from gateway.payments.evm.settlements import Booking, Settlements, Status
from gateway.payments.examine import Examined, Examiner, moment, order_of, recall, refused
from gateway.payments.x402.offer import Offer, PaymentKinds, Taken
from gateway.payments.x402.reasons import Reason
from gateway.payments.x402.terms import SignedTerms
from gateway.payments.x402.verify import Verified, verify
from gateway.settings import Settings
from gateway.suspensions import SuspendedWallets

OFFER_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Deposit:
    """What is to be deposited: `offer.amount` of `asset` for a publisher's calls, kept in `ledger_asset`.

    `account_id` is whose API key came along; None leaves it to the wallet that pays.
    """

    publisher_id: UUID
    asset: Asset
    ledger_asset: Asset
    offer: Offer
    resource: str
    account_id: UUID | None

    @property
    def request_hash(self) -> bytes:
        """Return what tells this deposit from another one with the same authorization."""
        owner = b"" if self.account_id is None else self.account_id.bytes
        return hashlib.sha256(b"deposit" + self.publisher_id.bytes + self.asset.id.bytes + owner).digest()


@dataclass(frozen=True, slots=True)
class DepositBalance:
    """What is left of an owner's deposits at one publisher, in atomic units of the asset that it is kept in."""

    publisher_id: UUID
    slug: str
    asset_id: UUID
    balance: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "balance", int(self.balance))


SAME_DEPOSIT = Statement(
    "SELECT booking = 'deposit' AND request_hash = $2 FROM chain.payment WHERE id = $1", bool, scalar=True
)
BALANCE_AFTER = Statement(
    """
    SELECT coalesce(sum(l.balance), 0) FROM chain.payment p
      JOIN ledger.account l ON l.wallet_id = p.wallet_id AND l.publisher_id = p.publisher_id
     WHERE p.id = $1 AND l.purpose = 'deposit' AND NOT l.spent
    """,
    int,
    scalar=True,
)
DEPOSITS_OF = Statement(
    """
    SELECT l.publisher_id, p.slug, l.asset_id, sum(l.balance) AS balance
      FROM ledger.wallet w
      JOIN ledger.account l ON l.wallet_id = w.id AND l.purpose = 'deposit'
      JOIN catalog.publisher p ON p.id = l.publisher_id
     WHERE w.owner_id = $1
     GROUP BY l.publisher_id, p.slug, l.asset_id ORDER BY p.slug, l.asset_id LIMIT 1000
    """,
    DepositBalance,
)


class Deposits:
    """One per worker, whose number `worker` returns."""

    def __init__(
        self, database: Database, settlements: Settlements, kinds: PaymentKinds, examiner: Examiner,
        worker: Callable[[], int | None], settings: Settings, suspended: SuspendedWallets,
    ) -> None:  # fmt: skip
        self._database = database
        self._settlements = settlements
        self._kinds = kinds
        self._examiner = examiner
        self._worker = worker
        self._settings = settings
        self._suspended = suspended

    def least(self, asset: Asset) -> int:
        """Return the smallest deposit in an asset, in its atomic units."""
        return self._settings.money.minimum_onchain_deposit * 10**asset.decimals // 10**SETTINGS_DECIMALS

    def offer(self, asset: Asset, amount: int) -> Offer | None:
        """Return how a deposit can be paid; None when this gateway has no chain for the asset."""
        kind = self._kinds.find(asset.network_id, asset.symbol)
        if kind is None:
            return None
        return Offer(kind, amount, self._settlements.parties[asset.network_id].treasury, OFFER_SECONDS)

    async def pay(self, deposit: Deposit, taken: Taken, terms: SignedTerms) -> Status:
        """Take the payment for a deposit and wait for its end. Raises PaymentRefused, Suspended, Unavailable.

        A status that has not ended after settings.x402.wait must be asked for again, with the same payment.
        """
        known = await recall(self._settlements, deposit.offer.kind, terms)
        verified = verify(taken, terms, [deposit.offer], deposit.resource, moment(terms, known))
        if known is None:
            known = await self._claim(deposit, verified)
        if not await self._database.read(lambda c: SAME_DEPOSIT.first(c, known.id, deposit.request_hash)):
            raise refused(Reason.NONCE_USED)
        if known.state == "reserved":
            await self._settlements.submit(known.id)
        return await self._settlements.wait(known.id, self._settings.x402.wait)

    async def balance_after(self, payment_id: UUID) -> int:
        """Return what the owner of a deposit now has at its publisher, in atomic units."""
        return int(await self._database.read(lambda connection: BALANCE_AFTER.one(connection, payment_id)))

    async def balances(self, owner_id: UUID) -> list[DepositBalance]:
        """Return an owner's deposits per publisher and asset."""
        return await self._database.read(lambda connection: DEPOSITS_OF.all(connection, owner_id))

    async def _claim(self, deposit: Deposit, verified: Verified) -> Status:
        examined = await self._examine(verified)
        self._suspended.demand(examined.terms.payer)
        async with self._database.transaction() as connection:
            wallet = await _wallet(connection, deposit, verified)
        booking = Booking(kind="deposit", wallet_id=wallet.id, publisher_id=deposit.publisher_id)
        order = order_of(
            examined.terms, verified.network, uuid7(), booking,
            request_hash=deposit.request_hash, worker_id=self._worker(),
        )  # fmt: skip
        reservation = await self._settlements.reserve(order, funds=examined.funds)
        if reservation.verdict in ("short", "exposed"):
            raise refused(Reason.FUNDS)
        status = reservation.status or await self._settlements.status(order.id)
        if status is None:
            raise LookupError(f"no payment {order.id}")
        return status

    async def _examine(self, verified: Verified) -> Examined:
        try:
            return await self._examiner.examine(verified)
        except NoAnswer:
            raise Unavailable("The network's node does not answer; nothing was begun. Try again.") from None


async def _wallet(connection: Connection, deposit: Deposit, verified: Verified) -> Wallet:
    """Return the wallet that the deposit goes to, opening it if need be."""
    asset = deposit.ledger_asset
    if deposit.account_id is not None:
        owner, name = deposit.account_id, wallet_address(deposit.account_id)
    else:
        owner = await open_account(connection, verified.network, verified.terms.payer)
        name = caip10(verified.network, verified.terms.payer)
    found = await FIND_WALLET.first(connection, owner, asset.id)
    return found or await open_wallet(connection, owner, asset.id, f"{name}/{asset.network_id}/{asset.symbol}")
