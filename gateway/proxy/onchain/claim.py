"""One run for one payment: its name is claimed before anything happens, and whoever presents it again is answered.

The same payment with the same request gets the answer that it bought, whether its caller hung up, a copy ran beside it,
or the price has changed since. With another request it is a used authorization. While its settlement is open it gets
neither an answer nor a new 402: both could make somebody pay twice, or not at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from gateway.errors import AnswerNotKept, CallRunning, Problem, SettlementPending, Unavailable
from gateway.ledger.answers import Claim
from gateway.payments.calls import FATE, FATE_BY_NONCE, Fate
from gateway.payments.evm.reasons import NONCE_USED
from gateway.payments.x402.answers import Settlement
from gateway.payments.x402.signatures import as_contracts_want, read_signature
from gateway.proxy.exchange import Exchange, Keyed
from gateway.proxy.idempotency import fingerprint, give_back_in_doubt, hash_of_body, send_stored
from gateway.proxy.onchain.declined import Declined
from gateway.proxy.onchain.payment import response_field
from gateway.proxy.onchain.presented import Presented
from gateway.services import Services

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 0.5
RETRY_SECONDS = 2
OTHER_REQUEST = "this payment was made for another request: sign a new one"
RETURNED = "this payment was settled, its call brought nothing, and the money goes back: sign a new one"


async def claim(exchange: Exchange, presented: Presented, services: Services) -> Claim | None:
    """Claim a verified payment's name for this call. Returns None when it is ours, else the answer that it bought.

    Raises Declined, CallRunning or Unavailable; then nothing has happened.
    """
    request_hash, lifetime = fingerprint(exchange), timedelta(seconds=services.settings.x402.replay)

    async def look() -> Claim | None:
        try:
            found = await services.answers.claim(
                presented.owner, presented.key, request_hash, exchange.id, services.ledger.worker_id, lifetime
            )
        except (Unavailable, asyncio.CancelledError):
            keyed = Keyed(presented.owner, presented.key)
            give_back_in_doubt(keyed, exchange.id, services.answers, services.ledger)
            raise
        if found.verdict == "claimed" or found.exchange_id == exchange.id:
            exchange.keyed = Keyed(presented.owner, presented.key)
            exchange.keyed.request_hasher.update(exchange.read_body or b"")
            return None
        return found

    return await _patiently(look, request_hash, services)


async def bought(exchange: Exchange, presented: Presented, services: Services) -> Claim | None:
    """Return the answer that a payment bought which could not be taken now: it has expired, or the price has changed.

    Raises as `claim`, or with what became of a payment whose answer is gone.
    """
    found = await _patiently(
        lambda: services.answers.find(presented.owner, presented.key), fingerprint(exchange), services
    )
    if found is None:
        fate = await fate_before(presented, services)
        if fate is not None:
            raise explained(exchange, fate, presented, services)
    return found


async def fate_before(presented: Presented, services: Services) -> Fate | None:
    """Return what became of this payment when it was presented before; None when it was not, or was given up."""
    fate = await _find(presented, services)
    return fate if fate is not None and fate.state != "cancelled" and _is_same(fate, presented) else None


async def _patiently(
    look: Callable[[], Awaitable[Claim | None]], request_hash: bytes, services: Services
) -> Claim | None:
    """Look until nobody else runs the call, for as long as a settlement may take."""
    clock = asyncio.get_running_loop().time
    deadline, pause = clock() + services.settings.x402.wait, FIRST_PAUSE
    while True:
        found = await look()
        if found is None:
            return None
        if found.request_hash != request_hash:
            raise Declined(NONCE_USED, OTHER_REQUEST)
        if found.verdict == "finished":
            return found
        if clock() >= deadline:
            raise CallRunning(
                "The call with this payment is still running; present it again.",
                headers={"Retry-After": str(RETRY_SECONDS)},
                first_request_id=str(found.exchange_id),
            )
        await asyncio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


async def answer_again(exchange: Exchange, found: Claim, presented: Presented, services: Services) -> None:
    """Send the answer that a payment bought, once it is settled; what was delivered on trust is not held back.

    Raises Declined, SettlementPending or AnswerNotKept.
    """
    if await hash_of_body(exchange) != found.body_hash:
        raise Declined(NONCE_USED, OTHER_REQUEST)
    status = await services.settlements.status(found.exchange_id)
    fate = await fate_of(found.exchange_id, services)
    if status is None or fate is None:
        raise gone(found.exchange_id)
    if not status.ended and not fate.deferred:
        await services.settlements.wait(found.exchange_id, services.settings.x402.wait)
        fate = await fate_of(found.exchange_id, services) or fate
    if found.body is None or found.status is None:
        raise explained(exchange, fate, presented, services)
    if fate.state == "failed" or fate.repayment is not None or not (fate.deferred or fate.state == "confirmed"):
        raise explained(exchange, fate, presented, services)
    fields = [*found.header_pairs(), response_field(presented.taken.version, settlement_of(fate, presented, services))]
    await send_stored(exchange, found.status, fields, found.body)


def explained(exchange: Exchange, fate: Fate, presented: Presented, services: Services) -> Problem:
    """Return what is answered to a payment that buys no answer now: Declined, SettlementPending or AnswerNotKept."""
    if fate.request_hash not in (None, fingerprint(exchange)):
        return Declined(NONCE_USED, OTHER_REQUEST)
    if fate.repayment is not None:
        return Declined(NONCE_USED, RETURNED)
    if fate.state == "failed":
        version, settled = presented.taken.version, settlement_of(fate, presented, services)
        return Declined(settled.reason or NONCE_USED, version=version, settlement=settled)
    if fate.outcome is not None and fate.state == "confirmed":
        return gone(fate.id)
    return pending(fate.id, services)  # on its way; or its call is, or what that leaves behind


def gone(payment_id: object) -> AnswerNotKept:
    """Return the refusal of a payment whose answer was delivered, and is not kept any more."""
    return AnswerNotKept(
        "This payment was settled and its call ended; the answer is not kept. GET /payments/{id} says what happened.",
        first_request_id=str(payment_id),
    )


def pending(payment_id: object, services: Services) -> SettlementPending:
    """Return the answer to a payment that is on its way: neither an answer nor a request for another payment."""
    return SettlementPending(
        "Your payment is on its way through its chain. Present the same payment again in a moment, never a new one: "
        "you get the answer that it bought, or learn that nothing was moved.",
        retry_after=RETRY_SECONDS,
        payment_id=str(payment_id),
        payment_url=f"{services.settings.public_url}/payments/{payment_id}",
    )


def settlement_of(fate: Fate, presented: Presented, services: Services) -> Settlement:
    """Return how a payment ended, as its payer is told."""
    network = services.settlements.parties[presented.network].network
    if fate.state == "failed":
        return Settlement(network, fate.payer, reason=fate.reason or "transaction_failed")
    return Settlement(network, fate.payer, fate.transaction, fate.amount)


async def fate_of(payment_id: object, services: Services) -> Fate | None:
    """Return what became of a payment."""
    return await services.database.read(lambda connection: FATE.first(connection, payment_id))


async def _find(presented: Presented, services: Services) -> Fate | None:
    """Return what became of an authorization, whatever it was presented for."""
    terms = presented.terms
    contracts = services.settlements.parties[presented.network].contracts
    assets = [presented.taken.asset] if presented.taken.asset else _assets(presented, services)
    verifiers = [contracts.verifier(terms.method, asset) for asset in assets]
    return await services.database.read(
        lambda connection: FATE_BY_NONCE.first(connection, presented.network, verifiers, terms.payer, terms.nonce)
    )


def _assets(presented: Presented, services: Services) -> list[bytes]:
    """Return the assets that a payment of version 1 may mean: it names none."""
    return [kind.asset for kind in services.kinds.all if kind.network.id == presented.network]


def _is_same(fate: Fate, presented: Presented) -> bool:
    """Say whether a payment was presented with this very signature: its nonce alone proves nothing."""
    signature = read_signature(presented.terms.signature)
    return signature is not None and fate.signature in (signature.data, as_contracts_want(signature.data))
