"""A network without a key of ours is settled on by an external facilitator: here another gateway, over the network.

Between the two stands a relay that loses what it is told to lose.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from x402.http.utils import decode_payment_response_header

from gateway.database.pool import Connection, connect
from gateway.ledger import proof
from gateway.networks import load_networks
from gateway.payments.evm.encoding import show_address
from gateway.payments.remote.remotes import open_remotes
from gateway.payments.x402.offer import compile_kinds
from gateway.settings import DatabaseSettings, SettingsError
from tests.payments.facilitator.conftest import booked, payer
from tests.payments.facilitator.test_deposits import PATH, SEPOLIA_USDC, body, signed
from tests.support.chain import Chain
from tests.support.databases import drop_database, replaced
from tests.support.gateway import RunningGateway, free_port, start_gateway
from tests.support.services import Services
from tests.support.world import Agent, Shop, World


@dataclass
class Relay:
    """Passes requests on to the facilitator. `lose`: answers to settle that it loses; `say`: what it says instead;
    `lie`: the same, and the facilitator never hears of it."""

    url: str
    target: str
    lose: int = 0
    say: bytes | None = None
    lie: bytes | None = None
    away: bool = False
    asked: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    async def handle(self, request: Request) -> Response:
        what = request.url.path.rsplit("/", 1)[1]
        self.asked.append(what)
        if self.away:
            return Response(status_code=502)
        if self.lie is not None and what == "settle":
            return Response(self.lie, media_type="application/json")
        fields = {name: request.headers[name] for name in ("authorization", "content-type", "idempotency-key")
                  if name in request.headers}  # fmt: skip
        async with httpx.AsyncClient(timeout=60) as client:
            answer = await client.post(f"{self.target}/{what}", content=await request.body(), headers=fields)
        if what == "settle":
            self.keys.append(request.headers.get("idempotency-key", ""))
            if self.say is not None:
                return Response(self.say, media_type="application/json")
            if self.lose:
                self.lose -= 1
                return Response(b"<html>bad gateway</html>", 502)
        return Response(answer.content, answer.status_code, media_type="application/json")


@dataclass
class Town:
    """A gateway that sells, on a database of its own, with its treasury and one publisher."""

    gateway: RunningGateway
    treasury: bytes
    shop: Shop
    connection: Connection

    async def lots(self) -> int:
        return int(
            await self.connection.fetchval(
                "SELECT coalesce(sum(balance), 0) FROM ledger.account WHERE purpose = 'deposit'"
            )
        )

    async def states(self) -> list[str]:
        return [row[0] for row in await self.connection.fetch("SELECT state::text FROM chain.payment ORDER BY id")]


Settling = Callable[..., AbstractAsyncContextManager[Town]]


@pytest_asyncio.fixture
async def relay(gateway: RunningGateway) -> AsyncIterator[Relay]:
    port = free_port()
    passing = Relay(f"http://127.0.0.1:{port}/facilitator", f"{gateway.url}/payments")
    app = Starlette(routes=[Route("/facilitator/{what}", passing.handle, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", lifespan="off"))
    task = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.02)
    yield passing
    server.should_exit = True
    await task


@pytest.fixture
def settling(services: Services, template: str, chain: Chain, seller: Agent, relay: Relay, upstream: Any) -> Settling:
    @asynccontextmanager
    async def start(**settings: str) -> AsyncIterator[Town]:
        name = f"tw_remote_{secrets.token_hex(4)}"
        admin = await asyncpg.connect(services.database_url)
        await admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        url = replaced(services.database_url, name)
        treasury = secrets.token_bytes(20)
        remote = {
            f"CHAIN_{chain.chain_id}_FACILITATOR": relay.url,
            f"CHAIN_{chain.chain_id}_FACILITATOR_TOKEN": seller.key,
            "CHAIN_TREASURY": show_address(treasury),
        }
        connection = await connect(DatabaseSettings(url=url))
        running = await start_gateway(services, url, **{**remote, **settings})
        try:
            shop = await World(connection, upstream.url, running.hears).publisher(10_000, asset=SEPOLIA_USDC)
            yield Town(running, treasury, shop, connection)
            report = await proof.verify(connection)
            assert report.sound, report.violations
            assert seller.key.rsplit("_", 1)[1] not in running.output()
        except BaseException:
            print(running.output())
            raise
        finally:
            await running.stop()
            await connection.close()
            await drop_database(admin, name)
            await admin.close()

    return start


async def deposit(
    town: Town, account: Any, payment: dict[str, str] | None = None
) -> tuple[dict[str, str], httpx.Response]:
    """Deposit as a client does; return the payment with the answer."""
    wanted = body(town.shop, "0.40")
    if payment is None:
        payment = signed(account, await town.gateway.client.post(PATH, json=wanted))
    return payment, await town.gateway.client.post(PATH, json=wanted, headers=payment)


async def until_credited(town: Town, account: Any, payment: dict[str, str]) -> httpx.Response:
    """Ask again with the same payment, as the answer says, until its end is known."""
    for _ in range(240):
        _, answer = await deposit(town, account, payment)
        if answer.status_code != 503:
            return answer
        await asyncio.sleep(0.25)
    raise AssertionError(f"it never ended: {answer.text}")


async def test_the_facilitator_settles_deposits_and_calls_once_and_books_nothing_itself(
    settling: Settling, chain: Chain, relay: Relay, connection: Connection
) -> None:
    before = await booked(connection)
    async with settling() as town:
        account = await payer(chain, 500_000)
        assert (await town.gateway.client.get("/payments/supported")).json()["kinds"] == []
        payment, answer = await deposit(town, account)
        assert (answer.status_code, answer.json()["balance_amount"]) == (200, "0.40"), answer.text
        assert (await deposit(town, account, payment))[1].json() == answer.json()
        assert await chain.usdc_of(town.treasury) == 400_000 == await town.lots()
        assert relay.asked == ["verify", "settle"]
        assert await town.states() == ["confirmed"]
        poor = await payer(chain, 1)
        _, refused = await deposit(town, poor)
        assert refused.status_code == 402
        assert "insufficient_funds" in refused.json()["error"]
        path = f"/publishers/{town.shop.slug}/x"
        payment = signed(await payer(chain, 500_000), await town.gateway.client.get(path))
        for _ in range(2):
            answer = await town.gateway.client.get(path, headers=payment)
            assert answer.status_code == 200, answer.text
            assert decode_payment_response_header(answer.headers["payment-response"]).success
        assert await chain.usdc_of(town.treasury) == 410_000
        assert relay.asked == ["verify", "settle", "verify", "verify", "settle"]
        assert await booked(connection) == before


@pytest.mark.slow
async def test_a_lost_answer_is_unknown_until_it_is_asked_for_again_under_the_same_key(
    settling: Settling, chain: Chain, relay: Relay
) -> None:
    async with settling(X402_WAIT="0.5") as town:
        account = await payer(chain, 500_000)
        relay.lose = 1
        payment, answer = await deposit(town, account)
        assert answer.status_code == 503, answer.text
        assert await chain.usdc_of(town.treasury) == 400_000
        assert (await until_credited(town, account, payment)).json()["deposited_amount"] == "0.40"
        assert await chain.usdc_of(town.treasury) == 400_000 == await town.lots()
        assert len(relay.keys) == 2
        assert len(set(relay.keys)) == 1


@pytest.mark.slow
async def test_what_a_facilitator_does_not_answer_shows_in_the_metrics(
    settling: Settling, chain: Chain, relay: Relay
) -> None:
    async with settling(X402_WAIT="0.5", WORKERS="2") as town:
        network = f'network="{chain.network}"'

        async def shown(*lines: str) -> bool:
            text = (await town.gateway.client.get("/metrics")).text
            return all(line in text for line in lines)

        async def until_shown(*lines: str) -> None:
            for _ in range(300):
                if await shown(*lines):
                    return
                await asyncio.sleep(0.2)
            raise AssertionError(lines)

        account = await payer(chain, 500_000)
        relay.lie = b"<html>bad gateway</html>"
        payment, answer = await deposit(town, account)
        assert answer.status_code == 503, answer.text
        unknown = f'tollway_chain_payments{{{network},state="unknown"}}'
        await until_shown(
            f"tollway_relayer_waits{{{network}}} 1.0", f"{unknown} 1.0", f"tollway_relayer_leading{{{network}}} 1.0"
        )
        assert not await shown(f"tollway_relayer_balance_wei{{{network}}}"), "the gas money is not ours"
        relay.lie = None
        assert (await until_credited(town, account, payment)).status_code == 200
        await until_shown(f"tollway_relayer_waits{{{network}}} 0.0", f"{unknown} 0.0")


@pytest.mark.slow
async def test_an_answer_that_names_no_transaction_or_another_network_is_not_believed(
    settling: Settling, chain: Chain, relay: Relay
) -> None:
    async with settling(X402_WAIT="0.5") as town:
        account, payment = await payer(chain, 500_000), None
        for said in (
            b'{"success":true,"transaction":"","network":"eip155:84532"}',
            b'{"success":true,"transaction":"0x' + b"11" * 32 + b'","network":"eip155:8453"}',
            b"[]",
        ):
            relay.say, count = said, len(relay.keys)
            payment, answer = await deposit(town, account, payment)
            assert answer.status_code == 503, answer.text
            while len(relay.keys) == count:
                await asyncio.sleep(0.1)
            assert await town.lots() == 0
        relay.say = None
        assert (await until_credited(town, account, payment)).status_code == 200
        assert await town.lots() == 400_000


@pytest.mark.slow
async def test_a_facilitator_that_is_away_begins_nothing(settling: Settling, chain: Chain, relay: Relay) -> None:
    async with settling() as town:
        relay.away = True
        account = await payer(chain, 500_000)
        payment, answer = await deposit(town, account)
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/unavailable")
        assert await town.states() == []
        relay.away = False
        assert (await deposit(town, account, payment))[1].status_code == 200


@pytest.mark.slow
async def test_a_node_that_only_looks_finds_what_the_facilitator_never_tells(
    settling: Settling, chain: Chain, relay: Relay
) -> None:
    async with settling(X402_WAIT="0.5", **{f"CHAIN_{chain.chain_id}_RPC": chain.url}) as town:
        account = await payer(chain, 500_000)
        relay.lose = 1_000
        payment, answer = await deposit(town, account)
        assert answer.status_code == 503
        assert (await until_credited(town, account, payment)).json()["balance_amount"] == "0.40"
        assert await chain.usdc_of(town.treasury) == 400_000 == await town.lots()
        assert await town.states() == ["confirmed"]


@pytest.mark.slow
async def test_a_node_sees_that_the_facilitator_lies(settling: Settling, chain: Chain, relay: Relay) -> None:
    """It names a transaction that exists and is another payment's: nothing is credited for it."""
    async with settling(X402_WAIT="0.5", **{f"CHAIN_{chain.chain_id}_RPC": chain.url}) as town:
        honest = await payer(chain, 500_000)
        first = await until_credited(town, honest, (await deposit(town, honest))[0])
        known = first.json()["tx_hash"].encode()
        relay.lie = b'{"success":true,"transaction":"' + known + b'","network":"eip155:84532"}'
        account = await payer(chain, 500_000)
        payment, answer = await deposit(town, account)
        assert answer.status_code == 503
        assert await town.lots() == 400_000 == await chain.usdc_of(town.treasury)
        relay.lie = None
        assert (await until_credited(town, account, payment)).status_code == 200
        assert await town.lots() == 800_000 == await chain.usdc_of(town.treasury)


async def test_a_network_with_a_facilitator_needs_an_address_to_be_paid(chain: Chain) -> None:
    environ = {f"TOLLWAY_CHAIN_{chain.chain_id}_FACILITATOR": "https://facilitator.example"}
    networks = load_networks(environ)

    async def nobody(*_: Any) -> tuple[int, bytes]:
        raise AssertionError("nobody is asked")

    with pytest.raises(SettingsError, match="TOLLWAY_CHAIN_TREASURY"):
        open_remotes(networks, {}, compile_kinds(networks, {chain.network: b""}), nobody, environ)
    kinds = compile_kinds(networks, {chain.network: b""})
    assert {kind.scheme for kind in kinds.all} == {"exact"}
    found = open_remotes(networks, {}, kinds, nobody, {**environ, "TOLLWAY_CHAIN_TREASURY": "0x" + "11" * 20})
    assert list(found) == [chain.network]
    assert open_remotes(networks, {chain.network}, kinds, nobody, environ) == {}
