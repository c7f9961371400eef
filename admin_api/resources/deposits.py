"""Deposits on a chain for one publisher's calls, and what their owner has there.

`onchain_deposit` is of category `agent-wallet`; reading deposits, and the challenge that a wallet signs to do so, are
extensions. A payment that is not in order is answered 402 again, with the protocol's reason code.
"""

from __future__ import annotations

import secrets
import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.responses import JSONResponse, Response

from admin_api.kit.access import ServicesDep, caller, guess, public
from admin_api.kit.body import StrictRoute
from admin_api.kit.edge import request_id
from admin_api.kit.envelope import Answer
from admin_api.kit.needs import declares
from admin_api.kit.once import Once
from admin_api.kit.problems import refusals
from admin_api.resources import wallet_models as models
from gateway.billing.deposits import OFFER_SECONDS, Deposit
from gateway.catalog.prices import LIST_PRICING
from gateway.catalog.records import FIND_ACTIVE
from gateway.catalog.refusals import refused
from gateway.errors import InvalidRequest, NotFound, RailNotAvailable, SettlementPending, Unauthenticated
from gateway.identity.permissions import AccountRight, demand_right
from gateway.identity.principals import Principal
from gateway.identity.wallets import KIND
from gateway.payments.evm.encoding import parse_address, show_address
from gateway.payments.evm.settlements import Status
from gateway.payments.x402 import v1, v2
from gateway.payments.x402.answers import Resource, Settlement, resource
from gateway.payments.x402.reasons import PaymentRefused, Reason
from gateway.payments.x402.required import required_body, typed_data
from gateway.services import Services
from pricing.money import MoneyError, format_amount, parse_amount

router = APIRouter(route_class=StrictRoute)
PATH = "/wallet/deposit/crypto"
NO_CHAIN = "This gateway takes no payments on that asset's chain. Nothing was started or charged."
PROOF, CLAIM = "sign-in-with-x", "x-agent-wallet"
_bearer = HTTPBearer(scheme_name="bearer_auth", auto_error=False)
_proof = APIKeyHeader(name="SIGN-IN-WITH-X", scheme_name="wallet_proof", auto_error=False)


@declares("signature")
async def owner(request: Request, services: ServicesDep) -> Principal | None:
    """Return whose API key came along. Without one the wallet that pays is the owner, which its payment proves."""
    if "authorization" in request.headers:
        return await caller(request, services, None)
    await public(request, services)
    return None


OwnerDep = Annotated[Principal | None, Depends(owner)]


@router.post(
    PATH,
    operation_id="onchain_deposit",
    tags=["agent-wallet"],
    response_model=models.OnchainDepositResponse,
    responses={
        **refusals(400, 401, 404, 429, 500, 501, 503),
        402: {"model": models.PaymentRequiredResponseWithInfo, "description": "Payment Required"},
    },
)
async def onchain_deposit(
    body: models.OnchainDepositRequest, request: Request, owner: OwnerDep, once: Once, services: ServicesDep
) -> Response:
    """Deposit on a chain for one publisher's calls: 402 with what to pay, then the same request with the payment.

    It belongs to the wallet that pays, or, with an API key, to its account. Answers 501 where no chain is configured.
    """
    deposit = await _deposit(body, services, owner)
    try:
        payment = _payment(request)
        if payment is None:
            return _required(request, services, deposit, "Payment required", "Pay to deposit; nothing was charged.")
        version, (taken, terms) = payment
        status = await services.deposits.pay(deposit, taken, terms)
    except PaymentRefused as refusal:
        return _required(request, services, deposit, str(refusal.reason), refusal.detail)
    if not status.ended:
        raise SettlementPending(
            "The payment is on its way. Send the same request with the same payment again, never a new one.",
            retry_after=2,
            payment_id=str(status.id),
            payment_url=f"{services.settings.public_url}/payments/{status.id}",
        )
    settled = _settlement(deposit, status)
    fields = _response_fields(version, settled)
    if settled.reason is not None:
        return _required(request, services, deposit, settled.reason, "The chain did not move the money.", fields)
    answer = await _credited(services, deposit, status)
    return JSONResponse(answer.model_dump(mode="json"), headers=fields)


async def _deposit(body: models.OnchainDepositRequest, services: Services, owner: Principal | None) -> Deposit:
    """Return what is asked for, checked. Raises InvalidRequest, NotFound, RailNotAvailable."""
    async with services.database.acquire() as connection:
        record = await FIND_ACTIVE.first(connection, body.publisher_id)
        if record is None:
            raise NotFound("No active publisher has this id.")
        prices = await LIST_PRICING.all(connection, [record.id])
    asset_id = body.asset_id or record.primary_asset_id
    row = next((row for row in prices if row.asset_id == asset_id), None)
    if row is None or not row.prepaid_enabled:
        raise refused("asset_id", "is not an asset in which this publisher takes prepaid calls")
    asset = services.catalog.assets[asset_id]
    try:
        amount = parse_amount(body.amount, asset.decimals)
    except MoneyError as error:
        raise refused("amount", str(error)) from None
    least = services.deposits.least(asset)
    if amount < max(least, 1):
        raise refused("amount", f"must be at least {format_amount(max(least, 1), asset.decimals)} {asset.symbol}")
    offer = services.deposits.offer(asset, amount)
    if offer is None:
        raise RailNotAvailable(NO_CHAIN)
    return Deposit(
        record.id, asset, services.catalog.assets[asset.ledger_asset_id], offer,
        services.settings.public_url + PATH, owner and owner.account_id,
    )  # fmt: skip


def _payment(request: Request) -> tuple[int, Any] | None:
    """Return the payment that came along, with its version. Raises PaymentRefused."""
    sent = [(name, request.headers.getlist(name)) for name in ("payment-signature", "x-payment")]
    values = [(name, value) for name, found in sent for value in found]
    if len(values) > 1:
        raise InvalidRequest("The request has more than one payment.")
    if not values:
        return None
    name, value = values[0]
    header = value.encode("latin-1")
    return (2, v2.read_payment(header)) if name == "payment-signature" else (1, v1.read_payment(header))


def _required(
    request: Request, services: Services, deposit: Deposit, error: str, detail: str,
    fields: dict[str, str] | None = None,
) -> Response:  # fmt: skip
    """Return the 402: what to pay, for clients of both versions, and as data to sign for the wallet that is named."""
    what = _what(deposit)
    seren: dict[str, Any] = {
        "payment_request_id": request_id(request.scope),
        "publisher_id": str(deposit.publisher_id),
        "expires": int(time.time()) + OFFER_SECONDS,
    }
    try:
        payer = show_address(parse_address(request.headers.get(CLAIM, "")))
        seren["eip712TypedData"] = typed_data(deposit.offer, payer, secrets.token_bytes(32), int(time.time()))
    except ValueError:
        pass  # no wallet is named, or none that could pay
    body = required_body([deposit.offer], what, error, seren=seren, prepaid=None, bearer=False)
    body["detail"] = detail
    offered = v2.required_header([deposit.offer], what, error).decode()
    return JSONResponse(body, 402, headers={"PAYMENT-REQUIRED": offered, **(fields or {})})


def _what(deposit: Deposit) -> Resource:
    return resource(deposit.resource, f"Deposit for publisher {deposit.publisher_id}")


def _settlement(deposit: Deposit, status: Status) -> Settlement:
    network, reason = deposit.offer.kind.network, None
    if status.state != "confirmed":
        reason = status.reason or str(Reason.TRANSACTION_FAILED)
    return Settlement(network, status.payer, status.transaction if reason is None else None, status.amount, reason)


def _response_fields(version: int, settled: Settlement) -> dict[str, str]:
    if version == 1:
        return {"X-PAYMENT-RESPONSE": v1.response_header(settled).decode()}
    return {"PAYMENT-RESPONSE": v2.response_header(settled).decode()}


async def _credited(services: Services, deposit: Deposit, status: Status) -> models.OnchainDepositResponse:
    decimals, symbol = deposit.asset.decimals, deposit.asset.symbol
    balance = await services.deposits.balance_after(status.id)
    amount = format_amount(status.amount, decimals, places=2)
    return models.OnchainDepositResponse(
        publisher_id=deposit.publisher_id,
        agent_wallet=show_address(status.payer),
        asset_symbol=symbol,
        deposited_amount=amount,
        balance_amount=format_amount(balance, deposit.ledger_asset.decimals, places=2),
        message=f"{amount} {symbol} can be spent on this publisher's calls.",
        tx_hash="0x" + (status.transaction or b"").hex(),
    )


@declares("wallet.read or signature")
async def holder(
    request: Request,
    services: ServicesDep,
    _key: Annotated[object, Security(_bearer)],
    _signed: Annotated[object, Security(_proof)],
) -> Principal:
    """Return who is calling, by API key or by a wallet's signature. Raises Unauthenticated with what to sign."""
    proofs = request.headers.getlist(PROOF)
    if "authorization" in request.headers or not proofs:
        if proofs:
            raise InvalidRequest("Send an API key or a wallet proof, not both.")
        try:
            principal = await caller(request, services, None)
            demand_right(principal, AccountRight.WALLET_READ)
            return principal
        except Unauthenticated as refusal:
            refusal.fields["extensions"] = services.proofs.extensions(services.settings.public_url + request.url.path)
            raise
    if len(proofs) > 1:
        raise InvalidRequest("The request has more than one wallet proof.")
    await public(request, services)
    claimed = request.headers.get(CLAIM)
    try:
        return await services.proofs.prove(
            proofs[0].encode("latin-1"), None if claimed is None else claimed.encode("latin-1")
        )
    except Unauthenticated:
        await guess(request, services)
        raise


class WalletDeposit(Answer):
    """What is left of deposits at one publisher. `balance_atomic` is a string: assets may have 18 decimals."""

    publisher_id: str
    publisher_slug: str
    network: str
    asset_symbol: str
    balance: str
    balance_atomic: str


class WalletDeposits(Answer):
    """A wallet's, or an account's, deposits."""

    owner: str
    deposits: list[WalletDeposit]


class WalletDepositsDataResponse(Answer):
    """Envelope."""

    data: WalletDeposits


class WalletChallengeResponse(Answer):
    """What a wallet signs, in the form of x402's extension `sign-in-with-x`."""

    extensions: dict[str, Any]


@router.get(
    "/wallet/deposits",
    operation_id="list_wallet_deposits",
    tags=["extensions"],
    responses=refusals(400, 401, 429, 501, 503),
    openapi_extra={"x-extension": True},
)
async def list_wallet_deposits(
    who: Annotated[Principal, Depends(holder)], services: ServicesDep
) -> WalletDepositsDataResponse:
    """List what the caller, a key's account or a wallet that proves itself, has deposited and not spent."""
    found: list[WalletDeposit] = []
    for item in await services.deposits.balances(who.account_id):
        asset = services.catalog.assets[item.asset_id]
        found.append(
            WalletDeposit(
                publisher_id=str(item.publisher_id),
                publisher_slug=item.slug,
                network=asset.network_id,
                asset_symbol=asset.symbol,
                balance=format_amount(item.balance, asset.decimals, places=2),
                balance_atomic=str(item.balance),
            )
        )
    owner = who.name if who.kind == KIND else str(who.account_id)
    return WalletDepositsDataResponse(data=WalletDeposits(owner=owner, deposits=found))


@router.get(
    "/wallet/challenge",
    operation_id="wallet_challenge",
    tags=["extensions"],
    dependencies=[Depends(public)],
    responses=refusals(429, 501),
    openapi_extra={"x-extension": True},
)
async def wallet_challenge(services: ServicesDep) -> WalletChallengeResponse:
    """Return what a wallet signs to prove itself once, in the header SIGN-IN-WITH-X. Answers 501 without a chain."""
    extensions = services.proofs.extensions(services.settings.public_url + "/wallet")
    if not extensions:
        raise RailNotAvailable("Wallets cannot sign in here: this gateway has no chain, or no secret keys.")
    return WalletChallengeResponse(extensions=extensions)
