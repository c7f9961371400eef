"""WebSocket connections paid by a wallet: the payment goes with the handshake, and is settled before it is accepted."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidMessage, InvalidStatus
from websockets.http11 import Response

from gateway.database.pool import Connection
from tests.payments.evm.conftest import until
from tests.payments.onchain.buyer import PRICE, Buyer, Document, decoded, settled
from tests.payments.onchain.conftest import Buying, chained
from tests.support.chain import Chain, executed
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.servers import EACH
from tests.support.services import Services
from tests.support.sockets import SocketUpstream
from tests.support.world import SEPOLIA_USDC, Shop, World

KILLED = ["forward.after", "ahead.after"]
"""Where a gateway dies that has not accepted its caller: the publisher's server has, then the payment is settled."""


@pytest_asyncio.fixture
async def shop(world: World, sockets: SocketUpstream) -> Shop:
    sockets.forget()
    return await shop_of(world, sockets)


async def shop_of(world: World, sockets: SocketUpstream, **fields: Any) -> Shop:
    return await world.publisher(
        PRICE, SEPOLIA_USDC, gateway_fee_percent="10", api_url=sockets.url, websocket_enabled=True, **fields
    )


def opened(buyer: Buyer, shop: Shop, header: dict[str, str] | None = None, path: str = "/echo") -> connect:
    url = buyer.url.replace("http", "ws", 1) + f"/publishers/{shop.slug}{path}"
    return connect(url, additional_headers=header or {}, ping_interval=None, open_timeout=30, proxy=None)


async def refused(buyer: Buyer, shop: Shop, header: dict[str, str] | None = None, path: str = "/echo") -> Response:
    with pytest.raises(InvalidStatus) as refusal:
        async with opened(buyer, shop, header, path):
            pass
    return refusal.value.response


async def asked(buyer: Buyer, shop: Shop, path: str = "/echo") -> Document:
    answer = await refused(buyer, shop, path=path)
    assert answer.status_code == 402
    return decoded(answer.headers["payment-required"])


@pytest.mark.parametrize("server", EACH)
async def test_a_connection_is_asked_for_and_paid_on_every_server(
    server: str, services: Services, database_url: str, chain: Chain, buying: Buying, shop: Shop, world: World,
    sockets: SocketUpstream, connection: Connection,
) -> None:  # fmt: skip
    running = await start_gateway(services, database_url, SERVER=server, **chained(chain))
    try:
        buyer = await buying(url=running.url)
        header = buyer.payment(await asked(buyer, shop))
        assert sockets.handshakes == 0, "an unpaid handshake does not reach the publisher"
        async with opened(buyer, shop, header) as socket:
            assert await buyer.balance() == 9 * PRICE, "settled before it was accepted"
            await socket.send("hello")
            assert await socket.recv() == "hello"
            assert socket.response is not None
            assert decoded(socket.response.headers["payment-response"])["success"] is True
            assert socket.response.headers["x-cost"] == "0.01"
        await settled(connection)
        again = await refused(buyer, shop, header)
        assert (again.status_code, sockets.handshakes) == (410, 1), "a connection cannot be given again"
        assert (await buyer.balance(), await world.earned(shop)) == (9 * PRICE, 9_000)
    finally:
        await running.stop()


@pytest.mark.parametrize("policy", ["settle_first", "deferred"])
async def test_a_connection_is_paid_under_the_other_policies(
    policy: str, buying: Buying, world: World, sockets: SocketUpstream, chain: Chain, connection: Connection
) -> None:
    shop, buyer = await shop_of(world, sockets, x402_settlement=policy), await buying()
    header = buyer.payment(await asked(buyer, shop))
    async with opened(buyer, shop, header) as socket:
        await socket.send("hello")
        assert await socket.recv() == "hello"

        async def paid() -> bool:
            return await buyer.balance() == 9 * PRICE

        await until(paid)  # also on trust it is settled while the connection lasts
    await settled(connection)
    assert await world.earned(shop) == 9_000


async def test_a_refused_handshake_costs_nothing_and_the_authorization_stays_good(
    buying: Buying, shop: Shop, sockets: SocketUpstream, connection: Connection
) -> None:
    buyer = await buying()
    header = buyer.payment(await asked(buyer, shop, "/deny/403"))
    assert (await refused(buyer, shop, header, "/deny/403")).status_code == 502
    await settled(connection)
    assert await buyer.balance() == 10 * PRICE
    assert (await refused(buyer, shop, header, "/deny/403")).status_code == 502


async def test_a_wallet_that_cannot_pay_opens_nothing_and_what_arrives_later_goes_back(
    buying: Buying, shop: Shop, sockets: SocketUpstream, chain: Chain, world: World, connection: Connection
) -> None:
    """The check before finds the money, the settlement before the 101 does not; then somebody executes it after all."""
    buyer = await buying(PRICE)
    required = await asked(buyer, shop)
    signed = buyer.sign(required["accepts"][0])
    async with chain.held_blocks():
        call = asyncio.create_task(refused(buyer, shop, buyer.payment(required, signed)))

        async def sent() -> bool:
            state = await connection.fetchval("SELECT state::text FROM chain.payment WHERE nonce = $1", signed.nonce)
            return state == "broadcast"

        await until(sent)
        await chain.give_away(buyer.wallet, PRICE)
        await chain.mine()
        answer = await call
    assert (answer.status_code, len(sockets.connections)) == (402, 1)
    assert not sockets.last.received
    assert decoded(answer.headers["payment-response"])["errorReason"] == "insufficient_funds"
    await chain.give(buyer.wallet.address, PRICE)
    await chain.transact(await chain.wallet(), chain.usdc, executed(signed))

    async def returned() -> bool:
        await chain.mine()
        row = await connection.fetchrow(
            "SELECT r.state::text FROM chain.repayment r JOIN chain.payment p ON p.id = r.payment_id WHERE p.nonce = $1",
            signed.nonce,
        )
        return row is not None and row["state"] == "confirmed"

    await until(returned)
    assert (await buyer.balance(), await world.earned(shop)) == (PRICE, 0)


async def test_a_payment_for_a_call_opens_no_connection(buying: Buying, shop: Shop, sockets: SocketUpstream) -> None:
    buyer = await buying()
    path = f"/publishers/{shop.slug}/echo"
    header = buyer.payment(await buyer.asked(path))
    async with opened(buyer, shop, header):
        pass
    answer = await buyer.client.get(path, headers=header)
    assert (answer.status_code, answer.json()["error"]) == (402, "invalid_exact_evm_nonce_already_used")


@pytest.mark.parametrize("point", ["while it lasts", *KILLED])
async def test_a_connection_that_dies_with_its_gateway_is_given_back(
    point: str, services: Services, database_url: str, chain: Chain, buying: Buying, shop: Shop, world: World,
    gateway: RunningGateway, connection: Connection,
) -> None:  # fmt: skip
    armed = {"FAULT": f"{point}:kill"} if point in KILLED else {}
    doomed = await start_gateway(services, database_url, **chained(chain, **armed))
    buyer = await buying(url=doomed.url)
    header = buyer.payment(await asked(buyer, shop))
    if armed:
        with pytest.raises((OSError, InvalidMessage)):
            await opened(buyer, shop, header)
        await asyncio.to_thread(doomed.process.wait, 20)
    else:
        socket = await opened(buyer, shop, header)
        assert await buyer.balance() == 9 * PRICE
        await doomed.kill()
        await socket.close()

    async def returned() -> bool:
        await chain.mine()
        return await buyer.balance() == 10 * PRICE

    await until(returned)
    again = await buying(url=gateway.url)
    if point == "forward.after":  # the authorization was never sent, so it stays good
        async with opened(again, shop, header):
            pass
        assert await world.earned(shop) == 9_000
        return
    answer = await refused(again, shop, header)
    detail = json.loads(answer.body)["detail"]
    assert (answer.status_code, detail.endswith("the money goes back: sign a new one")) == (402, True)
    assert await world.earned(shop) == 0
