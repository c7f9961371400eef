"""Asking for payouts, approving and cancelling them: one transaction each, with its booking and its audit entry.

Everything about one publisher's money is decided while its row is locked, by what the ledger says then: two requests
cannot both take the same money. Refunds do not wait for that lock. What one takes back after a payout has been decided
is missing from the earnings, and later ones make up for it; the holdback is there to make that rare.

What does not live here: sending them (gateway/payments/evm/payouts.py), and how much is available (pricing/payouts.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NoReturn
from uuid import UUID

from gateway.audit.entries import record
from gateway.catalog.assets import Asset
from gateway.catalog.checks import wallet_address
from gateway.catalog.earnings import Earnings, earnings_of
from gateway.catalog.refusals import refused
from gateway.catalog.settlement import SETTINGS_DECIMALS
from gateway.database.pool import Connection, Database
from gateway.database.statement import Command, Statement
from gateway.errors import Conflict, EarningsShort, Forbidden, NotFound, RailNotAvailable
from gateway.identity.permissions import Member
from gateway.ids import uuid7
from gateway.payments.evm.encoding import parse_address, show_address
from gateway.payments.evm.payouts import RETURN, State
from gateway.payments.evm.settlements import Settlements
from gateway.settings import PayoutSettings
from pricing.money import format_amount
from pricing.payouts import needs_second

NO_RAIL = "This gateway pays nothing out in this asset on {network}. Nothing was moved; the earnings stay."
ELSEWHERE = "It goes to another address than the publisher's, so it is sent from {moment} on. Cancel it until then."
APPROVAL_WINDOW = timedelta(hours=24)
PROMOTIONAL_WINDOW = timedelta(days=30)
FINEST = 18
"""Decimals of the finest asset: in its unit amounts of all assets can be added."""
FREE_ROLES = ("owner", "admin")
"""Who may have a payout sent to another address than the publisher's own."""


@dataclass(frozen=True, slots=True)
class Payout:
    """One payout as its owner sees it. `amount` is atomic units; `transaction` is the one in a block that pays it."""

    id: UUID
    organization_id: UUID
    publisher_id: UUID
    asset_id: UUID
    network: str
    destination: bytes
    amount: int
    description: str
    state: State
    reason: str | None
    needs_approval: bool
    requested_by: UUID
    requested_at: datetime
    approved_by: UUID | None
    ended_at: datetime | None
    transaction: bytes | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "amount", int(self.amount))

    @property
    def waits_for_approval(self) -> bool:
        """Return whether it waits for a second member."""
        return self.state == "queued" and self.needs_approval and self.approved_by is None


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked for: an amount (None: everything) in a ledger asset, to an address (None: the publisher's)."""

    asset_id: UUID
    amount: int | None
    destination: str | None
    description: str = ""
    key: UUID | None = None


@dataclass(frozen=True, slots=True)
class _Seller:
    id: UUID
    slug: str
    wallet_address: str
    wallet_network_id: str
    wallet_changed_at: datetime | None


@dataclass(frozen=True, slots=True)
class PaidPromotional:
    """What promotional credit had paid of the payouts of the last while."""

    of_owner: int
    of_all: int

    def __post_init__(self) -> None:
        for name in ("of_owner", "of_all"):
            object.__setattr__(self, name, int(getattr(self, name)))


# One that was deleted is still owed what it has earned.
LOCK_SELLER = Statement(
    """
    SELECT id, slug, wallet_address, wallet_network_id, wallet_changed_at FROM catalog.publisher
     WHERE id = $1 AND organization_id = $2 FOR NO KEY UPDATE
    """,
    _Seller,
)
_PAYOUT = """
    SELECT p.id, p.organization_id, p.publisher_id, p.asset_id, p.network, p.destination, p.amount, p.description,
           p.state, CASE WHEN p.state = 'queued' AND NOT chain.may_pay_out(p.publisher_id, p.destination)
                         THEN format('Suspended by the gateway''s operator: %s It is sent once that is lifted.',
                                     chain.payout_suspended(p.publisher_id, p.destination))
                         ELSE p.reason END AS reason,
           p.needs_approval, p.requested_by, p.requested_at, p.approved_by, p.ended_at,
           coalesce(p.transaction, s.mined_transaction) AS transaction
      FROM chain.payout p LEFT JOIN chain.sending s ON s.id = p.sending_id
"""
FIND_PAYOUT = Statement(_PAYOUT + " WHERE p.publisher_id = $1 AND p.id = $2", Payout)
FIND_BY_KEY = Statement(_PAYOUT + " WHERE p.publisher_id = $1 AND p.idempotency_key = $2", Payout)
LIST_PAYOUTS = Statement(_PAYOUT + " WHERE p.publisher_id = $1 ORDER BY p.id DESC LIMIT $2 OFFSET $3", Payout)
COUNT_PAYOUTS = Statement("SELECT count(*) FROM chain.payout WHERE publisher_id = $1", int, scalar=True)
# In the asset's own units: all assets of one ledger asset have the same.
UNAPPROVED = Statement(
    """
    SELECT coalesce(sum(p.amount), 0) FROM chain.payout p JOIN catalog.asset a ON a.id = p.asset_id
     WHERE p.publisher_id = $1 AND a.ledger_asset_id = $2 AND p.requested_at > now() - $3::interval
       AND p.approved_by IS NULL AND p.state NOT IN ('failed', 'cancelled')
    """,
    int,
    scalar=True,
)
# What promotional credit had paid of payouts: an owner's, and everybody's, in the unit of the finest asset.
PROMOTIONAL = Statement(
    """
    SELECT coalesce(sum(p.promotional * 10::numeric ^ ($3 - a.decimals)) FILTER (WHERE p.organization_id = $1), 0)
               AS of_owner,
           coalesce(sum(p.promotional * 10::numeric ^ ($3 - a.decimals)), 0) AS of_all
      FROM chain.payout p JOIN catalog.asset a ON a.id = p.asset_id
     WHERE p.promotional > 0 AND p.requested_at > now() - $2::interval AND p.state NOT IN ('failed', 'cancelled')
    """,
    PaidPromotional,
)
# Two payouts of different publishers must not both take what is left of the bound.
ONE_AT_A_TIME = Command("SELECT pg_advisory_xact_lock(hashtext('chain.payout.promotional'))")
REQUEST = Statement(
    "SELECT true FROM chain.request_payout($1, $2, $3, $4, $5, $6, $7, $8::text::numeric, $9::text::numeric, $10, $11,"
    " $12, $13, $14::text::numeric)",
    bool,
    scalar=True,
)
DELAY = Command("UPDATE chain.payout SET free_at = now() + $2::interval, reason = $3 WHERE id = $1")
APPROVE = Statement(
    """
    UPDATE chain.payout SET approved_by = $2, approved_at = now(), check_at = now()
     WHERE id = $1 AND state = 'queued' AND needs_approval AND approved_by IS NULL
    RETURNING pg_notify('tollway_relay', network) IS NOT NULL
    """,
    bool,
    scalar=True,
)


class Payouts:
    """One per worker. `assets` returns every asset by its id."""

    def __init__(
        self, database: Database, settlements: Settlements, settings: PayoutSettings,
        assets: Callable[[], Mapping[UUID, Asset]],
    ) -> None:  # fmt: skip
        self._database = database
        self._settlements = settlements
        self._settings = settings
        self._assets = assets

    @property
    def holdback(self) -> timedelta:
        """Return how long earnings stay."""
        return timedelta(seconds=self._settings.holdback)

    async def earnings(self, connection: Connection, publisher_id: UUID, organization_id: UUID) -> dict[UUID, Earnings]:
        """Return what a publisher has earned, by ledger asset, with what can be paid out of it now."""
        earnings = await earnings_of(connection, publisher_id, self.holdback)
        if not self._settings.promotional or not any(one.holdings.promotional for one in earnings.values()):
            return earnings
        paid = await PROMOTIONAL.one(connection, organization_id, PROMOTIONAL_WINDOW, FINEST)
        return {
            asset_id: one.letting_go(self._promotional_left(paid, self._assets()[asset_id]))
            for asset_id, one in earnings.items()
        }

    async def request(self, publisher_id: UUID, member: Member, order: Order) -> Payout:
        """Take money out of the earnings for a payout, and return it. The same key and request is the same payout.

        Raises NotFound, InvalidRequest, EarningsShort, Forbidden, Conflict, RailNotAvailable.
        """
        async with self._database.transaction() as connection:
            seller = await LOCK_SELLER.first(connection, publisher_id, member.organization_id)
            if seller is None:
                raise NotFound("This organization has no publisher with this id.")
            if order.key is not None:
                known = await FIND_BY_KEY.first(connection, publisher_id, order.key)
                if known is not None:
                    return _same(known, order, self._assets())
            asset = self._sent(seller, order.asset_id)
            destination = self._destination(seller, member, order, asset)
            if self._settings.promotional:
                await ONE_AT_A_TIME.run(connection)
            earnings = await self.earnings(connection, publisher_id, member.organization_id)
            held = earnings.get(asset.ledger_asset_id, Earnings(asset.ledger_asset_id))
            amount = self._amount(order, held, asset)
            above = self._in(asset, self._settings.approval_above)
            unapproved = int(await UNAPPROVED.one(connection, publisher_id, asset.ledger_asset_id, APPROVAL_WINDOW))
            made = uuid7()
            await REQUEST.one(
                connection, made, member.organization_id, publisher_id, asset.id, asset.network_id,
                parse_address(asset.contract_address or ""), destination, str(amount),
                str(held.holdings.of_penalties(amount)), order.description, order.key,
                needs_second(amount, unapproved, above), member.caller.account_id,
                str(held.holdings.of_promotional(amount)),
            )  # fmt: skip
            if show_address(destination) != show_address(_address(seller)) and self._settings.cooldown:
                wait = timedelta(seconds=self._settings.cooldown)
                reason = ELSEWHERE.format(moment=_moment(datetime.now(UTC) + wait))
                await DELAY.run(connection, made, wait, reason)
            payout = await self._found(connection, publisher_id, made)
            await record(connection, "payout.create", member.organization_id, made, details=self.told(payout))
        return payout

    async def approve(self, publisher_id: UUID, payout_id: UUID, member: Member) -> Payout:
        """Let a payout go that needs a second member. Raises NotFound, Forbidden, Conflict."""
        async with self._database.transaction() as connection:
            payout = await self._locked(connection, publisher_id, payout_id, member)
            if payout.waits_for_approval and payout.requested_by == member.caller.account_id:
                raise Forbidden("Somebody else than who asked for this payout must approve it; keys are their account.")
            if await APPROVE.first(connection, payout_id, member.caller.account_id) is None:
                raise Conflict(f"This payout does not wait for an approval: it is {payout.state}.", state=payout.state)
            payout = await self._found(connection, publisher_id, payout_id)
            await record(connection, "payout.approve", member.organization_id, payout_id, details=self.told(payout))
        return payout

    async def cancel(self, publisher_id: UUID, payout_id: UUID, member: Member) -> Payout:
        """Put the money of a payout that is still queued back into the earnings. Raises NotFound, Conflict."""
        async with self._database.transaction() as connection:
            payout = await self._locked(connection, publisher_id, payout_id, member)
            if not await RETURN.one(connection, payout_id, "cancelled", "A member has cancelled it."):
                payout = await self._found(connection, publisher_id, payout_id)
                raise Conflict(f"This payout can no longer be cancelled: it is {payout.state}.", state=payout.state)
            payout = await self._found(connection, publisher_id, payout_id)
            await record(connection, "payout.cancel", member.organization_id, payout_id, details=self.told(payout))
        return payout

    async def find(self, publisher_id: UUID, payout_id: UUID) -> Payout:
        """Return a publisher's payout. Raises NotFound."""
        return await self._database.read(lambda connection: self._found(connection, publisher_id, payout_id))

    async def page(self, publisher_id: UUID, limit: int, offset: int) -> tuple[list[Payout], int]:
        """Return some of a publisher's payouts, newest first, and how many there are."""
        async with self._database.acquire() as connection:
            found = await LIST_PAYOUTS.all(connection, publisher_id, limit, offset)
            return found, await COUNT_PAYOUTS.one(connection, publisher_id)

    def told(self, payout: Payout) -> dict[str, object]:
        """Return what the audit log and webhooks say of a payout."""
        return {
            "publisher_id": str(payout.publisher_id), "amount_atomic": str(payout.amount),
            "asset_symbol": self._assets()[payout.asset_id].symbol, "network": payout.network,
            "destination_wallet": show_address(payout.destination), "needs_approval": payout.needs_approval,
        }  # fmt: skip

    async def _found(self, connection: Connection, publisher_id: UUID, payout_id: UUID) -> Payout:
        payout = await FIND_PAYOUT.first(connection, publisher_id, payout_id)
        if payout is None:
            raise NotFound("This publisher has no payout with this id.")
        return payout

    async def _locked(self, connection: Connection, publisher_id: UUID, payout_id: UUID, member: Member) -> Payout:
        if await LOCK_SELLER.first(connection, publisher_id, member.organization_id) is None:
            raise NotFound("This organization has no publisher with this id.")
        return await self._found(connection, publisher_id, payout_id)

    def _sent(self, seller: _Seller, asset_id: UUID) -> Asset:
        """Return what is sent: the asset of the same peg on the network of the publisher's wallet."""
        network, peg = seller.wallet_network_id, self._assets()[asset_id].ledger_asset_id
        here = [one for one in self._assets().values() if one.network_id == network and one.ledger_asset_id == peg]
        sendable = [one for one in here if one.contract_address is not None]
        if network not in self._settlements.chains or not sendable:
            raise RailNotAvailable(NO_RAIL.format(network=network))
        return next((one for one in sendable if one.id == asset_id), sendable[0])

    def _destination(self, seller: _Seller, member: Member, order: Order, asset: Asset) -> bytes:
        """Return where the money goes. Raises InvalidRequest, Forbidden, and Conflict while an address is too new."""
        field = "wallet_address" if order.destination is None else "destination_wallet"
        try:
            text = wallet_address(order.destination or seller.wallet_address, seller.wallet_network_id)
            address = parse_address(text)
        except ValueError as error:
            raise refused(field, str(error)) from None
        if address in self._ours(asset):
            raise refused(field, "is a contract of the network or an address of the gateway: money sent there is lost")
        if show_address(address) == show_address(_address(seller)):
            self._demand_settled(seller)
        elif member.role not in FREE_ROLES:
            raise Forbidden("Only an owner or admin may send a payout to another address than the publisher's wallet.")
        return address

    def _demand_settled(self, seller: _Seller) -> None:
        """Demand that a changed address is old enough for somebody to have noticed."""
        changed = seller.wallet_changed_at
        free = None if changed is None else changed + timedelta(seconds=self._settings.cooldown)
        if free is not None and free > datetime.now(UTC):
            raise Conflict(
                "The publisher's wallet address was changed lately. Payouts to it can be requested from"
                f" {_moment(free)} on.",
                frees_at=_moment(free),
            )

    def _ours(self, asset: Asset) -> set[bytes]:
        chain = self._settlements.chains[asset.network_id]
        contracts = {one.contract_address for one in self._assets().values() if one.network_id == asset.network_id}
        fixed = {chain.contracts.permit2, chain.contracts.exact_proxy, chain.contracts.upto_proxy}
        tokens = {parse_address(one) for one in contracts if one is not None}
        own = {chain.treasury, chain.signer.address, *([chain.buyer] if chain.buyer else [])}
        return tokens | fixed | own | {chain.contracts.multicall3}

    def _amount(self, order: Order, held: Earnings, asset: Asset) -> int:
        """Return how much is paid out. Raises EarningsShort."""
        least = self._in(asset, self._settings.minimum)
        amount = held.available if order.amount is None else order.amount
        if amount > held.available or amount < least:
            _short(amount, least, held, asset)
        return amount

    def _promotional_left(self, paid: PaidPromotional, asset: Asset) -> int:
        """Return how much of what promotional credit has paid may go, in an asset's atomic units."""
        unit = 10 ** (FINEST - SETTINGS_DECIMALS)
        of_owner = self._settings.promotional * unit - paid.of_owner
        of_all = self._settings.promotional_total * unit - paid.of_all
        return max(min(of_owner, of_all), 0) // 10 ** (FINEST - asset.decimals)

    def _in(self, asset: Asset, amount: int) -> int:
        """Return a setting's amount in an asset's atomic units."""
        return amount * 10**asset.decimals // 10**SETTINGS_DECIMALS


def _address(seller: _Seller) -> bytes:
    try:
        return parse_address(seller.wallet_address)
    except ValueError:  # made before addresses were checked
        return b""


def _same(known: Payout, order: Order, assets: Mapping[UUID, Asset]) -> Payout:
    """Return the payout of a key that was used before, for the same request. Raises Conflict for another one."""
    destination = show_address(known.destination).lower()
    asked = (order.amount or known.amount, (order.destination or destination).lower(), order.description)
    same_money = assets[order.asset_id].ledger_asset_id == assets[known.asset_id].ledger_asset_id
    if not same_money or asked != (known.amount, destination, known.description):
        raise Conflict("This idempotency_key belongs to another payout.", payout_id=str(known.id))
    return known


def _short(amount: int, least: int, held: Earnings, asset: Asset) -> NoReturn:
    """Say why an amount cannot be paid out, and when more can."""

    def shown(units: int) -> str:
        return format_amount(units, asset.decimals)

    if amount > held.available:
        detail = f"{shown(held.available)} {asset.symbol} can be paid out now, and {shown(amount)} were asked for."
        if stays := held.holdings.promotional - held.holdings.promotional_payable:
            detail += f" {shown(stays)} more were paid with promotional credit, which is not paid out."
    else:
        detail = f"A payout is at least {shown(least)} {asset.symbol}; this would be {shown(amount)}."
    raise EarningsShort(
        detail, asset=asset.symbol, available=shown(held.available), requested=shown(amount), minimum=shown(least),
        held_back=shown(held.holdings.held_back), deficit=shown(held.holdings.deficit),
        promotional=shown(held.holdings.promotional),
        frees_at=_moment(held.frees_at), all_free_at=_moment(held.all_free_at),
    )  # fmt: skip


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
