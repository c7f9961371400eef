"""A server that sells by x402 itself, of both versions, and takes its payments on the local chain. It can cheat.

The official middleware has tests of its own; this one does what that never does.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from gateway.payments.evm.encoding import parse_address, show_address
from gateway.payments.evm.keystore import Signer
from tests.support.chain import Authorization, Chain, executed
from tests.support.gateway import free_port

PRICE = 10_000
NETWORK_V1 = "base-sepolia"
STATUSES = {"failing": 500, "absent": 404, "moving": 302}
Document = dict[str, Any]


def encoded(document: Any) -> str:
    return base64.b64encode(json.dumps(document).encode()).decode()


@dataclass
class Seller:
    """`mode` is what it does with a payment; `changes` what is other than usual about its offer.

    honest: takes it, 200. late: 200 without a word, takes nothing. failing: takes it, 500. missing: 404, takes nothing.
    absent: takes it, 404. refusing: 402 again. dearer: 402 again, for twice the price. thief: takes it, 402 again.
    silent: takes it, never answers (until told). cutting: takes it, 200, and breaks off. moving: takes it, 302.
    denying: takes it, 200, and says that it did not. slow: honest, but asks for it only when told.
    """

    chain: Chain
    wallet: Signer
    payee: bytes
    url: str
    mode: str = "honest"
    version: int = 2
    price: int = PRICE
    changes: Document = field(default_factory=dict)
    more: list[Document] = field(default_factory=list)
    resource: str | None = None
    asked: int = 0
    presented: list[Authorization] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    fields: list[dict[str, str]] = field(default_factory=list)
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)

    def usual(self) -> None:
        """Sell honestly again, and forget who was here."""
        self.mode, self.version, self.price, self.resource, self.asked = "honest", 2, PRICE, None, 0
        self.changes, self.more, self.presented, self.bodies, self.fields = {}, [], [], [], []
        self.reached, self.release = asyncio.Event(), asyncio.Event()

    def offer(self) -> Document:
        """One entry of `accepts`."""
        common = {
            "scheme": "exact", "payTo": show_address(self.payee), "maxTimeoutSeconds": 60 + self.chain.ahead,
            "asset": show_address(self.chain.usdc), "extra": {"name": "USDC", "version": "2"},
        }  # fmt: skip
        if self.version == 1:
            own = {"network": NETWORK_V1, "maxAmountRequired": str(self.price), "description": "", "mimeType": ""}
            own["resource"] = self.resource or f"{self.url}/item"
        else:
            own = {"network": self.chain.network, "amount": str(self.price)}
        return {**common, **own, **self.changes}

    def required(self) -> Response:
        """The 402."""
        accepts = [self.offer(), *self.more]
        if self.version == 1:
            body = {"x402Version": 1, "error": "X-PAYMENT header is required", "accepts": accepts}
            return Response(json.dumps(body), 402, media_type="application/json")
        resource = {"url": self.resource or f"{self.url}/item", "description": "", "mimeType": "text/plain"}
        document = {"x402Version": self.version, "error": "pay", "resource": resource, "accepts": accepts}
        return Response("{}", 402, {"PAYMENT-REQUIRED": encoded(document)}, media_type="application/json")

    async def answer(self, request: Request) -> Response:
        """One call."""
        self.bodies.append(await request.body())
        self.fields.append(dict(request.headers))
        header = request.headers.get("payment-signature" if self.version == 2 else "x-payment")
        if request.url.path == "/free":
            return Response("free")
        if header is None:
            self.asked += 1
            if self.mode == "slow":
                self.reached.set()
                await self.release.wait()
            return self.required()
        signed = _read(json.loads(base64.b64decode(header))["payload"])
        self.presented.append(signed)
        return await self._sold(signed)

    async def _sold(self, signed: Authorization) -> Response:
        if self.mode in ("missing", "late"):
            return Response(status_code=404 if self.mode == "missing" else 200)
        if self.mode == "dearer":
            self.price *= 2
        if self.mode in ("refusing", "dearer"):
            return self.required()
        digest = await self.take(signed)
        if self.mode == "thief":
            return self.required()
        if self.mode == "silent":
            self.reached.set()
            await self.release.wait()
        name = "PAYMENT-RESPONSE" if self.version == 2 else "X-PAYMENT-RESPONSE"
        settled = {"success": self.mode != "denying", "transaction": digest, "network": self.chain.network, "payer": ""}
        said = {name: encoded(settled)}
        if self.mode == "cutting":
            return StreamingResponse(_cut(), headers={**said, "content-length": "100"})
        if self.mode == "moving":
            said["location"] = f"{self.url}/free"
        return Response("bought", STATUSES.get(self.mode, 200), said)

    async def take(self, signed: Authorization) -> str:
        """Execute an authorization, as anybody can."""
        digest = await self.chain.transact(self.wallet, self.chain.usdc, executed(signed))
        while (receipt := await self.chain.rpc("eth_getTransactionReceipt", digest)) is None:
            await asyncio.sleep(0.02)
        assert receipt["status"] == "0x1", "the token refuses the gateway's authorization"
        return digest


def _read(payload: Document) -> Authorization:
    one = payload["authorization"]
    return Authorization(
        parse_address(one["from"]), parse_address(one["to"]), int(one["value"]), int(one["validAfter"]),
        int(one["validBefore"]), bytes.fromhex(one["nonce"][2:]), bytes.fromhex(payload["signature"][2:]),
    )  # fmt: skip


def shown(signed: Authorization) -> Document:
    """The payload of a payment, as a client presents it."""
    one = {
        "from": show_address(signed.payer), "to": show_address(signed.payee), "value": str(signed.value),
        "validAfter": str(signed.valid_after), "validBefore": str(signed.valid_before), "nonce": "0x" + signed.nonce.hex(),
    }  # fmt: skip
    return {"signature": "0x" + signed.signature.hex(), "authorization": one}


async def _cut() -> AsyncIterator[bytes]:
    yield b"half of it"
    await asyncio.sleep(0)
    raise ConnectionAbortedError


class Serving:
    """Runs an ASGI application on a port of its own."""

    def __init__(self, app: Any, port: int) -> None:
        self._server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", lifespan="off"))
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._server._serve())
        while not self._server.started:
            assert not self._task.done(), self._task
            await asyncio.sleep(0.02)

    async def __aexit__(self, *_: object) -> None:
        self._server.should_exit = True
        if self._task is not None:
            await self._task


async def open_seller(chain: Chain, payee: bytes) -> tuple[Seller, Serving]:
    """A seller and what serves it."""
    port = free_port()
    seller = Seller(chain, await chain.wallet(), payee, f"http://127.0.0.1:{port}")
    app = FastAPI()
    app.add_api_route("/{path:path}", seller.answer, methods=["GET", "POST", "PUT"])
    return seller, Serving(app, port)
