"""Who sells for money sells nothing for free by accident: what has no price is refused, unless its owner said "0"."""

import pytest

from tests.support.gateway import RunningGateway
from tests.support.upstream import RecordingUpstream
from tests.support.world import Agent, Shop, World

NOT_PRICED, METHOD = (404, "/problems/not-priced"), (405, "/problems/method-not-allowed")


@pytest.fixture(autouse=True)
def forgetful(upstream: RecordingUpstream) -> None:
    """Begin with nothing called."""
    upstream.forget()


async def asked(gateway: RunningGateway, agent: Agent, shop: Shop, method: str, path: str) -> tuple[int, str]:
    answer = await gateway.client.request(method, f"/publishers/{shop.slug}{path}", headers=agent.headers)
    problem = answer.headers.get("content-type") == "application/problem+json"
    return answer.status_code, answer.json()["type"] if problem else answer.headers["x-cost"]


async def test_paths_without_a_price_are_refused_where_an_endpoint_has_one(
    gateway: RunningGateway, world: World, upstream: RecordingUpstream
) -> None:
    agent = await world.agent(1_000_000)
    endpoints = [
        {"method": "GET", "path": "/sold", "price": "0.01"},
        {"method": "GET", "path": "/gift", "price": "0"},
        {"method": "GET", "path": "/forgotten"},
    ]
    shop = await world.publisher(None, endpoints=endpoints)
    for method in ("GET", "POST", "PUT", "DELETE", "PROPFIND"):
        assert await asked(gateway, agent, shop, method, "/other") == NOT_PRICED, method
    for path in ("/forgotten", "/forgotten/", "/Sold", "//sold", "/sold%2Fmore", "/gift;x=1"):
        assert await asked(gateway, agent, shop, "GET", path) == NOT_PRICED, path
    for method in ("POST", "PATCH", "PROPFIND"):
        assert await asked(gateway, agent, shop, method, "/sold") == METHOD
    refused = await gateway.client.post(f"/publishers/{shop.slug}/sold", headers=agent.headers)
    assert refused.headers["allow"] == "GET, HEAD"
    assert (upstream.calls, await world.balance(agent)) == (0, 1_000_000)
    assert await asked(gateway, agent, shop, "GET", "/gift") == (200, "0")
    assert await asked(gateway, agent, shop, "GET", "/sold") == (200, "0.01")
    assert await asked(gateway, agent, shop, "HEAD", "/sold") == (200, "0.01")
    assert await world.balance(agent) == 980_000
    store = (await gateway.client.get(f"/publishers/{shop.slug}")).json()["data"]
    assert [one["path"] for one in store["endpoints"]] == ["/sold", "/gift"]
    document = (await gateway.client.get(f"/publishers/{shop.slug}/openapi.json")).json()
    assert [*document["paths"]] == ["/sold", "/gift"]
    lines = (await gateway.client.get("/llms.txt")).text
    assert f"/publishers/{shop.slug}): API, free to 0.01 USDC per call" in lines


async def test_a_price_that_calls_do_not_have_is_no_reason_to_give_them_away(
    gateway: RunningGateway, world: World, upstream: RecordingUpstream
) -> None:
    """A price of tools and of rows, at an HTTP API: a slip of its owner's."""
    agent = await world.agent(1_000_000)
    for prices in ({"price_per_execution": 500_000}, {"base_price_per_1000_rows": 500_000}):
        shop = await world.publisher(None, **prices)
        assert await asked(gateway, agent, shop, "GET", "/x") == NOT_PRICED
    assert upstream.calls == 0


async def test_whoever_states_no_price_at_all_gives_everything(gateway: RunningGateway, world: World) -> None:
    agent = await world.agent(0)
    shop = await world.publisher(None, endpoints=[{"method": "GET", "path": "/x"}])
    for method, path in (("GET", "/x"), ("POST", "/x"), ("GET", "/other")):
        assert await asked(gateway, agent, shop, method, path) == (200, "0")


async def test_an_estimate_is_the_dearest_where_endpoints_alone_have_prices(
    gateway: RunningGateway, world: World
) -> None:
    endpoints = [{"method": "GET", "path": f"/{price}", "price": price} for price in ("0.01", "0.03")]
    shop = await world.publisher(None, endpoints=endpoints)
    answer = await gateway.client.post(
        f"/publishers/{shop.slug}/estimate", json={"publisher_id": str(shop.id), "query": "x"}
    )
    assert answer.json()["estimated_cost_atomic"] == 30_000


@pytest.mark.parametrize(
    "path", ["/v1/items/7%2Fadmin%2Fdelete", "/v1/items/7%5Cadmin", "/v1/items/7\\admin", "/v1/items/7%252Fadmin"]
)
async def test_default_deny_lets_pass_what_every_server_reads_as_documented(
    gateway: RunningGateway, world: World, upstream: RecordingUpstream, path: str
) -> None:
    agent = await world.agent(1_000_000)
    shop = await world.publisher(
        10_000,
        endpoints=[{"method": "GET", "path": "/v1/items/{id}"}],
        undocumented_endpoint_policy="default_deny",
    )
    assert await asked(gateway, agent, shop, "GET", path) == (404, "/problems/endpoint-not-offered")
    assert (upstream.calls, await world.balance(agent)) == (0, 1_000_000)
    assert await asked(gateway, agent, shop, "GET", "/v1/items/AB%207/") == (200, "0.01")
