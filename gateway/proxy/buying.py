"""Calls that the gateway buys from a server which sells by x402 itself, for a caller who pays with its balance.

    hold the most (authorize)  ->  ask the server  ->  402  ->  choose an offer  ->  write the purchase down  ->  sign
    ->  ask again, with the payment  ->  deliver, and capture what was paid with what goes on top

The agent pays for what was delivered, by the rule of every call. What the platform paid is the chain's to say
(payments/evm/purchases.py). From the signature on the call goes on to its end though its caller leaves: it is being
paid for (purses/bought.py). What does not live here: which offer is taken (payments/x402/purchase.py), the price.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeAlias

from gateway.catalog.settlement import SETTINGS_DECIMALS
from gateway.catalog.snapshot import AssetPrice, Publisher
from gateway.errors import NotBought, PaymentNotTaken, Unavailable
from gateway.payments.evm.encoding import parse_address
from gateway.payments.evm.purchases import BuyingWallet, Purchase, Said, rail_of
from gateway.payments.x402.digest import digest
from gateway.payments.x402.offer import PaymentKind, PaymentKinds
from gateway.payments.x402.purchase import (
    ANSWERS,
    MAX_REQUIRED,
    Allowed,
    Chosen,
    NotChosen,
    choose,
    payment_field,
    read_required,
    read_settlement,
    terms_of,
)
from gateway.proxy.destination import Destination
from gateway.proxy.effects import perform
from gateway.proxy.exchange import Exchange, HeaderPairs
from gateway.proxy.meter import Meter
from gateway.proxy.onchain.presented import presents
from gateway.proxy.quote import prepaid_price
from gateway.services import Services
from gateway.telemetry.logging import of
from gateway.upstreams.http.errors import UpstreamError
from gateway.upstreams.http.response import UpstreamResponse
from pricing.money import format_amount
from pricing.reported import Watch
from pricing.tariffs.x402_passthrough import PurchaseRate

log = logging.getLogger(__name__)

Ask: TypeAlias = Callable[[HeaderPairs], Coroutine[Any, Any, UpstreamResponse]]

PAYMENT_REQUIRED = b"payment-required"
SHOWN_OFFER = 6_144
GATHER_SECONDS = 5.0
WHY = {
    "no_offer": "its 402 holds no offer of x402",
    "kind": "none of its offers is `exact` by EIP-3009 in an asset that the publisher takes and this gateway pays in",
    "payee": "its offer names a payee that the operator does not allow",
    "resource": "its offer is for a resource of another host",
    "expiry": "its offer ends too soon",
}


@dataclass(frozen=True, slots=True)
class Buyer:
    """Buys for callers. One per worker."""

    services: Services
    wallet: BuyingWallet
    kinds: PaymentKinds

    def takes(self, exchange: Exchange) -> bool:
        """Say whether a call is one that is bought: its caller has a balance here and brings no payment of its own."""
        publisher = exchange.sold
        if not publisher.relays or exchange.principal is None or presents(exchange):
            return False
        price = prepaid_price(publisher)
        if price is None or price.bought is None or not price.prepaid:
            return False
        return bool(self._kinds_of(publisher, price) and self._payees(publisher))

    def price(self, exchange: Exchange) -> AssetPrice:
        """Set the most that the call may cost, and return in what it is paid."""
        price = prepaid_price(exchange.sold)
        if price is None or price.bought is None:
            raise RuntimeError("only what has a price is bought")
        exchange.asset_price, exchange.quote = price, price.bought.most
        exchange.meter = Meter(price.bought, Watch())
        exchange.meter.whole = True  # what it costs is known before its answer is passed on
        return price

    async def pay(self, exchange: Exchange, to: Destination, asked: UpstreamResponse, ask: Ask) -> UpstreamResponse:
        """Take up an offer of an upstream's 402 and return the answer that was bought.

        Raises NotBought (nothing was signed), PaymentNotTaken, Unavailable, and what `ask` raises.
        """
        chosen = await self._choose(exchange, to, asked)
        nonce, now = self.wallet.nonce(), int(time.time())
        terms = terms_of(chosen, self.wallet.address, nonce, now)
        await perform("promise", self._promise(exchange, chosen, nonce, terms.valid_before))
        signed = terms_of(
            chosen, self.wallet.address, nonce, now, self.wallet.sign(digest(chosen.kind.separator, terms))
        )
        answer = await perform("pay", ask([payment_field(chosen, signed)]))
        said = read_settlement(next((value for name in ANSWERS if (value := answer.field(name)) is not None), None))
        state = outcome(answer.status, said.success)
        self.services.metrics.purchase_ended(chosen.kind.network.id, state)
        self.services.ledger.spawn(self._note(exchange, state, said.transaction))
        if answer.status == 402:
            await answer.aclose()
            raise PaymentNotTaken("The publisher's server did not take the gateway's payment; you were not charged.")
        if exchange.meter is not None and charges(answer.status, said.success):
            exchange.meter.pay(chosen.amount)
        return answer

    async def _choose(self, exchange: Exchange, to: Destination, asked: UpstreamResponse) -> Chosen:
        """Return the offer that is taken up. Raises NotBought."""
        try:
            body = await asked.whole(MAX_REQUIRED) if await asked.gather(MAX_REQUIRED, GATHER_SECONDS) else None
        except UpstreamError:
            body = None
        await asked.aclose()
        header = asked.field(PAYMENT_REQUIRED)
        chosen = choose(read_required(header, body), self._allowed(exchange, to))
        if isinstance(chosen, Chosen):
            return chosen
        raise self._declined(exchange, chosen.why, _words(exchange, chosen), header)

    def _declined(self, exchange: Exchange, reason: str, detail: str, header: bytes | None = None) -> NotBought:
        """Return the refusal to buy. The offers go on where their field fits: a caller with a wallet may pay them."""
        exchange.sent = False  # nothing came of it: the key of such a call is given back
        self.services.metrics.purchase_declined(reason)
        shown = header is not None and len(header) <= SHOWN_OFFER
        fields = {"PAYMENT-REQUIRED": header.decode("latin-1")} if header is not None and shown else {}
        return NotBought(f"The publisher's server asks for a payment, and {detail}.", headers=fields, reason=reason)

    async def _promise(self, exchange: Exchange, chosen: Chosen, nonce: bytes, valid_before: int) -> None:
        """Write the purchase down. Raises NotBought or Unavailable."""
        price, kind, settings = _priced(exchange), chosen.kind, self.services.settings.buying
        verdict = await self.wallet.promise(
            Purchase(
                exchange_id=exchange.id,
                publisher_id=exchange.sold.id,
                asset_id=price.asset.ledger_asset_id,
                rail=rail_of(kind.network.id, kind.symbol),
                network=kind.network.id,
                asset=kind.asset,
                payee=chosen.payee,
                nonce=nonce,
                amount=chosen.amount,
                valid_before=valid_before,
                exposure=scaled(settings.exposure, price),
                exposure_total=scaled(settings.exposure_total, price),
                bonuses=scaled(settings.bonuses, price),
            )
        )
        match verdict.verdict:
            case "signed":
                return
            case "unheld":
                exchange.sent = False
                raise Unavailable("The call's money is not held any more; nothing was paid.")
            case "exposed":
                log.warning("publisher %s is not bought from: too much is owed", exchange.slug, extra=of(exchange.id))
                raise self._declined(exchange, "paused", "too much has been paid that was not delivered")
            case "bonuses":
                raise self._declined(exchange, "bonuses", "no more of that is paid with bonuses for now")
            case "short":
                log.error("the buying wallet on %s is empty", kind.network.id, extra=of(exchange.id))
                raise self._declined(exchange, "wallet", "the gateway's wallet lacks the money")

    async def _note(self, exchange: Exchange, state: Said, transaction: str | None) -> None:
        try:
            await self.wallet.note(exchange.id, state, transaction)
        except Unavailable:
            log.info("what an upstream said of its payment is not noted", extra=of(exchange.id))

    def _allowed(self, exchange: Exchange, to: Destination) -> Allowed:
        price, settings = _priced(exchange), self.services.settings.buying
        return Allowed(
            self._kinds_of(exchange.sold, price),
            self._payees(exchange.sold),
            to.origin.host,
            min(_rate(price).most_paid, scaled(settings.most, price)),
            int(settings.validity),
        )

    def _kinds_of(self, publisher: Publisher, price: AssetPrice) -> list[PaymentKind]:
        """Return in what a publisher may be paid: its assets whose money is that which its callers pay with."""
        assets = [one.asset for one in publisher.prices if one.asset.ledger_asset_id == price.asset.ledger_asset_id]
        kinds = (self.kinds.find(asset.network_id, asset.symbol) for asset in assets)
        return [kind for kind in kinds if kind is not None and kind.method == "eip3009"]

    def _payees(self, publisher: Publisher) -> frozenset[bytes]:
        """Return whom the operator allows to be paid for a publisher: what it lists, by default the publisher's own."""
        found: set[bytes] = set()
        for entry in self.services.settings.buying.publishers:
            slug, _, payee = entry.partition("=")
            if slug in ("*", publisher.slug):
                try:
                    found.add(parse_address(payee or publisher.wallet_address))
                except ValueError:
                    continue
        return frozenset(found)


def outcome(status: int, success: bool | None) -> Said:
    """Return what an upstream's answer to a payment says of it."""
    if success:
        return "paid"
    return "unpaid" if success is False or status == 402 else "unknown"


def charges(status: int, success: bool | None) -> bool:
    """Say whether the caller pays for such an answer: the upstream took the money, or delivered and has not said."""
    return success is True or (success is None and status < 400)


def scaled(amount: int, price: AssetPrice) -> int:
    """Return a setting's amount in atomic units of a price's asset."""
    return amount * 10**price.asset.decimals // 10**SETTINGS_DECIMALS


def _priced(exchange: Exchange) -> AssetPrice:
    if exchange.asset_price is None:
        raise RuntimeError("the call has not been priced")
    return exchange.asset_price


def _rate(price: AssetPrice) -> PurchaseRate:
    if price.bought is None:
        raise RuntimeError("only what has a price is bought")
    return price.bought


def _words(exchange: Exchange, missed: NotChosen) -> str:
    """Return why nothing is bought, as the caller reads it."""
    if missed.why != "price":
        return WHY[missed.why]
    asset, most = _priced(exchange).asset, exchange.quote.amount
    asked, most_text = format_amount(missed.asked or 0, asset.decimals), format_amount(most, asset.decimals)
    return f"its cheapest offer, {asked} {asset.symbol}, is above what may be paid: a call costs at most {most_text}"
