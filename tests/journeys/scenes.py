"""The rows of docs/who-pays.md as they are played: what the publisher, the agent or the gateway does wrong.

A scene is a coroutine that plays its row on a Stage and returns what the agent saw. What must come of it stands in the
document alone (test_who_pays.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.hostile.wire import Answer, ScriptedUpstream, Wire, request
from tests.support.gateway import RunningGateway
from tests.support.mcp_server import ScriptedMcpServer
from tests.support.world import Agent, Shop

NOBODY = "http://127.0.0.1:1"


@dataclass(frozen=True)
class Seen:
    """What the agent has read. `problem` is the name of a problem of the gateway's."""

    status: int
    complete: bool = True
    problem: str = ""
    cost: str | None = None
    fields: dict[str, str] = field(default_factory=dict)


@dataclass
class Stage:
    """One gateway, this row's shop and agent, and another agent who may be there before."""

    gateway: RunningGateway
    upstream: ScriptedUpstream
    agent: Agent
    neighbour: Agent
    shop: Shop
    tools: ScriptedMcpServer

    def path(self, path: str) -> str:
        return f"/publishers/{self.shop.slug}{path}"

    async def call(self, path: str, *fields: str, who: Agent | None = None) -> Seen:
        """Call as a well-behaved agent does and read the whole answer."""
        key = (who or self.agent).key
        async with self.wire() as wire:
            await wire.send(request("GET", self.path(path), *fields, key=key))
            return seen(await wire.answer())

    async def begin(self, path: str, *fields: str) -> Wire:
        """Send a call and leave its answer unread."""
        wire = await Wire.open(self.gateway.port)
        await wire.send(request("GET", self.path(path), *fields, key=self.agent.key))
        return wire

    async def reached(self) -> None:
        """Wait until the publisher's server has a request."""
        async with asyncio.timeout(60):
            while not self.upstream.heads:
                await asyncio.sleep(0.01)

    @contextlib.asynccontextmanager
    async def wire(self) -> Any:
        opened = await Wire.open(self.gateway.port)
        try:
            yield opened
        finally:
            opened.close()


def seen(answer: Answer) -> Seen:
    fields = dict(answer.headers)
    ours = fields.get("content-type") == "application/problem+json"
    name = answer.body.decode().partition('"type":"/problems/')[2].partition('"')[0] if ours else ""
    return Seen(answer.status, answer.complete, name, fields.get("x-cost"), fields)


Scene = Callable[[Stage], Awaitable[Seen | None]]
# Every row, those of tool_scenes.py included.
SCENES: dict[str, Scene] = {}
KILLED: dict[str, str] = {}
# What a row's publisher is told beside its price; see World.publisher.
SHOPS: dict[str, dict[str, Any]] = {}


def row(name: str, *, kill: str = "", **shop: Any) -> Callable[[Scene], Scene]:
    """Register a scene under its row. `kill` is the fault point at which its gateway dies, if it does."""

    def register(scene: Scene) -> Scene:
        assert name not in SCENES
        SCENES[name], SHOPS[name] = scene, shop
        if kill:
            KILLED[name] = kill
        return scene

    return register


# --- Nothing was sent to the publisher ---


@row("bad-request")
async def _(stage: Stage) -> Seen:
    return await stage.call("/a/../ok")


@row("not-priced", price=None, endpoints=[{"method": "GET", "path": "/other", "price": "0.01"}])
async def _(stage: Stage) -> Seen:
    return await stage.call("/ok")


@row("bad-key")
async def _(stage: Stage) -> Seen:
    async with stage.wire() as wire:
        await wire.send(request("GET", stage.path("/ok"), key="seren_0123456789abcdef_" + "a" * 43))
        return seen(await wire.answer())


@row("no-funds", price=10**12)
async def _(stage: Stage) -> Seen:
    return await stage.call("/ok")


@row("over-budget")
async def _(stage: Stage) -> Seen:
    body = {"name": "limited", "budget": {"per_day": "0.000001"}}
    made = await stage.gateway.client.post("/organizations/default/api-keys", headers=stage.agent.headers, json=body)
    return await stage.call("/ok", who=replace(stage.agent, key=made.json()["data"]["api_key"]))


@row("limited", price=None, max_queries_per_minute=1)
async def _(stage: Stage) -> Seen:
    while (found := await stage.call("/ok")).status == 200:
        assert found.cost == "0"
    return found


@row("breaker-open", api_url=NOBODY)
async def _(stage: Stage) -> Seen:
    for _ in range(5):
        assert (await stage.call("/ok", who=stage.neighbour)).problem == "upstream-unreachable"
    found = await stage.call("/ok")
    assert 1 <= int(found.fields["retry-after"]) <= 5
    return found


@row("pool-full", max_connections=1, connect_timeout_seconds=1)
async def _(stage: Stage) -> Seen:
    async with stage.wire() as wire:
        stage.upstream.forget()
        await wire.send(request("GET", stage.path("/hang"), key=stage.neighbour.key))
        await stage.reached()
        found = await stage.call("/ok")
        assert found.fields["retry-after"]
        return found


@row("unreachable", api_url=NOBODY)
async def _(stage: Stage) -> Seen:
    return await stage.call("/ok")


@row("address-forbidden", api_url="https://169.254.169.254")
async def _(stage: Stage) -> Seen:
    return await stage.call("/latest/meta-data")


@row("connect-timeout", connect_timeout_seconds=0.2, api_url="full backlog")
async def _(stage: Stage) -> Seen:
    return await stage.call("/ok")


# --- The publisher gave no answer ---


@row("reset")
async def _(stage: Stage) -> Seen:
    return await stage.call("/reset")


@row("closed")
async def _(stage: Stage) -> Seen:
    return await stage.call("/closed")


@row("invalid-framing")
async def _(stage: Stage) -> Seen:
    return await stage.call("/framing")


@row("not-http")
async def _(stage: Stage) -> Seen:
    return await stage.call("/not-http")


@row("first-byte-timeout", first_byte_timeout_seconds=0.2)
async def _(stage: Stage) -> Seen:
    return await stage.call("/hang")


@row("total-timeout-before", total_timeout_seconds=0.2)
async def _(stage: Stage) -> Seen:
    return await stage.call("/hang")


@row("upload-stalls", idle_timeout_seconds=0.3)
async def _(stage: Stage) -> Seen:
    async with stage.wire() as wire:
        size = 64 << 20
        head = request("POST", stage.path("/deaf"), f"Content-Length: {size}", key=stage.agent.key)
        sending = asyncio.ensure_future(wire.send(head + bytes(size)))
        found = seen(await wire.answer())
        sending.cancel()
        return found


@row("upload-too-slow")
async def _(stage: Stage) -> Seen:
    async with stage.wire() as wire:
        await wire.send(
            request("POST", stage.path("/ok"), "Content-Length: 100000", key=stage.agent.key) + b"x" * 70_000
        )
        return seen(await wire.answer())


@row("upload-breaks-off")
async def _(stage: Stage) -> None:
    async with stage.wire() as wire:
        stage.upstream.forget()
        await wire.send(
            request("POST", stage.path("/ok"), "Content-Length: 100000", key=stage.agent.key) + b"x" * 50_000
        )
        await stage.reached()


# --- The publisher answered ---


@row("delivered")
async def _(stage: Stage) -> Seen:
    return await stage.call("/ok")


@row("redirect")
async def _(stage: Stage) -> Seen:
    found = await stage.call("/307")
    assert found.fields["location"] == stage.path("/ok")
    return found


@row("redirect-charged", charge_on_status=["307"])
async def _(stage: Stage) -> Seen:
    return await stage.call("/307")


@row("redirect-with-key")
async def _(stage: Stage) -> Seen:
    assert (await stage.call("/307", "Idempotency-Key: k1")).cost == "0"
    return await stage.call("/307", "Idempotency-Key: k1")


@row("not-modified")
async def _(stage: Stage) -> Seen:
    return await stage.call("/304", 'If-None-Match: "v"')


@row("client-error")
async def _(stage: Stage) -> Seen:
    return await stage.call("/404")


@row("early-answer")
async def _(stage: Stage) -> Seen:
    async with stage.wire() as wire:
        await wire.send(
            request("POST", stage.path("/early"), "Content-Length: 5000000", key=stage.agent.key) + bytes(300_000)
        )
        return seen(await wire.answer())


@row("too-long")
async def _(stage: Stage) -> Seen:
    async with stage.wire() as wire:
        await wire.send(request("GET", stage.path("/long"), "Connection: close", key=stage.agent.key))
        found = await wire.answer()
        assert (found.body, await wire.ended()) == (b"ok", True)
        return seen(found)


@row("refund-on-status", refund_on_status=["4xx"])
async def _(stage: Stage) -> Seen:
    return await stage.call("/404")


@row("server-error")
async def _(stage: Stage) -> Seen:
    return await stage.call("/503")


# --- The answer breaks off ---


@row("breaks-off")
async def _(stage: Stage) -> Seen:
    return await stage.call("/half")


@row("too-short")
async def _(stage: Stage) -> Seen:
    return await stage.call("/short")


@row("bad-chunk")
async def _(stage: Stage) -> Seen:
    return await stage.call("/bad-chunk")


@row("falls-silent", idle_timeout_seconds=0.3)
async def _(stage: Stage) -> Seen:
    return await stage.call("/silent")


@row("total-timeout-after", total_timeout_seconds=1.5)
async def _(stage: Stage) -> Seen:
    return await stage.call("/drip")


@row("total-timeout-with-key", total_timeout_seconds=1.5)
async def _(stage: Stage) -> Seen:
    first = await stage.call("/drip", "Idempotency-Key: k1")
    assert (first.status, first.complete) == (200, False)
    return await stage.call("/drip", "Idempotency-Key: k1")


# --- The agent leaves ---


@row("leaves-before")
async def _(stage: Stage) -> None:
    await leave_before(stage, "/slow-ok")


@row("leaves-before-error")
async def _(stage: Stage) -> None:
    await leave_before(stage, "/slow-503")


async def leave_before(stage: Stage, path: str) -> None:
    stage.upstream.forget()
    wire = await stage.begin(path)
    await stage.reached()
    wire.close()


@row("leaves-after")
async def _(stage: Stage) -> None:
    wire = await stage.begin("/drip")
    await wire.until(b"x")
    wire.close()


@row("leaves-with-key")
async def _(stage: Stage) -> Seen:
    stage.upstream.forget()
    wire = await stage.begin("/three", "Idempotency-Key: k1")
    await wire.until(b"x")
    wire.close()
    found = await asked_again(stage, "/three")
    assert stage.upstream.targets == [b"/three"], "the publisher was asked once"
    return found


async def asked_again(stage: Stage, path: str) -> Seen:
    """Repeat a call whose key is known, until its first try has ended, and return the stored answer."""
    while (found := await stage.call(path, "Idempotency-Key: k1")).status == 409:
        await asyncio.sleep(0.2)
    assert found.fields["idempotency-replayed"] == "true"
    return found


@row("stalls")
async def _(stage: Stage) -> Seen:
    wire = await Wire.open(stage.gateway.port, limit=1024)  # the reader stops taking bytes from the socket
    await wire.send(request("GET", stage.path("/flood"), key=stage.agent.key))
    head = await wire.until(b"\r\n\r\n")
    await asyncio.sleep(CLIENT_SECONDS * 2.5)
    complete = (await wire.rest(10)).endswith(b"0\r\n\r\n") or not await wire.ended()
    wire.close()
    cost = head.lower().partition(b"x-cost: ")[2].partition(b"\r\n")[0].decode()
    return Seen(int(head[9:12]), complete, "", cost)


CLIENT_SECONDS = 0.6


# --- WebSockets ---


@row("socket-refused", api_url="sockets", websocket_enabled=True)
async def _(stage: Stage) -> Seen:
    try:
        async with _socket(stage, "/deny/403"):
            raise AssertionError("it was opened")
    except InvalidStatus as refusal:
        fields = {name.lower(): value for name, value in refusal.response.headers.raw_items()}
        return Seen(refusal.response.status_code, True, "upgrade-refused", fields["x-cost"], fields)


@row("socket-dropped", api_url="sockets", websocket_enabled=True)
async def _(stage: Stage) -> Seen:
    async with _socket(stage, "/drop") as opened:
        with contextlib.suppress(ConnectionClosed):
            await opened.recv()
        return Seen(101, complete=opened.close_code == 1000)


def _socket(stage: Stage, path: str) -> connect:
    url = f"ws://127.0.0.1:{stage.gateway.port}{stage.path(path)}"
    return connect(url, additional_headers=stage.agent.headers, proxy=None, close_timeout=1)


# --- The gateway stops ---


async def _killed(stage: Stage, path: str, *fields: str) -> Seen | None:
    """Call a gateway that dies at its fault point, and return what was read of the answer."""
    async with stage.wire() as wire:
        await wire.send(request("GET", stage.path(path), *fields, key=stage.agent.key))
        try:
            return seen(await wire.answer())
        except EOFError:
            return None


@row("killed-before-charge", kill="authorize.before")
async def _(stage: Stage) -> Seen | None:
    return await _killed(stage, "/ok")


@row("killed-before-sending", kill="authorize.after")
async def _(stage: Stage) -> Seen | None:
    stage.upstream.forget()
    found = await _killed(stage, "/ok")
    assert stage.upstream.heads == []
    return found


@row("killed-before-answer", kill="forward.after")
async def _(stage: Stage) -> Seen | None:
    return await _killed(stage, "/ok")


@row("killed-in-answer", kill="head.after")
async def _(stage: Stage) -> Seen | None:
    return await _killed(stage, "/three")


@row("killed-after-answer", kill="deliver.after")
async def _(stage: Stage) -> Seen | None:
    return await _killed(stage, "/ok")


@row("killed-with-key", kill="store.after")
async def _(stage: Stage) -> Seen | None:
    return await _killed(stage, "/ok", "Idempotency-Key: k1")


@row("stopped", kill="stop")
async def _(stage: Stage) -> Seen:
    stage.upstream.forget()
    call = asyncio.ensure_future(stage.call("/hang"))
    await stage.reached()
    stage.gateway.process.send_signal(signal.SIGTERM)
    return await call


async def told(client: httpx.AsyncClient, agent: Agent, exchange: str) -> dict[str, Any] | None:
    """Return the claims of an exchange's receipt, None when there is none."""
    answer = await client.get(f"/receipts/{exchange}", headers=agent.headers)
    return answer.json()["data"]["claims"] if answer.status_code == 200 else None
