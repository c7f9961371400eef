"""Redirects of publishers' servers: a caller that follows them stays at the gateway, and pays for the answer alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, RedirectResponse

from tests.hostile.wire import ScriptedUpstream
from tests.support.gateway import RunningGateway, free_port
from tests.support.world import Agent, Shop, World

pytestmark = pytest.mark.usefixtures("sound_books")
FUNDS, PRICE = 1_000_000, 10_000


def shop_of_items() -> FastAPI:
    """A FastAPI application as its author writes it: it knows nothing of the gateway."""
    app = FastAPI()

    @app.get("/base/items/")
    async def items(request: Request) -> dict[str, Any]:
        return {"query": str(request.url.query)}

    @app.post("/base/items/")
    async def made(request: Request) -> JSONResponse:
        url = str(request.url_for("one", number=7))
        return JSONResponse(await request.json(), 201, {"Location": url, "Content-Location": url})

    @app.get("/base/items/{number}", name="one")
    async def one(number: int) -> dict[str, int]:
        return {"number": number}

    @app.get("/base/signed")
    async def signed() -> RedirectResponse:
        return RedirectResponse("https://downloads.example.com/file?signature=1", 302)

    return app


class _Quiet(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@pytest_asyncio.fixture(scope="module")
async def fastapi_url() -> AsyncIterator[str]:
    port = free_port()
    server = _Quiet(uvicorn.Config(shop_of_items(), port=port, log_level="critical"))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    await task


@pytest_asyncio.fixture(scope="module")
async def scripted() -> AsyncIterator[ScriptedUpstream]:
    server = ScriptedUpstream()
    await server.start()
    yield server
    await server.stop()


async def left(world: World, agent: Agent, amount: int) -> None:
    async with asyncio.timeout(60):
        while await world.balance(agent) != amount:
            await asyncio.sleep(0.02)


async def call(gateway: RunningGateway, shop: Shop, agent: Agent, path: str, **options: Any) -> httpx.Response:
    method, fields = options.pop("method", "GET"), options.pop("headers", {})
    url = f"/publishers/{shop.slug}{path}"
    return await gateway.client.request(method, url, headers={**agent.headers, **fields}, **options)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_fastapis_trailing_slash_redirect_is_followed_through_the_gateway(
    wired: RunningGateway, world: World, fastapi_url: str, method: str
) -> None:
    shop, agent = await world.publisher(api_url=f"{fastapi_url}/base"), await world.agent(FUNDS)
    body = {"json": {"a": 1}} if method == "POST" else {"params": {"x": "1"}}
    answer = await call(wired, shop, agent, "/items", method=method, follow_redirects=True, **body)
    (redirect,) = answer.history
    assert (redirect.status_code, redirect.headers["x-cost"]) == (307, "0")
    assert redirect.headers["location"].startswith(f"/publishers/{shop.slug}/items/")
    assert answer.headers["x-cost"] == "0.01"
    assert answer.json() == ({"a": 1} if method == "POST" else {"query": "x=1"})
    await left(world, agent, FUNDS - PRICE)
    if method == "POST":
        assert (answer.status_code, answer.headers["location"]) == (201, f"/publishers/{shop.slug}/items/7")
        assert answer.headers["content-location"] == answer.headers["location"]
        made = await wired.client.get(answer.headers["location"], headers=agent.headers)
        assert made.json() == {"number": 7}


@pytest.mark.parametrize("place", ["/base/items/?x=1", "http://{authority}/base/items/?x=1"])
async def test_djangos_trailing_slash_redirect_is_followed_through_the_gateway(
    wired: RunningGateway, world: World, scripted: ScriptedUpstream, place: str
) -> None:
    """Both forms: of its CommonMiddleware (APPEND_SLASH), and of build_absolute_uri."""
    place = place.format(authority=f"127.0.0.1:{scripted.port}")
    head = f"HTTP/1.1 301 Moved Permanently\r\nContent-Type: text/html; charset=utf-8\r\nLocation: {place}\r\n"
    scripted.answers |= {
        "items": f"{head}Content-Length: 0\r\nVary: origin\r\n\r\n".encode(),
        "": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nitems",
    }
    shop, agent = await world.publisher(api_url=f"{scripted.url}/base"), await world.agent(FUNDS)
    answer = await call(wired, shop, agent, "/items?x=1", follow_redirects=True)
    assert [redirect.headers["x-cost"] for redirect in answer.history] == ["0"]
    assert (answer.text, answer.headers["x-cost"]) == ("items", "0.01")
    assert scripted.targets[-1] == b"/base/items/?x=1"


async def test_a_publisher_whose_answer_is_the_redirect_charges_for_it(
    gateway: RunningGateway, world: World, fastapi_url: str
) -> None:
    told = {"api_url": f"{fastapi_url}/base", "charge_on_status": ["302"]}
    shop, agent = await world.publisher(**told), await world.agent(FUNDS)
    answer = await call(gateway, shop, agent, "/signed")
    assert (answer.status_code, answer.headers["x-cost"]) == (302, "0.01")
    assert answer.headers["location"] == "https://downloads.example.com/file?signature=1"
    assert (await call(gateway, shop, agent, "/items")).headers["x-cost"] == "0", "another status than it named"
    both = await world.publisher(**told, refund_on_status=["3xx"])
    assert (await call(gateway, both, agent, "/signed")).headers["x-cost"] == "0", "what it gives back goes first"
    await left(world, agent, FUNDS - PRICE)


@pytest.mark.parametrize(
    "priced",
    [
        {"billing_model": "pay_per_use", "upstream_cost_header": "X-Spent", "unresolved_fallback_charge": "0.02"},
        {"pricing_model": "per_byte", "price_per_mib": "1"},
    ],
)
async def test_nothing_is_captured_of_what_is_held_for_a_redirect(
    gateway: RunningGateway, world: World, fastapi_url: str, priced: dict[str, Any]
) -> None:
    priced = {**priced, "reserve_max_charge": "0.05", "api_url": f"{fastapi_url}/base"}
    shop, charging = (
        await world.publisher(None, **priced),
        await world.publisher(None, **priced, charge_on_status=["3xx"]),
    )
    agent = await world.agent(FUNDS)
    answer = await call(gateway, shop, agent, "/items")
    assert (answer.status_code, answer.headers["x-cost"]) == (307, "0")
    await left(world, agent, FUNDS)
    await call(gateway, charging, agent, "/items")
    if priced.get("unresolved_fallback_charge"):
        await left(world, agent, FUNDS - 20_000)
    assert await world.earned(shop) == 0


SHOWN: dict[str, list[str] | None] = {
    "Location: http://{authority}/base/v1/x?a=1": ["{here}/x?a=1"],
    "Location: /base/v1/x\r\nLocation: https://other.example/": ["{here}/x"],
    "Location: https://other.example/x": ["https://other.example/x"],
    "Location: http://{authority}/admin": [],
    "Location: http://169.254.169.254/": [],
    "Location: http://user:pw@{authority}/base/v1/x": ["{here}/x"],
    "Location: /\\other.example": [],
    "Location: ../../up": [],
    "Content-Location: up": ["{here}/up"],
    "Operation-Location: http://{authority}/base/v1/operations/1": ["{here}/operations/1"],
    "Refresh: 3; url=http://{authority}/base/v1/x": ["3; url={here}/x"],
    "Refresh: 3; url=http://{authority}/": [],
    "Link: <http://{authority}/base/v1/x>; rel=next, <http://{authority}/>; rel=up\r\nLink: <?page=2>; rel=last": [
        "<{here}/x>; rel=next",
        "<?page=2>; rel=last",
    ],
    "Link: <http://{authority}/base/v1/x": [],
}


@pytest.mark.parametrize("field", SHOWN)
async def test_urls_in_fields_lead_to_the_gateway_or_are_not_shown(
    wired: RunningGateway, world: World, scripted: ScriptedUpstream, field: str
) -> None:
    authority = f"127.0.0.1:{scripted.port}"
    lines = field.format(authority=authority)
    scripted.answers["told"] = f"HTTP/1.1 200 OK\r\n{lines}\r\nContent-Length: 2\r\n\r\nok".encode()
    shop = await world.publisher(api_url=f"{scripted.url}/base/v1")
    answer = await call(wired, shop, await world.agent(FUNDS), "/told")
    found = answer.headers.get_list(field.partition(":")[0])
    here = f"/publishers/{shop.slug}"
    # Servers below us may join fields of one name.
    assert ", ".join(found) == ", ".join(value.format(here=here) for value in SHOWN[field] or [])
    assert authority not in str(answer.headers)


async def test_an_answer_that_is_kept_for_its_key_leads_to_the_gateway_as_well(
    gateway: RunningGateway, world: World, scripted: ScriptedUpstream
) -> None:
    place = f"http://127.0.0.1:{scripted.port}/base/orders/7"
    scripted.answers["orders"] = f"HTTP/1.1 201 Created\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n".encode()
    shop, agent = await world.publisher(api_url=f"{scripted.url}/base"), await world.agent(FUNDS)
    for _ in range(2):
        made = await call(gateway, shop, agent, "/orders", method="POST", headers={"Idempotency-Key": "one"})
        assert made.headers["location"] == f"/publishers/{shop.slug}/orders/7"
    assert made.headers["idempotency-replayed"] == "true"
    assert await world.balance(agent) == FUNDS - PRICE
