"""Where an API key may be used from: a list of networks, held against the connection's address or, behind a proxy that
is trusted, against what that says.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gateway.database.pool import Connection
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.world import Agent, Shop, World

HERE, INSIDE, OUTSIDE = "127.0.0.1", "198.51.100.9", "203.0.113.5"


@pytest_asyncio.fixture(scope="module")
async def behind(services: Services, database_url: str) -> AsyncIterator[RunningGateway]:
    """A gateway behind a proxy on this machine, which says who its callers are."""
    running = await start_gateway(services, database_url, SERVER_TRUSTED_PROXIES=f"{HERE}/32")
    yield running
    await running.stop()


@pytest_asyncio.fixture
async def agent(world: World) -> Agent:
    return await world.agent(1_000_000)


@pytest_asyncio.fixture(scope="module")
async def shop(behind: RunningGateway, gateway: RunningGateway, world: World) -> Shop:
    return await world.publisher(websocket_enabled=True)


def bearer(key: str, *claimed: str) -> list[tuple[str, str]]:
    return [("Authorization", f"Bearer {key}"), *(("X-Forwarded-For", one) for one in claimed)]


async def make(gateway: RunningGateway, agent: Agent, networks: list[str] | None, **more: Any) -> dict[str, Any]:
    body = {"name": "job", "ip_allow_list": networks, **more}
    path = "/organizations/default/api-keys"
    answer = await gateway.client.post(path, headers=agent.headers, json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()["data"]


async def tried(gateway: RunningGateway, shop: Shop, key: str, *claimed: str) -> set[int]:
    """Use a key at every kind of door, and return what they answered."""
    headers = bearer(key, *claimed)
    get = gateway.client.get
    answers = [
        await get(f"/publishers/{shop.slug}/x", headers=headers),
        await get("/wallet/balance", headers=headers),
        await get("/organizations/default/api-keys", headers=headers),
    ]
    for answer in answers:
        if answer.status_code == 403:
            assert answer.json()["type"] == "/problems/address-not-allowed"
    return {answer.status_code for answer in answers}


async def test_a_key_works_from_its_networks_only(behind: RunningGateway, agent: Agent, shop: Shop) -> None:
    key = (await make(behind, agent, ["198.51.100.0/24", "2001:db8:7::/48"]))["api_key"]
    for address in (INSIDE, "2001:db8:7::1", "::ffff:198.51.100.9"):
        assert await tried(behind, shop, key, address) == {200}
    for address in (OUTSIDE, "2001:db8:8::1", "198.51.101.1"):
        assert await tried(behind, shop, key, address) == {403}
    assert await tried(behind, shop, agent.key, OUTSIDE) == {200}, "its maker has no list"


async def test_nothing_is_charged_or_sent_from_elsewhere(
    behind: RunningGateway, agent: Agent, shop: Shop, world: World, upstream: Any
) -> None:
    key = (await make(behind, agent, [INSIDE]))["api_key"]
    before = upstream.calls
    answer = await behind.client.get(f"/publishers/{shop.slug}/x", headers=bearer(key, OUTSIDE))
    assert (answer.status_code, OUTSIDE in answer.json()["detail"], INSIDE in answer.text) == (403, True, False)
    assert (await world.balance(agent), upstream.calls) == (1_000_000, before)


@pytest.mark.parametrize(
    "claimed",
    [
        (INSIDE, OUTSIDE),  # two fields: what the proxy added comes last
        (f"{INSIDE}, {OUTSIDE}",),
        (f"{INSIDE}, {OUTSIDE}, {HERE}",),
        (f"{INSIDE}, not-an-address",),
        (f"{INSIDE},",),
        (),
    ],
)
async def test_what_a_caller_claims_of_itself_is_not_believed(
    behind: RunningGateway, agent: Agent, shop: Shop, claimed: tuple[str, ...]
) -> None:
    """Nor anything that stands left of an address that is no proxy of ours."""
    key = (await make(behind, agent, [INSIDE]))["api_key"]
    assert await tried(behind, shop, key, *claimed) == {403}


async def test_without_trusted_proxies_the_connection_decides(
    gateway: RunningGateway, agent: Agent, shop: Shop
) -> None:
    far, near = (await make(gateway, agent, [INSIDE]))["api_key"], (await make(gateway, agent, [HERE]))["api_key"]
    assert await tried(gateway, shop, far, INSIDE) == {403}
    assert await tried(gateway, shop, near, OUTSIDE) == {200}
    for name in ("Forwarded", "X-Real-IP", "X-Client-IP", "CF-Connecting-IP", "True-Client-IP"):
        headers = {"Authorization": f"Bearer {far}", name: f"for={INSIDE}" if name == "Forwarded" else INSIDE}
        assert (await gateway.client.get("/wallet/balance", headers=headers)).status_code == 403


async def test_a_websocket_is_held_to_it(behind: RunningGateway, agent: Agent, shop: Shop) -> None:
    key = (await make(behind, agent, [INSIDE]))["api_key"]
    url = f"ws://127.0.0.1:{behind.port}/publishers/{shop.slug}/x"
    with pytest.raises(InvalidStatus) as refused:
        await connect(url, additional_headers=dict(bearer(key, OUTSIDE)))
    assert refused.value.response.status_code == 403


async def test_a_change_is_heard_of_by_every_gateway(
    gateway: RunningGateway, behind: RunningGateway, agent: Agent, shop: Shop
) -> None:
    made = await make(gateway, agent, None)
    path = f"/organizations/default/api-keys/{made['id']}"
    assert await tried(behind, shop, made["api_key"], OUTSIDE) == {200}
    for networks, wanted in (([INSIDE], {403}), ([f"{OUTSIDE}/31"], None), (["203.0.113.4/31"], {200}), (None, {200})):
        answer = await gateway.client.patch(path, headers=agent.headers, json={"ip_allow_list": networks})
        if wanted is None:
            assert (answer.status_code, "203.0.113.4/31" in answer.json()["detail"]) == (400, True)
            continue
        assert answer.json()["data"]["ip_allow_list"] == ([f"{INSIDE}/32"] if networks == [INSIDE] else networks)
        async with asyncio.timeout(30):
            while await tried(behind, shop, made["api_key"], OUTSIDE) != wanted:
                await asyncio.sleep(0.02)


async def test_a_key_makes_no_key_that_works_where_it_does_not(behind: RunningGateway, agent: Agent) -> None:
    narrow = (await make(behind, agent, ["198.51.100.0/25", "198.51.100.128/25"]))["api_key"]

    async def ask(method: str, path: str, body: dict[str, Any]) -> httpx.Response:
        return await behind.client.request(method, path, headers=bearer(narrow, INSIDE), json=body)

    keys = "/organizations/default/api-keys"
    inherited = await ask("POST", keys, {"name": "same"})
    assert inherited.json()["data"]["ip_allow_list"] == ["198.51.100.0/24"]
    assert (await ask("POST", keys, {"name": "less", "ip_allow_list": [INSIDE]})).status_code == 201
    for wider in (["198.51.100.0/23"], [INSIDE, OUTSIDE], ["::/0"]):
        assert (await ask("POST", keys, {"name": "more", "ip_allow_list": wider})).status_code == 403
    other = (await make(behind, agent, None))["id"]
    assert (await ask("PATCH", f"{keys}/{other}", {"ip_allow_list": ["0.0.0.0/0"]})).status_code == 403
    narrowed = await ask("PATCH", f"{keys}/{other}", {"ip_allow_list": None})
    assert narrowed.json()["data"]["ip_allow_list"] == ["198.51.100.0/24"], "anywhere, as far as it may itself"


async def test_a_project_is_held_to_its_list_the_same_way(
    gateway: RunningGateway, behind: RunningGateway, agent: Agent
) -> None:
    made = await gateway.client.post("/projects", headers=agent.headers, json={"name": "P", "region": "local"})
    path = f"/projects/{made.json()['data']['id']}"
    body = {"entries": [{"ip_address": f"{INSIDE}/32"}, {"ip_address": "2001:db8:7::/48"}]}
    params = {"allow_lockout": "true"}
    reset = await gateway.client.put(f"{path}/ip-allow/reset", headers=agent.headers, json=body, params=params)
    assert reset.status_code == 200, reset.text

    async def asked(door: RunningGateway, *claimed: str) -> int:
        return (await door.client.get(path, headers=bearer(agent.key, *claimed))).status_code

    for claimed in ([INSIDE], ["2001:db8:7::1"], [f"{OUTSIDE}, {INSIDE}"]):
        assert await asked(behind, *claimed) == 200
    for claimed in ([], [OUTSIDE], [f"{INSIDE}, {OUTSIDE}"], [INSIDE, OUTSIDE], ["2001:db8:8::1"]):
        assert await asked(behind, *claimed) == 403
    assert await asked(gateway, INSIDE) == 403, "nobody is believed there"


async def test_no_key_changes_its_own_list(behind: RunningGateway, agent: Agent) -> None:
    made = await make(behind, agent, [INSIDE])
    path = f"/organizations/default/api-keys/{made['id']}"
    for networks in (None, [INSIDE], [OUTSIDE]):
        answer = await behind.client.patch(
            path, headers=bearer(made["api_key"], INSIDE), json={"ip_allow_list": networks}
        )
        assert answer.status_code == 403
    mine = [key["id"] for key in await listed(behind, agent) if agent.key.startswith(key["key_prefix"])]
    answer = await behind.client.patch(
        f"/organizations/default/api-keys/{mine[0]}", headers=agent.headers, json={"ip_allow_list": [HERE]}
    )
    assert answer.status_code == 403


async def listed(gateway: RunningGateway, agent: Agent) -> list[dict[str, Any]]:
    return (await gateway.client.get("/organizations/default/api-keys", headers=agent.headers)).json()["data"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["10.0.0.1"], ["10.0.0.1/32"]),
        ([" 10.0.0.0/8 ", "10.1.0.0/16", "10.0.0.0/8"], ["10.0.0.0/8"]),
        (["10.0.0.0/9", "10.128.0.0/9"], ["10.0.0.0/8"]),
        (["2001:DB8::/32", "192.0.2.0/24"], ["192.0.2.0/24", "2001:db8::/32"]),
        (["::ffff:192.0.2.0/120"], ["192.0.2.0/24"]),
        (["0.0.0.0/0", "::/0"], ["0.0.0.0/0", "::/0"]),
    ],
)
async def test_networks_are_kept_in_one_form(
    gateway: RunningGateway, agent: Agent, given: list[str], kept: list[str]
) -> None:
    made = await make(gateway, agent, given)
    assert made["ip_allow_list"] == kept
    assert next(key for key in await listed(gateway, agent) if key["id"] == made["id"])["ip_allow_list"] == kept


@pytest.mark.parametrize(
    "given",
    [
        [], ["10.0.0.1/8"], ["10.0.0.0/33"], ["10.0.0"], ["0x0a000001"], ["010.0.0.1"], ["example.com"], [""], ["fe80::1%1"],
        ["10.0.0.0/255.0.0.0/8"], ["10.0.0.0-10.0.0.9"], [1], "10.0.0.1", ["10.0.0.1\u0660"], [f"10.0.{n}.0/24" for n in range(65)],
    ],
)  # fmt: skip
async def test_what_is_no_list_of_networks_is_refused(gateway: RunningGateway, agent: Agent, given: Any) -> None:
    before = len(await listed(gateway, agent))
    body = {"name": "job", "ip_allow_list": given}
    answer = await gateway.client.post("/organizations/default/api-keys", headers=agent.headers, json=body)
    assert (answer.status_code, answer.json()["errors"][0]["field"].split("[")[0].split(".")[0]) == (
        400,
        "ip_allow_list",
    )
    assert len(await listed(gateway, agent)) == before


async def test_changes_are_in_the_audit_log(gateway: RunningGateway, agent: Agent, connection: Connection) -> None:
    made = await make(gateway, agent, None)
    path = f"/organizations/default/api-keys/{made['id']}"
    answer = await gateway.client.patch(path, headers=agent.headers, json={"ip_allow_list": [HERE]})
    assert answer.status_code == 200
    assert (await gateway.client.patch(path, headers=agent.headers, json={})).status_code == 400
    changed = await connection.fetchval(
        "SELECT metadata -> 'changed' FROM audit.entry WHERE action = 'api_key.update' AND chain = $1",
        agent.organization_id,
    )
    assert changed == ["ip_allow_list"]
