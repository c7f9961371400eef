"""A connection that did not come about is tried again, as often as was chosen; what may have had an effect is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from gateway.upstreams import again as module
from gateway.upstreams.egress import EgressGuard
from gateway.upstreams.http import Origin, UpstreamClient
from gateway.upstreams.http.errors import AddressRefused, ConnectError, Disconnected
from gateway.upstreams.postgres.errors import DatabaseUnreachable
from gateway.upstreams.postgres.pool import DatabasePool
from tests.support.market import Market
from tests.upstreams.wire import HOST, LOOPBACK, OK, PATIENT, always, everything, line


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE", 0)


class Away:
    """A name server that does not know the name before it was asked `times` times."""

    def __init__(self, times: int) -> None:
        self.left, self.asked = times, 0

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked += 1
        self.left -= 1
        if self.left >= 0:
            raise OSError("no such name")
        return ["127.0.0.1"]


async def test_a_request_waits_for_its_connection_as_often_as_its_publisher_chose() -> None:
    async with line(always(OK)) as up:
        names = Away(2)
        client = UpstreamClient(EgressGuard(LOOPBACK, resolver=names, ttl=0), max_connections=1, max_idle=1)
        origin = Origin("http", "api.seller.test", up.origin.port)
        with pytest.raises(ConnectError):
            await client.send(origin, b"GET", b"/", HOST, None, replace(PATIENT, retries=1))
        assert (names.asked, up.server.connections) == (2, 0)
        names.left = 2
        answer = await client.send(origin, b"GET", b"/", HOST, None, replace(PATIENT, retries=2))
        assert (await everything(answer), names.asked) == (b"ok", 5)
        await client.aclose()


async def test_a_request_that_may_have_been_read_is_not_sent_again() -> None:
    async def hang_up(peer) -> None:
        await peer.request()

    async with line(hang_up) as up:
        with pytest.raises(Disconnected):
            await up.client.send(up.origin, b"GET", b"/", HOST, None, replace(PATIENT, retries=3))
        assert up.server.connections == 1


async def test_a_forbidden_address_is_not_tried_again() -> None:
    names = Away(0)
    client = UpstreamClient(EgressGuard(resolver=names, ttl=0), max_connections=1, max_idle=1)
    with pytest.raises(AddressRefused):
        await client.send(Origin("http", "api.seller.test", 80), b"GET", b"/", HOST, None, replace(PATIENT, retries=3))
    assert names.asked == 1
    await client.aclose()


async def test_a_database_is_tried_again_as_well(publishers_database: Market) -> None:
    names = Away(2)
    address = replace(publishers_database.address, host="db.seller.test")
    pool = DatabasePool(address, EgressGuard(LOOPBACK, resolver=names, ttl=0), size=1, retries=1)
    with pytest.raises(DatabaseUnreachable, match="cannot be resolved"):
        async with pool.lease():
            pass
    async with pool.lease() as session:
        assert await session.fetchval("SELECT 1") == 1
    pool.close()
    assert names.asked == 3
