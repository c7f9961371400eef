"""Category `publisher-payments`: direct charges of first-party services, and the balances they look at before.

Payouts of the same category are in payouts.py. What may be charged is decided in gateway/billing/charges.py.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends
from pydantic import Field, StrictInt, StrictStr

from admin_api.kit.access import Caller, ServicesDep, idempotency_key, limited
from admin_api.kit.body import StrictRoute
from admin_api.kit.envelope import Answer, rfc3339
from admin_api.kit.needs import Seller, declares, needs
from admin_api.kit.problems import refusals
from gateway.billing import charges
from gateway.billing.budgets import next_day
from gateway.billing.charges import ChargeOutcome, DirectCharge
from gateway.catalog.assets import Asset
from gateway.database.pool import Connection
from gateway.errors import (
    ChargeLimit,
    Conflict,
    Forbidden,
    InvalidRequest,
    KeyReused,
    NotFirstParty,
    NotFound,
    PaymentRequired,
    Problem,
)
from gateway.identity.permissions import Permission, membership
from gateway.identity.principals import Principal
from gateway.ledger.wallets import BALANCES, Wallet
from gateway.limits.policy import Check, Policy
from gateway.proxy.problems import prepaid_offer
from gateway.request_body import RequestBody
from gateway.services import Services
from pricing.money import format_amount

router = APIRouter(tags=["publisher-payments"], route_class=StrictRoute)

MAX_INT64 = 2**63 - 1
PATH = "/billing/publishers/{slug}/charges"
NO_WALLET = "No agent has this wallet. Agents find the address of theirs as `wallet_address` of GET /wallet/balance."
NOT_NOW = "No money can be taken from this wallet now. Nothing was moved; try again later."
NOT_FIRST_PARTY = (
    "The operator has not named this publisher as a first-party service, or it is not active. Calls are paid by the"
    " agents who make them; only the operator can let a publisher charge agents directly."
)
ARCHIVED = "Charges of then are archived: they are neither refunded nor slashed any more."
Amount = Annotated[StrictInt, Field(ge=1, le=MAX_INT64)]
Words = Annotated[StrictStr, Field(min_length=1, max_length=500)]
Key = Annotated[str | None, Depends(idempotency_key)]


class CreateChargeRequest(RequestBody):
    """A charge. The same `idempotency_key` with the same request is the same charge."""

    agent_wallet: Annotated[StrictStr, Field(min_length=1, max_length=128)]
    amount_atomic: Amount
    description: Words
    idempotency_key: UUID | None = None


class RefundChargeRequest(RequestBody):
    """Why a charge is given back."""

    reason: Words


class SlashChargeRequest(RequestBody):
    """A penalty and why it is taken."""

    reason: Words
    slash_amount_atomic: Amount


class ChargeResponse(Answer):
    """A charge as it stands."""

    id: UUID
    agent_wallet: str
    amount_atomic: int
    status: str


class PublisherAgentBalanceResponse(Answer):
    """What an agent can pay with."""

    serenbucks_atomic: int
    onchain_atomic: int | None
    total_available_atomic: int


@declares("first-party")
async def first_party(caller: Caller, services: ServicesDep) -> Principal:
    """Return the caller if it may see charges of some first-party publisher. Raises NotFound."""
    async with services.database.acquire() as connection:
        for organization_id in await charges.FIRST_PARTY_ORGANIZATIONS.all(connection, caller.account_id):
            try:
                member = await membership(connection, caller, organization_id)
            except Forbidden:  # a key of another organization
                continue
            if Permission.CHARGES_READ in member.permissions:
                return caller
    raise NotFound("Publisher not found: you act for none that the operator has named as a first-party service.")


@router.post(PATH, operation_id="create_charge", responses=refusals(400, 401, 402, 403, 404, 409))
async def create_charge(
    body: CreateChargeRequest,
    seller: Annotated[Seller, needs(Permission.CHARGES_CREATE, seller=True)],
    key: Key,
    services: ServicesDep,
) -> ChargeResponse:
    """Take an amount from an agent's balance; for publishers that the operator has named as first-party services."""
    seller.publisher.demand_not_suspended()
    once = body.idempotency_key or _once(key)
    async with services.database.transaction() as connection:
        wallet = await _payer(connection, services, body.agent_wallet)
        if wallet is None:  # whose wallets there are is for those to know who may charge them
            known = await charges.TERMS_OF.first(connection, seller.publisher.id)
            raise NotFirstParty(NOT_FIRST_PARTY) if known is None else NotFound(NO_WALLET)
        outcome = await charges.charge(connection, seller.publisher, wallet, body.amount_atomic, body.description, once)
        made = await charges.FIND_CHARGE.first(connection, outcome.charge_id, seller.publisher.id)
    if made is not None and outcome.verdict in ("charged", "repeated"):
        return _shown(made)
    raise _not_charged(services, services.catalog.assets[wallet.asset_id], body.amount_atomic, outcome)


@router.get(PATH + "/{charge_id}", operation_id="get_charge_status", responses=refusals(401, 403, 404))
async def get_charge_status(
    charge_id: UUID, seller: Annotated[Seller, needs(Permission.CHARGES_READ, seller=True)], services: ServicesDep
) -> ChargeResponse:
    """Return a charge: completed, refunded, partially_slashed or slashed."""
    async with services.database.acquire() as connection:
        return _shown(await _found(connection, seller, charge_id))


@router.post(
    PATH + "/{charge_id}/refund", operation_id="refund_charge", responses=refusals(400, 401, 403, 404, 409, 422)
)
async def refund_charge(
    charge_id: UUID,
    body: RefundChargeRequest,
    seller: Annotated[Seller, needs(Permission.CHARGES_CREATE, seller=True)],
    key: Key,
    services: ServicesDep,
) -> ChargeResponse:
    """Give a charge back whole, and what was slashed of it, to the lots it was taken from.

    A second refund is refused and names the first, unless it has the first one's Idempotency-Key and is its repetition.
    """
    grace = timedelta(days=services.settings.money.refund_grace_days)
    async with services.database.transaction() as connection:
        charged = await _found(connection, seller, charge_id)
        outcome = await charges.refund(connection, seller.publisher, charged, body.reason, key, grace)
        after = await _found(connection, seller, charge_id)
    match outcome.verdict:
        case "refunded" | "repeated":
            return _shown(after)
        case "again":
            moment = rfc3339(after.refunded_at or datetime.now(UTC))
            raise Conflict(
                f"This charge was refunded before, at {moment}. Nothing was moved now.",
                charge_id=str(charge_id), refunded_at=moment,
            )  # fmt: skip
        case "reused":
            raise KeyReused("This Idempotency-Key has refunded the charge with another reason. Nothing was moved now.")
        case "archived":
            raise Conflict(ARCHIVED)


@router.post(
    PATH + "/{charge_id}/slash",
    status_code=204,
    operation_id="slash_charge",
    responses=refusals(400, 401, 402, 403, 404, 409, 422),
)
async def slash_charge(
    charge_id: UUID,
    body: SlashChargeRequest,
    seller: Annotated[Seller, needs(Permission.CHARGES_CREATE, seller=True)],
    key: Key,
    services: ServicesDep,
) -> None:
    """Take a penalty for a charge: all of them together take at most the charge's amount. Once per Idempotency-Key."""
    seller.publisher.demand_not_suspended()
    amount = body.slash_amount_atomic
    async with services.database.transaction() as connection:
        charged = await _found(connection, seller, charge_id)
        if await charges.IS_STOPPED.one(connection, charged.owner_id):
            raise Conflict(NOT_NOW, charge_id=str(charge_id))
        outcome = await charges.slash(connection, seller.publisher, charged, amount, body.reason, key)
        asset = services.catalog.assets[await charges.ASSET_OF.one(connection, charged.wallet_id)]
    match outcome.verdict:
        case "slashed" | "repeated":
            return
        case "reused":
            raise KeyReused("This Idempotency-Key has taken another penalty for the charge. Nothing was moved now.")
        case "refunded":
            raise Conflict("This charge was refunded: there is nothing left to slash.", charge_id=str(charge_id))
        case "archived":
            raise Conflict(ARCHIVED)
        case "above":
            left = _text(outcome.bound, asset)
            raise Conflict(
                f"Penalties take at most the charge's amount in all; {left} of it is left to be slashed.",
                charge_id=str(charge_id), slashed_atomic=charged.amount - outcome.bound, left_atomic=outcome.bound,
            )  # fmt: skip
        case "beyond":
            raise _beyond(outcome.bound, outcome.taken, asset)
        case "short":
            raise _short(services, asset, amount, outcome.available)
        case "refused":
            raise NotFirstParty(NOT_FIRST_PARTY)


@router.get("/wallet/lookup/{agent_wallet}", operation_id="get_agent_balance", responses=refusals(401, 403, 404))
async def get_agent_balance(
    agent_wallet: str, caller: Annotated[Principal, Depends(first_party)], services: ServicesDep
) -> PublisherAgentBalanceResponse:
    """Return what an agent can pay with everywhere, before it is charged. What it holds on a chain is not known."""
    policy = Policy("lookups", services.settings.limits.lookups, 60)
    await limited(services, Check(str(caller.account_id), policy))
    async with services.database.acquire() as connection:
        wallet = await _payer(connection, services, agent_wallet)
        if wallet is None:
            raise NotFound(NO_WALLET)
        rows = await BALANCES.all(connection, wallet.id)
    balance = sum(row.balance for row in rows if row.purpose != "deposit")
    return PublisherAgentBalanceResponse(serenbucks_atomic=balance, onchain_atomic=None, total_available_atomic=balance)


async def _payer(connection: Connection, services: Services, address: str) -> Wallet | None:
    if not address.isprintable():
        return None
    return await charges.FIND_PAYER.first(connection, address, services.catalog.default_asset.id)


def _once(key: str | None) -> UUID | None:
    """Return the key that a charge's head has in place of its body."""
    try:
        return None if key is None else UUID(key)
    except ValueError:
        raise InvalidRequest("The Idempotency-Key of a charge must be a UUID, like its idempotency_key.") from None


async def _found(connection: Connection, seller: Seller, charge_id: UUID) -> DirectCharge:
    charged = await charges.FIND_CHARGE.first(connection, charge_id, seller.publisher.id)
    if charged is None:
        raise NotFound("This publisher has made no charge with this id.")
    return charged


def _shown(charged: DirectCharge) -> ChargeResponse:
    return ChargeResponse(
        id=charged.id, agent_wallet=charged.agent_wallet, amount_atomic=charged.amount, status=charged.status
    )


def _text(amount: int, asset: Asset) -> str:
    return f"{format_amount(amount, asset.decimals)} {asset.symbol}"


def _not_charged(services: Services, asset: Asset, amount: int, outcome: ChargeOutcome) -> Problem:
    """Return why nothing was charged."""
    match outcome.verdict:
        case "conflict":
            return Conflict(
                "This idempotency_key belongs to another charge, of another agent, amount or description. It stands;"
                " use a new key for a new charge.",
                charge_id=str(outcome.charge_id),
            )
        case "above":
            return ChargeLimit(
                f"The operator lets this publisher charge at most {_text(outcome.bound, asset)} at once.",
                limit="charge", limit_atomic=outcome.bound,
            )  # fmt: skip
        case "beyond":
            return _beyond(outcome.bound, outcome.taken, asset)
        case "short":
            return _short(services, asset, amount, outcome.available)
        case _:
            return NotFirstParty(NOT_FIRST_PARTY)


def _beyond(bound: int, taken: int, asset: Asset) -> ChargeLimit:
    left = max(bound - taken, 0)
    return ChargeLimit(
        f"The operator lets this publisher take at most {_text(bound, asset)} of one agent in a day (UTC), penalties"
        f" included; {_text(left, asset)} of it is left.",
        limit="day", limit_atomic=bound, taken_atomic=taken, left_atomic=left,
        renews_at=rfc3339(next_day(datetime.now(UTC).date())),
    )  # fmt: skip


def _short(services: Services, asset: Asset, required: int, available: int) -> PaymentRequired:
    deficit = required - available
    return PaymentRequired(
        f"The agent's balance is {_text(deficit, asset)} short. Nothing was moved.",
        x402Version=2,
        accepts=[prepaid_offer(asset, required, required, available, services.settings.public_url)],
        availableBalanceAtomic=available,
    )
