"""Receipts of paid calls, and the keys that verify them. Extensions: the contract has no receipts."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends

from admin_api.kit.access import ServicesDep
from admin_api.kit.envelope import Answer
from admin_api.kit.needs import OPEN
from admin_api.kit.problems import refusals
from admin_api.resources.deposits import holder
from gateway.billing.receipts import payload_of
from gateway.database.pool import Connection
from gateway.errors import Forbidden, NotConfigured, NotFound
from gateway.identity.permissions import Permission, require
from gateway.identity.principals import Principal
from gateway.identity.wallets import account_of
from gateway.ledger.receipts import ReceiptFacts, find_receipt, is_archived

router = APIRouter(tags=["extensions"])
EXTENSION: dict[str, Any] = {"x-extension": True}


class Receipt(Answer):
    """A receipt: the signed text (a compact JWS), and its claims for reading."""

    receipt: str
    claims: dict[str, Any]


class ReceiptDataResponse(Answer):
    """The receipt of one paid call."""

    data: Receipt


@router.get(
    "/receipts/{request_id}",
    operation_id="get_receipt",
    responses=refusals(400, 401, 404, 429, 501),
    openapi_extra=EXTENSION,
)
async def get_receipt(
    request_id: UUID, caller: Annotated[Principal, Depends(holder)], services: ServicesDep
) -> ReceiptDataResponse:
    """Return the signed receipt of a paid call by its X-Request-Id, to who paid it or sold it.

    A wallet that paid on a chain proves itself by its signature (GET /wallet/challenge).
    """
    if not services.receipts.ready:
        raise NotConfigured("This gateway has no secret keys to sign with; its operator sets TOLLWAY_SECRET_KEYS.")
    async with services.database.acquire() as connection:
        facts = await find_receipt(connection, request_id)
        if facts is None and await is_archived(connection, request_id):
            raise NotFound(
                "Calls of then are archived and have no receipt here any more; the operator has their records."
            )
        if facts is None or not await _may_see(connection, caller, facts):
            raise NotFound("You have no paid call with this id.")
    claims = payload_of(facts, services.settings.public_url)
    return ReceiptDataResponse(data=Receipt(receipt=services.receipts.sign(claims), claims=claims))


@router.get("/.well-known/jwks.json", operation_id="get_receipt_keys", dependencies=[OPEN], openapi_extra=EXTENSION)
async def get_receipt_keys(services: ServicesDep) -> dict[str, list[dict[str, str]]]:
    """Return the public keys that receipts are signed with, as a JWK set."""
    return services.receipts.jwks()


async def _may_see(connection: Connection, caller: Principal, facts: ReceiptFacts) -> bool:
    if facts.owner_id == caller.account_id:
        return True
    wallet = None if facts.payer is None or facts.network is None else account_of(facts.network, facts.payer)
    if wallet == caller.account_id:
        return True
    try:
        await require(connection, caller, facts.organization_id, Permission.EARNINGS_READ)
    except Forbidden:
        return False
    return True
