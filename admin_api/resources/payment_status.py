"""What became of a payment on a chain: for a payer whose answer was lost, before it pays again. Extensions.

Open without a credential: a wallet without an account has none. A payment's id was told to its payer alone, its nonce
was made by the payer, and what is said here is on the chain, or will be.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from admin_api.kit.access import ServicesDep, public
from admin_api.kit.envelope import Answer
from admin_api.kit.problems import refusals
from gateway.errors import InvalidRequest, NotFound
from gateway.payments.calls import FATE, FATE_BY_NONCE, Fate
from gateway.payments.evm.encoding import parse_address, parse_hex, show_address
from gateway.services import Services

router = APIRouter(tags=["extensions"], dependencies=[Depends(public)])
EXTENSION: dict[str, Any] = {"x-extension": True}
UNKNOWN = "No payment is known by this. Nothing was moved by this gateway: a new payment is safe."
Address = Annotated[str, Query(pattern=r"^0x[0-9a-fA-F]{40}$", description="An address, 0x and 40 hexadecimal digits")]
Nonce = Annotated[str, Query(pattern=r"^0x[0-9a-fA-F]{64}$", description="The authorization's nonce, 32 bytes in hex")]


class PaymentStatus(Answer):
    """A payment. `amount_atomic` is a decimal string of the asset's atomic units.

    `state` is as in docs/settlement.md; `call` is how the call that it paid for ended, or `open`. `repayment` is the
    state of the money's way back to the payer, where it is on one. `transaction` is the one that moved the money.
    """

    id: UUID
    network: str
    asset: str
    payer: str
    payee: str
    amount_atomic: str
    state: Literal["reserved", "pending", "broadcast", "unknown", "confirmed", "failed", "cancelled"]
    reason: str | None
    final: bool
    transaction: str | None
    call: Literal["open", "settled", "refunded"]
    repayment: Literal["pending", "broadcast", "confirmed"] | None


class PaymentStatusResponse(Answer):
    """One payment."""

    data: PaymentStatus


@router.get(
    "/payments/{payment_id:uuid}",
    operation_id="get_payment",
    responses=refusals(400, 404, 429),
    openapi_extra=EXTENSION,
)
async def get_payment(payment_id: UUID, services: ServicesDep) -> PaymentStatusResponse:
    """Return what became of a payment, by the X-Request-Id of the call that it was presented with."""
    found = await services.database.read(lambda connection: FATE.first(connection, payment_id))
    return _answer(found)


@router.get("/payments", operation_id="find_payment", responses=refusals(400, 404, 429), openapi_extra=EXTENSION)
async def find_payment(
    network: Annotated[str, Query(max_length=64)], payer: Address, nonce: Nonce, services: ServicesDep
) -> PaymentStatusResponse:
    """Return what became of an authorization, by its network (CAIP-2), payer and nonce."""
    verifiers = _verifiers(network, services)
    found = await services.database.read(
        lambda connection: FATE_BY_NONCE.first(
            connection, network, verifiers, parse_address(payer), parse_hex(nonce)
        )
    )  # fmt: skip
    return _answer(found)


def _verifiers(network: str, services: Services) -> list[bytes]:
    """Return the contracts whose nonces are spent on a network: the tokens, and Permit2. Raises InvalidRequest."""
    found = {kind.verifier for kind in services.kinds.all if kind.network.id == network}
    if not found:
        raise InvalidRequest(
            "This gateway settles nothing on that network.",
            errors=[{"field": "network", "message": "must be a network of GET /payments/supported"}],
        )
    return sorted(found)


def _answer(fate: Fate | None) -> PaymentStatusResponse:
    if fate is None:
        raise NotFound(UNKNOWN)
    return PaymentStatusResponse(
        data=PaymentStatus(
            id=fate.id,
            network=fate.network,
            asset=show_address(fate.asset),
            payer=show_address(fate.payer),
            payee=show_address(fate.payee),
            amount_atomic=str(fate.amount),
            state=fate.state,
            reason=fate.reason,
            final=fate.final,
            transaction=None if fate.transaction is None else "0x" + fate.transaction.hex(),
            call=fate.outcome or "open",
            repayment=fate.repayment,
        )
    )
