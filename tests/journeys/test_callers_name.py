"""Publishers that are called in their callers' names: the caller's own token reaches their server, and nobody else's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import InvalidStatus

from gateway.database.pool import Connection
from tests.support.authorization_server import Provider
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.world import Agent, World

PRICE = 10_000
_numbers = iter(range(1, 1_000))


@pytest_asyncio.fixture(scope="module")
async def gateway(services: Services, database_url: str) -> AsyncIterator[RunningGateway]:
    """Two workers: what one of them knows the other has to hear."""
    running = await start_gateway(services, database_url, WORKERS="2")
    yield running
    await running.stop()


@pytest_asyncio.fixture
async def provider() -> AsyncIterator[Provider]:
    server = Provider()
    await server.start()
    yield server
    await server.stop()


@dataclass
class Stage:
    """A seller whose API takes a provider's tokens, and a buyer with funds."""

    gateway: RunningGateway
    world: World
    server: Provider
    seller: Agent
    buyer: Agent
    provider: dict[str, Any] = field(default_factory=dict[str, Any])
    shop: dict[str, Any] = field(default_factory=dict[str, Any])

    async def send(self, method: str, path: str, who: Agent | None, **options: Any) -> httpx.Response:
        # A connection of its own: either worker may take it.
        headers = {"Connection": "close", **(who.headers if who else {}), **options.pop("headers", {})}
        return await self.gateway.client.request(method, path, headers=headers, **options)

    async def define(self, **changes: Any) -> None:
        path = f"/organizations/{self.seller.organization_id}/oauth/providers"
        body = self.server.definition(f"notes-{next(_numbers)}", **changes)
        made = await self.send("POST", path, self.seller, json=body)
        assert made.status_code == 201, made.text
        self.provider = made.json()["data"]
        self.server.client.callbacks.add(f"{self.gateway.url}/oauth/providers/{self.provider['id']}/callback")

    async def sell(self, expect: int = 201, seller: Agent | None = None, **changes: Any) -> httpx.Response:
        body = {
            "name": "Notes", "slug": f"notes-shop-{next(_numbers)}", "publisher_category": "integration",
            "api_url": f"{self.server.url}/api", "wallet_address": "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
            "wallet_network_id": "eip155:84532", "price_per_call": "0.01", "requires_user_oauth": True,
            "oauth_provider_slug": self.provider["slug"], **changes,
        }  # fmt: skip
        seller = seller or self.seller
        body = {name: value for name, value in body.items() if value is not ...}
        made = await self.send("POST", f"/organizations/{seller.organization_id}/publishers", seller, json=body)
        assert made.status_code == expect, made.text
        if expect == 201:
            self.shop = made.json()["data"]
            await self.heard()
        return made

    async def heard(self) -> None:
        """Wait until every worker knows the publisher: it is there eight times in a row."""

        async def known() -> bool:
            answers = [await self.send("GET", f"/publishers/{self.shop['slug']}/x", None) for _ in range(8)]
            return all(answer.status_code != 404 for answer in answers)

        await until(known)

    async def connect(self, who: Agent) -> None:
        begun = await self.send("GET", f"/oauth/providers/{self.provider['id']}/authorize", who)
        assert begun.status_code == 302, begun.text
        back = urlsplit((await self.gateway.client.get(begun.headers["location"])).headers["location"])
        done = await self.send("GET", f"{back.path}?{back.query}", who)
        assert "status=connected" in done.headers["location"]

    async def call(self, who: Agent | None = None, method: str = "GET", **options: Any) -> httpx.Response:
        return await self.send(method, f"/publishers/{self.shop['slug']}/x", who or self.buyer, **options)

    async def token(self, who: Agent | None = None) -> str:
        """Call, and return the token that the publisher's server got."""
        answer = await self.call(who)
        assert answer.status_code == 200, answer.text
        (carried,) = answer.json()["carried"]
        return carried

    async def spoil(self, sql: str, *arguments: object) -> None:
        await self.world.connection.execute(sql, *arguments)

    async def ends_soon(self) -> None:
        """Let the stored token have a second left of an hour."""
        await self.spoil(
            "UPDATE oauth.connection SET expires_at = now() + interval '1 second', renewed_at = now() - interval '1 hour',"
            " tokens = tokens WHERE provider_id = $1::text::uuid", self.provider["id"],
        )  # fmt: skip


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    ends = time.monotonic() + 30
    while not await true():
        assert time.monotonic() < ends, "it did not come about in 30 s"
        await asyncio.sleep(0.05)


@pytest_asyncio.fixture
async def stage(gateway: RunningGateway, world: World, provider: Provider) -> Stage:
    made = Stage(gateway, world, provider, await world.agent(), await world.agent(funds=100 * PRICE))
    await made.define()
    await made.sell()
    return made


@pytest.mark.usefixtures("sound_books")
async def test_a_caller_without_a_connection_is_told_where_to_connect_before_money_moves(stage: Stage) -> None:
    answer = await stage.call()
    assert answer.status_code == 403
    problem = answer.json()
    url = f"{stage.gateway.url}/oauth/providers/{stage.provider['id']}/authorize"
    assert (problem["type"], problem["authorize_url"]) == ("/problems/connection-needed", url)
    assert problem["provider"] == stage.provider["slug"]
    assert answer.headers["x-cost"] == "0"
    assert await stage.world.balance(stage.buyer) == 100 * PRICE
    assert stage.server.calls == 0
    poor = await stage.world.agent()
    assert (await stage.call(poor)).status_code == 403, "also where there is nothing to pay with"


@pytest.mark.usefixtures("sound_books")
async def test_each_caller_is_called_for_by_their_own_token(stage: Stage) -> None:
    other = await stage.world.agent(funds=PRICE)
    await stage.connect(stage.buyer)
    await stage.connect(other)
    mine, theirs = [one.access for one in stage.server.given]
    assert (await stage.token(), await stage.token(other)) == (mine, theirs)
    assert await stage.token() == mine
    assert await stage.world.balance(stage.buyer) == 98 * PRICE
    seen = [one for one in stage.server.requests if one.target == "/api/x"][-1]
    assert stage.buyer.key not in seen.head.decode()


async def test_a_caller_cannot_bring_a_token_along(stage: Stage) -> None:
    await stage.connect(stage.buyer)
    answer = await stage.call(headers={"X-Authorization": "Bearer x", "Proxy-Authorization": "Bearer y"})
    assert answer.json()["carried"] == [stage.server.given[0].access]


@pytest.mark.usefixtures("sound_books")
async def test_a_websocket_carries_its_callers_token_and_nobody_opens_one_without(stage: Stage) -> None:
    carried: list[list[str]] = []

    async def serves(connection: ServerConnection) -> None:
        assert connection.request is not None
        carried.append(connection.request.headers.get_all("Authorization"))
        await connection.send("hello")
        await connection.wait_closed()

    async with serve(serves, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        await stage.sell(api_url=f"http://127.0.0.1:{port}", websocket_enabled=True)
        url = f"ws://127.0.0.1:{stage.gateway.port}/publishers/{stage.shop['slug']}/live"
        for who, status in ((stage.buyer, 403), (None, 401)):
            with pytest.raises(InvalidStatus) as refused:
                await connect(url, additional_headers=who.headers if who else {})
            assert refused.value.response.status_code == status
        assert carried == []
        await stage.connect(stage.buyer)
        async with connect(url, additional_headers=stage.buyer.headers) as live:
            assert await live.recv() == "hello"
        assert carried == [[f"Bearer {stage.server.given[0].access}"]]


async def test_nobody_calls_without_a_key(stage: Stage) -> None:
    answer = await stage.send("GET", f"/publishers/{stage.shop['slug']}/x", None)
    assert answer.status_code == 401
    assert stage.server.calls == 0


@pytest.mark.usefixtures("sound_books")
async def test_a_token_is_renewed_once_for_all_who_call_at_once(stage: Stage) -> None:
    await stage.connect(stage.buyer)
    await stage.ends_soon()
    stage.server.pause = 0.3
    tokens = await asyncio.gather(*(stage.token() for _ in range(24)))
    assert set(tokens) == {stage.server.given[1].access}
    grants = [form["grant_type"] for form in stage.server.asked("/token")]
    assert grants == ["authorization_code", "refresh_token"], "each refresh token works once"
    shown = (await stage.send("GET", "/oauth/connections", stage.buyer)).json()["connections"]
    assert [one["is_valid"] for one in shown] == [True]


async def test_a_worker_that_died_while_it_renewed_holds_nobody_up_for_good(stage: Stage) -> None:
    await stage.connect(stage.buyer)
    await stage.ends_soon()
    await stage.spoil(
        "UPDATE oauth.connection SET refreshing_until = now() + interval '1 second' WHERE provider_id = $1::text::uuid",
        stage.provider["id"],
    )
    assert await stage.token() == stage.server.given[1].access


@pytest.mark.usefixtures("sound_books")
async def test_a_refused_renewal_asks_to_connect_again(stage: Stage) -> None:
    await stage.connect(stage.buyer)
    await stage.ends_soon()
    stage.server.given[0].refreshable = False
    answer = await stage.call()
    assert (answer.status_code, answer.json()["type"]) == (403, "/problems/connection-needed")
    assert await stage.world.balance(stage.buyer) == 100 * PRICE
    shown = (await stage.send("GET", "/oauth/connections", stage.buyer)).json()["connections"]
    assert [one["is_valid"] for one in shown] == [False]
    await stage.connect(stage.buyer)
    assert await stage.token() == stage.server.given[-1].access


@pytest.mark.usefixtures("sound_books")
async def test_a_provider_in_trouble_is_no_reason_to_connect_again(stage: Stage) -> None:
    await stage.connect(stage.buyer)
    await stage.spoil(
        "UPDATE oauth.connection SET expires_at = now() - interval '1 second' WHERE provider_id = $1::text::uuid",
        stage.provider["id"],
    )
    stage.server.trouble = 503
    answer = await stage.call()
    assert (answer.status_code, answer.json()["type"]) == (502, "/problems/upstream-unreachable")
    assert await stage.world.balance(stage.buyer) == 100 * PRICE
    stage.server.trouble = 0

    async def again() -> bool:
        return (await stage.call()).status_code == 200

    await until(again)


async def test_a_token_that_the_publishers_server_takes_no_more_is_renewed_at_once(stage: Stage) -> None:
    await stage.connect(stage.buyer)
    await stage.spoil(
        "UPDATE oauth.connection SET renewed_at = now() - interval '2 minutes' WHERE provider_id = $1::text::uuid",
        stage.provider["id"],
    )
    stage.server.given[0].alive = False
    assert await stage.token() == stage.server.given[1].access


async def test_a_server_that_takes_no_token_at_all_has_none_renewed_over_and_over(stage: Stage) -> None:
    await stage.connect(stage.buyer)
    stage.server.given[0].alive = False
    assert [(await stage.call()).status_code for _ in range(3)] == [401] * 3, "the server's own answer"
    assert len(stage.server.asked("/token")) == 1


async def test_a_revoked_connection_is_gone_in_every_worker_at_once(stage: Stage) -> None:
    await stage.connect(stage.buyer)
    for _ in range(8):
        await stage.token()
    url = f"/oauth/connections/providers/{stage.provider['id']}"
    assert (await stage.send("DELETE", url, stage.buyer)).status_code == 200

    async def gone() -> bool:
        return all([(await stage.call()).status_code == 403 for _ in range(8)])

    await until(gone)
    calls = stage.server.calls
    assert (await stage.call()).status_code == 403
    assert stage.server.calls == calls


async def test_a_use_is_noted(stage: Stage) -> None:
    await stage.connect(stage.buyer)
    await stage.token()

    async def noted() -> bool:
        shown = (await stage.send("GET", "/oauth/connections", stage.buyer)).json()["connections"]
        return shown[0]["last_used_at"] is not None

    await until(noted)


@pytest.mark.usefixtures("sound_books")
async def test_a_provider_that_is_gone_or_off_ends_calls_before_money(stage: Stage) -> None:
    await stage.connect(stage.buyer)
    await stage.token()
    path = f"/organizations/{stage.seller.organization_id}/oauth/providers/{stage.provider['id']}"
    assert (await stage.send("PATCH", path, stage.seller, json={"is_active": False})).status_code == 200

    async def ended() -> bool:
        return all([(await stage.call()).status_code == 501 for _ in range(8)])

    await until(ended)
    paid = await stage.world.balance(stage.buyer)
    assert (await stage.send("DELETE", path, stage.seller)).status_code == 204
    answer = await stage.call()
    assert (answer.status_code, answer.json()["type"]) == (501, "/problems/kind-not-served")
    assert await stage.world.balance(stage.buyer) == paid


# --- Whose provider it is ---


async def test_another_organizations_provider_cannot_be_named(stage: Stage) -> None:
    other = await stage.world.agent()
    by_slug = await stage.sell(expect=400, seller=other)
    assert by_slug.json()["errors"][0]["field"] == "oauth_provider_slug"
    made = await stage.sell(seller=other, requires_user_oauth=..., oauth_provider_slug=..., expect=201)
    path = f"/organizations/{other.organization_id}/publishers/{made.json()['data']['id']}"
    for provider in (stage.provider["id"], "01890000-0000-7000-8000-000000000001"):
        body = {"requires_user_oauth": True, "oauth_provider_id": provider}
        refused = await stage.send("PUT", path, other, json=body)
        assert refused.status_code == 400
        assert refused.json()["errors"] == [
            {"field": "oauth_provider_id", "message": by_slug.json()["errors"][0]["message"]}
        ]


@pytest.mark.usefixtures("sound_books")
async def test_tokens_do_not_follow_a_provider_into_another_organizations_shop(stage: Stage) -> None:
    """Also where the database says so: the refusal at the form is not the only fence."""
    await stage.connect(stage.buyer)
    thief = await stage.world.publisher(
        PRICE, api_url=f"{stage.server.url}/stolen", requires_user_oauth=True, oauth_provider_id=stage.provider["id"]
    )

    async def served() -> bool:
        return (await stage.send("GET", f"/publishers/{thief.slug}/x", stage.buyer)).status_code != 404

    await until(served)
    answer = await stage.send("GET", f"/publishers/{thief.slug}/x", stage.buyer)
    assert (answer.status_code, answer.json()["type"]) == (501, "/problems/kind-not-served")
    assert not [one for one in stage.server.requests if one.target.startswith("/stolen")]


async def test_the_platforms_tokens_go_to_the_servers_that_an_operator_named(
    stage: Stage, connection: Connection
) -> None:
    await connection.execute(
        "UPDATE oauth.provider SET organization_id = NULL, hosts = '{api.example.com}' WHERE id = $1::text::uuid",
        stage.provider["id"],
    )
    other = await stage.world.agent()
    refused = await stage.sell(expect=400, seller=other)
    assert refused.json()["errors"][0]["field"] == "api_url"
    await stage.connect(stage.buyer)

    async def stopped() -> bool:
        return all([(await stage.call()).status_code == 501 for _ in range(8)])

    await until(stopped)
    await connection.execute(
        "UPDATE oauth.provider SET hosts = '{127.0.0.1}' WHERE id = $1::text::uuid", stage.provider["id"]
    )
    await stage.sell(seller=other)
    assert await stage.token() == stage.server.given[-1].access
    await connection.execute("DELETE FROM oauth.provider WHERE id = $1::text::uuid", stage.provider["id"])


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"oauth_provider_slug": ...}, "requires_user_oauth"),
        ({"requires_user_oauth": ...}, "oauth_provider_id"),
        ({"oauth_provider_slug": "nobody"}, "oauth_provider_slug"),
        ({"upstream_api_key": "k"}, "requires_user_oauth"),
        ({"upstream_api_key": "k", "api_key_header": "AUTHORIZATION"}, "requires_user_oauth"),
        ({"api_headers": {"authorization": "Basic x"}}, "requires_user_oauth"),
        ({"auth_type": "jwt", "jwt_secret_key": "s" * 40}, "requires_user_oauth"),
        ({"integration_type": "mcp", "mcp_endpoint": "https://mcp.example.com/x"}, "requires_user_oauth"),
    ],
)
async def test_what_cannot_go_together_is_refused_by_name(stage: Stage, changes: dict[str, Any], field: str) -> None:
    refused = await stage.sell(expect=400, **changes)
    assert refused.json()["errors"][0]["field"] == field


async def test_a_key_of_the_publishers_own_may_go_along_elsewhere(stage: Stage) -> None:
    await stage.sell(upstream_api_key="shop-key", api_key_header="X-Shop")
    await stage.connect(stage.buyer)
    assert await stage.token() == stage.server.given[0].access
    assert stage.server.requests[-1].all("x-shop") == ["shop-key"]


async def test_no_secret_is_in_what_the_gateway_said(stage: Stage) -> None:
    await stage.connect(stage.buyer)
    await stage.token()
    given, output = stage.server.given[0], stage.gateway.output()
    assert not [secret for secret in (given.access, given.refresh, "provider-secret-5f0c") if str(secret) in output]
