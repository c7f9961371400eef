"""The client of an external facilitator: verify and settle by HTTP, with every answer read strictly.

Only two things are believed: a success that names a transaction, and a refusal in the protocol's form. Everything else,
an error status, silence, garbage, is no answer: whether the facilitator acted is then unknown.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

import orjson

from gateway.payments.evm.rpc import NoAnswer
from gateway.payments.evm.terms import Terms
from gateway.payments.examine import refused
from gateway.payments.remote.wire import request_of
from gateway.payments.x402.offer import PaymentKinds
from gateway.payments.x402.reasons import PaymentRefused, Reason
from gateway.payments.x402.wire import Fields, as_object

Post = Callable[[str, Mapping[str, str], bytes], Awaitable[tuple[int, bytes]]]
"""Sends a JSON body to a URL and returns status and body. Raises NoAnswer."""

_HASH = re.compile(r"0x[0-9a-fA-F]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a facilitator says of a settlement. `transaction` (32 bytes) when settled, `reason` when not."""

    verdict: Literal["settled", "pending", "refused"]
    transaction: bytes | None = None
    reason: str | None = None


class FacilitatorClient:
    """One external facilitator for one network. `token` is sent as a bearer credential, and shown nowhere."""

    def __init__(self, network: str, url: str, token: str | None, kinds: PaymentKinds, post: Post) -> None:
        self._network = network
        self._url = url.rstrip("/")
        self._fields = {"Content-Type": "application/json"}
        if token:
            self._fields["Authorization"] = f"Bearer {token}"
        self._kinds = kinds
        self._post = post

    def __repr__(self) -> str:
        return f"FacilitatorClient({self._network})"

    async def verify(self, terms: Terms) -> None:
        """Return when the facilitator would settle a payment. Raises PaymentRefused, or NoAnswer."""
        answer = await self._ask("verify", terms, {})
        if answer.get("isValid") is True:
            return
        if answer.get("isValid") is not False:
            raise NoAnswer("the facilitator does not say whether the payment is valid")
        raise refused(_text(answer.get("invalidReason")))

    async def settle(self, payment_id: UUID, terms: Terms) -> Outcome:
        """Have a payment settled, again if need be: its id is the Idempotency-Key. Raises NoAnswer."""
        answer = await self._ask("settle", terms, {"Idempotency-Key": str(payment_id)})
        if answer.get("success") is True:
            transaction = answer.get("transaction")
            if not isinstance(transaction, str) or not _HASH.fullmatch(transaction):
                raise NoAnswer("the facilitator names no transaction")
            if answer.get("network") != self._network:
                raise NoAnswer("the facilitator speaks of another network")
            return Outcome("settled", bytes.fromhex(transaction[2:]))
        reason = _text(answer.get("errorReason"))
        if answer.get("success") is not False or reason is None:
            raise NoAnswer("the facilitator does not say how the settlement ended")
        return Outcome("pending" if reason == Reason.PENDING else "refused", None, reason)

    async def _ask(self, what: str, terms: Terms, fields: Mapping[str, str]) -> Fields:
        kind = self._kinds.of_asset(self._network, terms.asset, terms.method)
        if kind is None:
            raise LookupError(f"{self._network}: no such payment kind any more")
        body = orjson.dumps(request_of(kind, terms))
        status, answer = await self._post(f"{self._url}/{what}", {**self._fields, **fields}, body)
        if status != 200:
            raise NoAnswer(f"the facilitator answered {status}")
        try:
            said: Any = orjson.loads(answer)
            return as_object(said, "the answer")
        except (orjson.JSONDecodeError, PaymentRefused):
            raise NoAnswer("the facilitator's answer is no JSON object") from None


def _text(value: object) -> str | None:
    return value[:100] if isinstance(value, str) and value else None
