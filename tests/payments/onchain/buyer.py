"""A wallet that buys: reads a 402, signs as official clients do, and presents the payment, in either version."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

from gateway.database.pool import Connection
from gateway.payments.evm.encoding import parse_address, show_address
from gateway.payments.evm.keystore import Signer
from tests.support.chain import Authorization, Chain

PRICE = 10_000
Document = dict[str, Any]


def encoded(document: Any) -> str:
    """A payment header's value."""
    return base64.b64encode(json.dumps(document).encode()).decode()


def decoded(header: str) -> Document:
    """What a header of ours says."""
    return json.loads(base64.b64decode(header, validate=True))


@dataclass
class Buyer:
    """One wallet at one gateway."""

    url: str
    chain: Chain
    wallet: Signer
    client: httpx.AsyncClient = field(init=False)

    def __post_init__(self) -> None:
        limits = httpx.Limits(max_connections=400, max_keepalive_connections=400)
        self.client = httpx.AsyncClient(base_url=self.url, timeout=40, limits=limits)

    @property
    def address(self) -> str:
        return show_address(self.wallet.address)

    async def balance(self) -> int:
        """What the wallet holds of USDC, on the chain."""
        return await self.chain.usdc_of(self.wallet.address)

    async def asked(self, path: str, method: str = "GET", **options: Any) -> Document:
        """What an unpaid call is asked for, as version 2 says it."""
        answer = await self.client.request(method, path, **options)
        assert answer.status_code == 402, answer.text
        return decoded(answer.headers["payment-required"])

    def sign(self, offer: Document, **changes: Any) -> Authorization:
        """Sign what an offer asks for, with changes."""
        terms = {"payee": parse_address(offer["payTo"]), "value": int(offer["amount"])}
        terms |= {"seconds": offer["maxTimeoutSeconds"]} | changes
        return self.chain.authorize(self.wallet, terms.pop("payee"), terms.pop("value"), **terms)

    def payment(self, required: Document, signed: Authorization | None = None, offer: int = 0) -> dict[str, str]:
        """The header of a payment of version 2."""
        chosen = required["accepts"][offer]
        document = {"x402Version": 2, "payload": payload(signed or self.sign(chosen)), "accepted": chosen}
        return {"PAYMENT-SIGNATURE": encoded(document | {"resource": required["resource"]})}

    def payment_v1(self, required: Document, signed: Authorization | None = None) -> dict[str, str]:
        """The header of a payment of version 1, for the first offer."""
        chosen = required["accepts"][0]
        document = {"x402Version": 1, "scheme": "exact", "network": "base-sepolia"}
        return {"X-PAYMENT": encoded(document | {"payload": payload(signed or self.sign(chosen))})}

    async def buy(self, path: str, method: str = "GET", **options: Any) -> httpx.Response:
        """Buy one call as a client does: ask, sign, present."""
        required = await self.asked(path, method, **options)
        headers = {**options.pop("headers", {}), **self.payment(required)}
        return await self.client.request(method, path, headers=headers, **options)


def payload(signed: Authorization) -> Document:
    """A signed authorization as the wire has it."""
    return {
        "signature": "0x" + signed.signature.hex(),
        "authorization": {
            "from": show_address(signed.payer), "to": show_address(signed.payee), "value": str(signed.value),
            "validAfter": str(signed.valid_after), "validBefore": str(signed.valid_before),
            "nonce": "0x" + signed.nonce.hex(),
        },
    }  # fmt: skip


OPEN = """
    SELECT (SELECT count(*) FROM chain.payment WHERE state IN ('reserved', 'pending', 'broadcast', 'unknown'))
         + (SELECT count(*) FROM chain.repayment WHERE state <> 'confirmed')
         + (SELECT count(*) FROM chain.undelivered u JOIN chain.payment p ON p.id = u.payment_id WHERE p.state <> 'failed')
         + (SELECT count(*) FROM ledger.answer WHERE status IS NULL)
"""


async def settled(connection: Connection, seconds: float = 60) -> None:
    """Wait until every payment has ended, and every call."""
    deadline = time.monotonic() + seconds
    while await connection.fetchval(OPEN):
        assert time.monotonic() < deadline, await connection.fetch(
            "SELECT id, state, reason, final, worker_id FROM chain.payment WHERE state <> 'confirmed'"
        )
        await asyncio.sleep(0.05)
