"""What a call may be paid with on a chain: an offer for each asset that its publisher takes and we settle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote as escaped

from gateway.billing.x402_per_request import pays_publisher, policy_on
from gateway.catalog.endpoints import Endpoint
from gateway.catalog.snapshot import AssetPrice, Publisher
from gateway.payments.evm.chains import Chain
from gateway.payments.evm.encoding import parse_address
from gateway.payments.evm.settlements import Booking, Party
from gateway.payments.x402.answers import Resource, resource
from gateway.payments.x402.offer import Offer, PaymentKind, PaymentKinds, Scheme
from gateway.proxy.exchange import Exchange
from gateway.proxy.meter import Rate
from gateway.proxy.quote import rate_of
from gateway.settings import SettlementPolicy
from pricing.money import round_up
from pricing.quote import Quote, quote_of
from pricing.sql.budget import Budget
from pricing.tariffs import per_request
from pricing.usage import Usage

IN_URLS = "!#$%&'()*+,/:;=?@[]~"
MAX_TIMEOUT = 3_600
"""The longest that an authorization may be good for, in seconds: what lives longer must be remembered longer."""


@dataclass(frozen=True, slots=True)
class Sale:
    """An offer, and what taking it up means: the price in its asset, whose the money is, and when it is settled."""

    offer: Offer
    price: AssetPrice
    quote: Quote
    booking: Booking
    policy: SettlementPolicy


@dataclass(frozen=True, slots=True)
class Offers:
    """The payment kinds of this gateway, and the networks that it can be paid on by CAIP-2 id."""

    kinds: PaymentKinds
    parties: Mapping[str, Party]

    def of(self, exchange: Exchange, chosen: SettlementPolicy, signed: int | None = None) -> list[Sale]:
        """Return what an exchange may be paid with, the publisher's primary asset first; maybe nothing.

        A call has its quote by now. A query is offered for what it was planned to come to; or, before that, for what
        was `signed` for it (atomic units), which `covers` judges when it is planned.
        """
        publisher = exchange.sold
        if publisher.sale is not None:
            return self._of_query(exchange, chosen, signed)
        if publisher.category != "integration":
            return []
        if exchange.meter is not None:
            return self.of_metered(publisher, exchange.method, exchange.candidates, chosen)
        return self.of_call(publisher, exchange.method, exchange.candidates, chosen)

    def of_call(
        self, publisher: Publisher, method: str, candidates: Sequence[Endpoint | None], chosen: SettlementPolicy
    ) -> list[Sale]:
        """Return what a call with a fixed price may be paid with."""
        found: list[Sale] = []
        for price, kind, party in self._ways(publisher, "exact"):
            quote = quote_in(price, publisher, method, candidates)
            if quote is not None:
                found.append(_sale(publisher, price, quote, kind, party, chosen))
        return found

    def takes(self, publisher: Publisher) -> bool:
        """Say whether a publisher can be paid on a chain at all."""
        return any(True for _ in self._ways(publisher, "exact"))

    def of_metered(
        self, publisher: Publisher, method: str, candidates: Sequence[Endpoint | None], chosen: SettlementPolicy
    ) -> list[Sale]:
        """Return the most by each way: what is due is not known before the answer is, so `upto` waits for it."""
        found: list[Sale] = []
        for price, kind, party in self._ways(publisher, "exact", "upto"):
            rate = rate_in(price, publisher, method, candidates)
            if rate is not None:
                sale = _sale(publisher, price, rate.most, kind, party, chosen)
                found.append(replace(sale, policy="before_response") if kind.scheme == "upto" else sale)
        return found

    def _of_query(self, exchange: Exchange, chosen: SettlementPolicy, signed: int | None) -> list[Sale]:
        publisher, budget = exchange.sold, exchange.budget
        found: list[Sale] = []
        for price, kind, party in self._ways(publisher, "exact", "upto"):
            if signed is not None:
                amount = max(signed, 1)
            else:
                amount = 0 if budget is None else query_amounts(price, budget)[kind.scheme == "upto"]
            if amount and price.rows.quote(1_000_000).amount:  # never free by accident
                quote = quote_of(amount, price.rows.fee_ppm, "rows")
                found.append(_sale(publisher, price, quote, kind, party, chosen))
        return found

    def _ways(self, publisher: Publisher, *schemes: Scheme) -> Iterator[tuple[AssetPrice, PaymentKind, Party]]:
        for price in publisher.prices if self.parties else ():
            party = self.parties.get(price.asset.network_id)
            for scheme in schemes if price.onchain and party is not None else ():
                kind = self.kinds.find(price.asset.network_id, price.asset.symbol, scheme)
                if kind is not None and party is not None:
                    yield price, kind, party


def query_amounts(price: AssetPrice, budget: Budget) -> tuple[int, int]:
    """Return the least and the most that a query may be paid by (atomic units): the prices of estimate and maximum."""
    return price.rows.quote(budget.shown).amount, price.rows.quote(budget.shown_most).amount


def covers(sale: Sale, budget: Budget) -> bool:
    """Say whether what was signed for a query is a budget that it can be run with."""
    least, most = query_amounts(sale.price, budget)
    return least <= sale.offer.amount <= most


def _sale(
    publisher: Publisher, price: AssetPrice, quote: Quote, kind: PaymentKind, party: Party, chosen: SettlementPolicy
) -> Sale:
    # What is due of an `upto` payment is known when the answer is: it cannot be settled before.
    first = _returnable(party) and kind.scheme == "exact"
    policy = policy_on(chosen, returnable=first)
    payee, booking = _payee(publisher, price, quote, party, policy)
    return Sale(Offer(kind, quote.amount, payee, min(price.expiry_seconds, MAX_TIMEOUT)), price, quote, booking, policy)


def quote_in(
    price: AssetPrice, publisher: Publisher, method: str, candidates: Sequence[Endpoint | None]
) -> Quote | None:
    """Return the dearest quote in an asset, None where there is no price: what costs something is not free in another.

    Endpoints are priced in the primary asset's units; the same decimal price holds in each asset.
    """
    primary = publisher.prices[0].asset.decimals
    if not price.prices.sells(method) and any(one is None or one.price is None for one in candidates):
        return None
    quotes = [
        per_request.quote(price.prices, Usage(method=method), _scaled(one, primary, price.asset.decimals))
        for one in candidates
    ]
    dearest = max(quotes, key=lambda quote: quote.amount, default=None)
    return dearest if dearest is not None and dearest.amount else None


def rate_in(price: AssetPrice, publisher: Publisher, method: str, candidates: Sequence[Endpoint | None]) -> Rate | None:
    """Return what a call's use costs in an asset; None where its price is fixed."""
    primary = publisher.prices[0].asset.decimals
    return rate_of(price, method, [_scaled(one, primary, price.asset.decimals) for one in candidates])


def resource_of(exchange: Exchange, public_url: str) -> Resource:
    """Return what is sold, as an offer names it and a payment echoes it: the call's URL with its query."""
    query = b"?" + exchange.query if exchange.query else b""
    # Bytes that no URL has are escaped: in JSON each would be six characters of a header that must stay short.
    url = f"{public_url}/publishers/{exchange.sold.slug}{escaped(exchange.path + query, safe=IN_URLS)}"
    return resource(url, f"{exchange.method} {exchange.sold.name}")


def _scaled(endpoint: Endpoint | None, primary: int, decimals: int) -> int | None:
    """Return an endpoint's price in an asset's units. Exact: stored prices fit every accepted asset."""
    if endpoint is None or endpoint.price is None:
        return None
    return round_up(endpoint.price * 10**decimals, 10**primary)


def _returnable(party: Party) -> bool:
    """Say whether what was paid to the treasury can be sent back by us."""
    return isinstance(party, Chain) and party.treasury == party.signer.address


def _payee(
    publisher: Publisher, price: AssetPrice, quote: Quote, party: Party, policy: SettlementPolicy
) -> tuple[bytes, Booking]:
    """Return whom a payment goes to (20 bytes): the publisher itself where it may, else the platform's treasury."""
    if pays_publisher(policy, price.prices.fee_ppm) and publisher.wallet_network == party.network.id:
        try:
            return parse_address(publisher.wallet_address), Booking(kind="direct", account_id=price.account_id)
        except ValueError:  # stored before addresses were checked
            pass
    return party.treasury, Booking(kind="earnings", account_id=price.account_id, fee=quote.fee)
