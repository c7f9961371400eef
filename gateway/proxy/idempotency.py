"""Exactly once for calls with an Idempotency-Key: claim it, answer again from store, or keep the answer.

Same key and same request: the stored answer, no charge, no upstream call. Another request: 422. Still running: 409. The
answer is stored with the settlement of its exchange before the caller has all of it, so no crash can leave a caller
with an answer that a second call would buy again. A refused call releases its key.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from uuid import UUID

from gateway.database.pool import LOST
from gateway.dates import http_date
from gateway.errors import AnswerNotKept, CallRunning, InvalidRequest, KeyReused, Unavailable
from gateway.ledger.answers import Answers, Claim
from gateway.ledger.group_commit import GroupCommit
from gateway.proxy.body import next_message
from gateway.proxy.effects import perform
from gateway.proxy.exchange import Exchange, HeaderPairs, Keyed
from gateway.proxy.problems import limit_fields

FIELD = b"idempotency-key"
KEY = re.compile(rb"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")
# Said of this answer only, never of a repeated one.
NOT_KEPT = frozenset(
    b"ratelimit ratelimit-policy x-cost x-balance x-balance-low x-budget-left date payment-response"
    b" x-payment-response".split()
)
RUNNING_SECONDS = "1"
NOT_STORED = "The answer could not be stored, so it was not delivered. Try again with the same key, and pay once."
SWITCHED = 101


async def answered_before(exchange: Exchange, answers: Answers, ledger: GroupCommit) -> bool:
    """Claim the call's key, if it has one and a known caller; or answer the call from store: then return True.

    Raises InvalidRequest, KeyReused, CallRunning or Unavailable, and as `replay`.
    """
    raw, principal = exchange.fields.get(FIELD), exchange.principal
    if raw is None or principal is None:
        return False
    if not KEY.fullmatch(raw):
        raise InvalidRequest("Idempotency-Key must be 1 to 255 visible ASCII characters.")
    keyed = Keyed(principal.account_id, raw.decode("ascii"))
    claim = await perform("claim", _claim_key(exchange, keyed, answers, ledger))
    if claim is not None:
        await replay(exchange, claim)
    return claim is not None


async def _claim_key(exchange: Exchange, keyed: Keyed, answers: Answers, ledger: GroupCommit) -> Claim | None:
    """Claim a key for the call. Return the stored answer of a finished call, else None.

    Raises KeyReused, CallRunning or Unavailable; then nothing has happened.
    """
    request_hash = fingerprint(exchange)
    try:
        claim = await answers.claim(keyed.owner_id, keyed.key, request_hash, exchange.id, ledger.worker_id)
    except (Unavailable, asyncio.CancelledError):
        give_back_in_doubt(keyed, exchange.id, answers, ledger)
        raise
    if claim.verdict == "claimed" or claim.exchange_id == exchange.id:
        keyed.request_hasher.update(exchange.read_body or b"")
        exchange.keyed = keyed
        return None
    if claim.request_hash != request_hash:
        raise KeyReused("This Idempotency-Key was used for another request.", first_request_id=str(claim.exchange_id))
    if claim.verdict == "running":
        raise CallRunning(
            "The call with this Idempotency-Key is still running; ask again.",
            headers={"Retry-After": RUNNING_SECONDS},
            first_request_id=str(claim.exchange_id),
        )
    return claim


def give_back_in_doubt(keyed: Keyed, exchange_id: UUID, answers: Answers, ledger: GroupCommit) -> None:
    """Nobody knows whether the key was claimed, or still will be: make sure that it does not stay so."""
    doubt = ledger.doubt()

    async def work() -> None:
        await answers.release(keyed.owner_id, keyed.key, exchange_id)
        doubt.check()

    ledger.owe("key", exchange_id, work)


def fingerprint(exchange: Exchange) -> bytes:
    """Return the hash of what makes two requests the same, less the body: that is compared when it has been read."""
    parts = (
        exchange.method.encode() if exchange.scope["type"] == "http" else b"websocket",
        exchange.slug.encode("latin-1"),
        exchange.path,
        exchange.query,
        exchange.fields.get(b"content-type", b""),
    )
    return hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest()


async def replay(exchange: Exchange, claim: Claim) -> None:
    """Send a stored answer again. Raises KeyReused when the body differs, AnswerNotKept when it was too large."""
    first = str(claim.exchange_id)
    if await hash_of_body(exchange) != claim.body_hash:
        raise KeyReused("This Idempotency-Key was used with another body.", first_request_id=first)
    if claim.body is None or claim.status is None:
        raise AnswerNotKept(
            "The call with this Idempotency-Key was delivered and paid, but its answer was not kept: it was too "
            "large, or was cut off at the end of the time that a call may take."
            if claim.status != SWITCHED
            else "The connection with this Idempotency-Key was opened and paid; it cannot be given again.",
            first_request_id=first,
        )
    await send_stored(exchange, claim.status, claim.header_pairs(), claim.body)


async def hash_of_body(exchange: Exchange) -> bytes:
    """Read the request body to its end and return its hash, as it is compared."""
    hasher = hashlib.sha256(exchange.read_body or b"")
    if exchange.read_body is not None:
        return hasher.digest()
    if b"content-length" in exchange.fields or b"transfer-encoding" in exchange.fields:
        while True:
            message = await next_message(exchange)
            hasher.update(message.get("body", b""))
            if not message.get("more_body"):
                break
    return hasher.digest()


async def send_stored(exchange: Exchange, status: int, kept: HeaderPairs, body: bytes) -> None:
    """Send a stored answer, with what is said of a repeated one."""
    headers = [*kept, (b"idempotency-replayed", b"true"), (b"x-cost", b"0"), *limit_fields(exchange)]
    headers.append((b"date", http_date()))  # of the repeated answer; the first one's was not kept
    if status not in (204, 304) and exchange.method != "HEAD":
        headers.append((b"content-length", str(len(body)).encode()))
    exchange.head_sent = True
    exchange.answered = status
    exchange.outcome = "replayed"
    await exchange.send({"type": "http.response.start", "status": status, "headers": headers})
    await exchange.send({"type": "http.response.body", "body": body})


def kept_headers(headers: HeaderPairs) -> HeaderPairs:
    """Return what of an answer's fields is kept with it: not what is said of one answer only."""
    return [pair for pair in headers if pair[0] not in NOT_KEPT and pair[0] != b"content-length"]


async def release_key(exchange: Exchange, answers: Answers, ledger: GroupCommit) -> None:
    """Give the key of a refused call back, so that the same request can be tried again; later if it must be."""
    keyed, exchange.keyed = exchange.keyed, None
    if keyed is None:
        return

    async def give_back() -> None:
        await answers.release(keyed.owner_id, keyed.key, exchange.id)

    try:
        await give_back()
    except (*LOST, Unavailable):
        ledger.owe("key", exchange.id, give_back)
    except asyncio.CancelledError:  # nobody else knows of the key any more
        ledger.owe("key", exchange.id, give_back)
        raise
