"""A payment as it was presented with a call: its header read, verified for one of our offers, and its name.

The name is a hash of everything that was signed and of the signature itself. Whoever presents a payment again has that;
who knows only the nonce, or signs it a second time, has another name and is told what became of the first.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from gateway.billing.x402_per_request import LEAST_SECONDS
from gateway.identity.wallets import account_of
from gateway.payments.x402 import v1, v2
from gateway.payments.x402.offer import PaymentKinds, Taken
from gateway.payments.x402.reasons import PaymentRefused, Reason
from gateway.payments.x402.signatures import as_contracts_want
from gateway.payments.x402.terms import SignedTerms
from gateway.payments.x402.verify import TimeBounds, Verified, verify
from gateway.proxy.exchange import Exchange
from gateway.proxy.onchain.offers import Sale

SIGNATURE, PAYMENT = b"payment-signature", b"x-payment"
BOUNDS = TimeBounds(margin=LEAST_SECONDS)


@dataclass(frozen=True, slots=True)
class Presented:
    """A payment header's content. `network` is a CAIP-2 id, `owner` is the payer's account, `key` names the payment."""

    taken: Taken
    terms: SignedTerms
    network: str
    owner: UUID
    key: str


def presents(exchange: Exchange) -> bool:
    """Say whether a call brings a payment along."""
    return SIGNATURE in exchange.fields or PAYMENT in exchange.fields


def read(exchange: Exchange, kinds: PaymentKinds) -> Presented:
    """Return the payment in a call's header; version 2's goes before version 1's. Raises PaymentRefused."""
    header = exchange.fields.get(SIGNATURE)
    taken, terms = v2.read_payment(header) if header is not None else v1.read_payment(exchange.fields[PAYMENT])
    network = kinds.named(taken.network, taken.version)
    if network is None:
        raise PaymentRefused(Reason.NETWORK, "this gateway settles nothing on that network")
    return Presented(taken, terms, network.id, account_of(network.id, terms.payer), name_of(network.id, terms))


def check(presented: Presented, sales: Sequence[Sale], resource: str) -> tuple[Verified, Sale]:
    """Return the payment as one for a sale of ours. Raises PaymentRefused; what is left to ask is in the result."""
    offers = [sale.offer for sale in sales]
    verified = verify(presented.taken, presented.terms, offers, resource, int(time.time()), BOUNDS)
    return verified, next(sale for sale in sales if sale.offer is verified.offer)


def name_of(network: str, terms: SignedTerms) -> str:
    """Return a payment's name."""
    parts = (
        network.encode(), terms.method.encode(), terms.payer, terms.payee, str(terms.value).encode(),
        str(terms.valid_after).encode(), str(terms.valid_before).encode(), terms.nonce, terms.token, terms.spender,
        terms.facilitator, as_contracts_want(terms.signature),
    )  # fmt: skip
    joined = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return "x402:" + hashlib.sha256(joined).hexdigest()
