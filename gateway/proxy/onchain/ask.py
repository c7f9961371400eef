"""402: every way to pay a call, for clients of both versions of x402 and for holders of an API key.

A payment that was declined is told why, in the protocol's word; one that failed on its chain also by PAYMENT-RESPONSE.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any

from gateway.json_text import json_text
from gateway.payments.evm.encoding import parse_address, show_address
from gateway.payments.x402 import v2
from gateway.payments.x402.offer import Offer
from gateway.payments.x402.required import required_body, typed_data
from gateway.proxy.exchange import Exchange, HeaderPairs
from gateway.proxy.onchain.declined import Declined
from gateway.proxy.onchain.offers import Sale, resource_of
from gateway.proxy.onchain.payment import response_field
from gateway.proxy.problems import (
    OFFER_SECONDS,
    answer_payment_required,
    estimate_member,
    limit_fields,
    prepaid_accept,
    promised_member,
    send_whole,
)
from gateway.proxy.purses.wallets import Shortfall
from gateway.services import Services

AGENT_WALLET = b"x-agent-wallet"
NO_PAYMENT = "Payment required"


async def answer(exchange: Exchange, shortfall: Shortfall, sales: Sequence[Sale], services: Services) -> None:
    """Send the 402 of an exchange whose quote is known."""
    public_url = services.settings.public_url
    if isinstance(shortfall, Declined):
        services.metrics.payment_declined(shortfall.reason)
    if not sales and not isinstance(shortfall, Declined):
        await answer_payment_required(exchange, public_url, available=shortfall.available, error=shortfall.detail)
        return
    offers = [sale.offer for sale in sales]
    error = shortfall.reason if isinstance(shortfall, Declined) else NO_PAYMENT
    resource = resource_of(exchange, public_url)
    body = required_body(
        offers,
        resource,
        error,
        seren=_seren(exchange, offers),
        prepaid=_prepaid(exchange, shortfall, public_url),
        bearer=exchange.principal is not None,
    )
    body["detail"] = _detail(exchange, shortfall)
    # Who names a wallet may have a deposit, and is told how to prove that it is theirs.
    wallet = _named_wallet(exchange) if exchange.principal is None else None
    shop = f"{public_url}/publishers/{exchange.sold.slug}"
    extensions = services.proofs.extensions(shop) if wallet is not None else {}
    if extensions:
        body["extensions"] = extensions
    if exchange.principal is not None:
        body["availableBalanceAtomic"] = shortfall.available
    content = json_text(body)
    headers: HeaderPairs = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-request-id", str(exchange.id).encode()),
        (b"x-cost", b"0"),
        (b"payment-required", v2.required_header(offers, resource, error, extensions)),
        *limit_fields(exchange),
    ]
    if isinstance(shortfall, Declined) and shortfall.settlement is not None:
        headers.append(response_field(shortfall.version, shortfall.settlement))
    await send_whole(exchange, 402, headers, content)


def _detail(exchange: Exchange, shortfall: Shortfall) -> str:
    if exchange.principal is None and not isinstance(shortfall, Declined):
        return "This call has a price: pay by one of the offers (x402), or send an API key that has funds."
    return shortfall.detail


def _seren(exchange: Exchange, offers: Sequence[Offer]) -> dict[str, Any]:
    """Return the contract's block; a caller that names its wallet gets what it may sign as well."""
    now = int(time.time())
    seconds = min((offer.timeout for offer in offers), default=OFFER_SECONDS)
    block: dict[str, Any] = {
        "payment_request_id": str(exchange.id),
        "publisher_id": str(exchange.sold.id),
        "expires": now + seconds,
        **estimate_member(exchange),
        **promised_member(exchange),
    }
    wallet = _named_wallet(exchange)
    if wallet is not None:
        ready = (typed_data(offer, wallet, secrets.token_bytes(32), now) for offer in offers)
        data = next((one for one in ready if one is not None), None)
        if data is not None:
            block["eip712TypedData"] = data
    return block


def _named_wallet(exchange: Exchange) -> str | None:
    """Return the address in X-AGENT-WALLET. Nobody has proven it: it opens nothing."""
    for name, value in exchange.scope["headers"]:
        if name == AGENT_WALLET:
            try:
                return show_address(parse_address(value.decode("latin-1")))
            except ValueError:
                return None
    return None


def _prepaid(exchange: Exchange, shortfall: Shortfall, public_url: str) -> dict[str, Any] | None:
    """Return the contract's prepaid offer, unless the publisher takes no balances in its primary asset."""
    price = exchange.asset_price
    if price is None or not price.prepaid or isinstance(shortfall, Declined):
        return None
    return prepaid_accept(price, exchange.quote.amount, shortfall.available, public_url)
