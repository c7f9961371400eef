"""The store: lists, suggestions, estimates, logos."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from gateway.catalog.assets import asset_id
from gateway.ids import uuid7
from tests.admin_api.conftest import PUBLIC_URL, Api, Clerk, Member

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(20)
JPEG = b"\xff\xd8\xff\xe0" + bytes(20)
WEBP = b"RIFF\x00\x00\x00\x00WEBPVP8 " + bytes(20)
SVG = (
    b'<svg xmlns="http://www.w3.org/2000/svg"><defs><path id="a" d="M0 0"/></defs><use href="#a" fill="url(#g)"/></svg>'
)
SHOPS = (
    ("weather-now", "Weather Now", ["weather forecast", "temperature"], "Forecasts for any city in the world."),
    ("pdf-tools", "PDF Tools", ["pdf extraction", "ocr"], "Reads text and tables out of PDF documents."),
    ("web-scraper", "Web Scraper", ["scrape website", "html"], "Fetches pages and returns their text."),
    (
        "crypto-prices",
        "Coin Prices",
        ["cryptocurrency", "market data"],
        "Prices of coins, with a forecast of tomorrow.",
    ),
    ("translate", "Translator", ["translation", "languages"], "Translates documents between ninety languages."),
)


@pytest_asyncio.fixture(scope="module")
async def owner(clerk: Clerk) -> AsyncIterator[Member]:
    member = await clerk.agent()
    for slug, name, capabilities, description in SHOPS:
        await clerk.publisher(member, slug=slug, name=name, capabilities=capabilities, description=description)
    yield member


@pytest.mark.parametrize(
    ("task", "best"),
    [
        ("What will the weather be in Berlin tomorrow?", "weather-now"),
        ("I have to pull the tables out of a PDF", "pdf-tools"),
        ("scraping websites for their text", "web-scraper"),
        ("crypto", "crypto-prices"),
        ("please translate this letter into French", "translate"),
        ("wether forcast", "weather-now"),
        ("WEATHER'); DROP TABLE x; --", "weather-now"),
    ],
)
@pytest.mark.usefixtures("owner")
async def test_a_task_in_plain_words_finds_its_publisher(api: Api, task: str, best: str) -> None:
    data = (await api.call("GET", "/publishers/suggest", params={"query": task}, expect=200)).json()["data"]
    assert data["agents"] == []
    assert data["publishers"][0]["slug"] == best
    scores = [one["score"] for one in data["publishers"]]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score <= 1 for score in scores)
    assert data["publishers"][0]["match_reason"].startswith("Matches ")


@pytest.mark.usefixtures("owner")
async def test_suggestions_are_bounded_and_may_be_none(api: Api) -> None:
    async def suggest(**params: str) -> list[str]:
        answer = await api.call("GET", "/publishers/suggest", params=params, expect=200)
        return [one["slug"] for one in answer.json()["data"]["publishers"]]

    assert len(await suggest(query="documents forecast prices pages", limit="2")) == 2
    for nothing in ("the of and", "?!", "xylophone quark", "&|!():*'\\"):
        assert await suggest(query=nothing) == []
    assert await suggest(query="weather", type="agent") == []
    assert await suggest(query="weather " * 100) == ["weather-now"]


@pytest.mark.parametrize(
    "query",
    ["", "query=", f"query={'x' * 1001}", "query=a&limit=0", "query=a&limit=21", "query=a&type=all", "query=%00a"],
)
async def test_bad_suggest_queries_are_400(api: Api, query: str) -> None:
    await api.call("GET", f"/publishers/suggest?{query}", expect=400)


async def test_the_store_filters_and_pages(api: Api, clerk: Clerk, owner: Member) -> None:
    hidden = await clerk.publisher(owner, name="Weather Hidden")
    path = f"/organizations/{owner.organization_id}/publishers/{hidden['id']}"
    await api.call("PUT", path, owner.key, json={"is_active": False}, expect=200)

    async def slugs(query: str) -> list[str]:
        answer = await api.call("GET", f"/publishers?{query}", expect=200)
        return [one["slug"] for one in answer.json()["data"]]

    assert await slugs("search=WEATHER") == ["weather-now"]
    assert await slugs("search=-") == ["crypto-prices", "web-scraper", "pdf-tools", "weather-now"]
    assert await slugs("search=%25") == []
    assert await slugs("category=database") == []
    assert await slugs("is_verified=true") == []
    first = (await api.call("GET", "/publishers?limit=2")).json()
    assert first["pagination"] == {"count": 2, "total": 5, "limit": 2, "offset": 0, "has_more": True}
    assert [one["slug"] for one in first["data"]] == ["translate", "crypto-prices"]
    last = (await api.call("GET", "/publishers?limit=2&offset=4")).json()
    assert last["pagination"] == {"count": 1, "total": 5, "limit": 2, "offset": 4, "has_more": False}


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "offset=-1", "category=shop", "is_verified=maybe", "search=%00"]
)
async def test_bad_store_queries_are_400(api: Api, query: str) -> None:
    problem = (await api.call("GET", f"/publishers?{query}", expect=400)).json()
    assert problem["errors"][0]["field"] == query.partition("=")[0]


@pytest.mark.parametrize("slug", ["nobody", "Weather-Now", "%00", "%F0%9F%8C%A6", "x" * 500])
async def test_an_unknown_slug_is_404(api: Api, slug: str) -> None:
    problem = (await api.call("GET", f"/publishers/{slug}", expect=404)).json()
    assert problem["type"] in ("/problems/unknown-publisher", "/problems/not-found")


async def test_an_estimate_is_the_call_price_with_one_row(api: Api, clerk: Clerk, owner: Member) -> None:
    made = await clerk.publisher(owner, price_per_call="0.05", price_per_post="0.07")
    path, body = f"/publishers/{made['slug']}/estimate", {"publisher_id": made["id"], "query": "anything"}
    assert (await api.call("POST", path, json=body, expect=200)).json() == {
        "publisher_slug": made["slug"],
        "publisher_name": made["name"],
        "asset_symbol": "USDC",
        "estimated_rows": 1,
        "estimated_cost": "0.07",
        "estimated_cost_atomic": 70_000,
    }
    reader = await clerk.publisher(owner, price_per_call=None, price_per_get="0.02", price_per_delete="0.03")
    asked = {**body, "publisher_id": reader["id"]}
    told = await api.call("POST", f"/publishers/{reader['slug']}/estimate", json=asked, expect=200)
    assert told.json()["estimated_cost"] == "0.03", "no POST is sold there"
    for wrong, field in (
        ({**body, "publisher_id": str(uuid7())}, "publisher_id"),
        ({**body, "asset_id": str(asset_id("eip155:84532", "ETH"))}, "asset_id"),
        ({"publisher_id": made["id"]}, "query"),
    ):
        assert (await api.call("POST", path, json=wrong, expect=400)).json()["errors"][0]["field"] == field
    await api.call("POST", "/publishers/nobody/estimate", json=body, expect=404)


@pytest.mark.parametrize(
    ("body", "kind"), [(PNG, "image/png"), (JPEG, "image/jpeg"), (WEBP, "image/webp"), (SVG, "image/svg+xml")]
)
async def test_a_logo_is_stored_and_served_sandboxed(
    api: Api, clerk: Clerk, owner: Member, body: bytes, kind: str
) -> None:
    made = await clerk.publisher(owner)
    path = f"/organizations/{owner.organization_id}/publishers/{made['id']}"
    upload = {"logo": base64.b64encode(body).decode(), "content_type": kind}
    data = (await api.call("POST", f"{path}/logo", owner.key, json=upload, expect=200)).json()["data"]
    assert data["logo_url"] == f"{PUBLIC_URL}/publishers/{made['slug']}/logo"
    assert (await api.call("GET", path, owner.key)).json()["data"]["logo_url"] == data["logo_url"]
    served = await api.call("GET", f"/publishers/{made['slug']}/logo", expect=200)
    assert (served.content, served.headers["content-type"]) == (body, kind)
    assert served.headers["content-security-policy"] == "default-src 'none'; style-src 'unsafe-inline'; sandbox"
    assert served.headers["x-content-type-options"] == "nosniff"
    assert "max-age" in served.headers["cache-control"]
    again = {"If-None-Match": f'"other", W/{served.headers["etag"]}'}
    assert (await api.call("GET", f"/publishers/{made['slug']}/logo", headers=again, expect=304)).content == b""


async def test_a_linked_logo_redirects_and_none_is_404(api: Api, clerk: Clerk, owner: Member) -> None:
    plain = await clerk.publisher(owner)
    await api.call("GET", f"/publishers/{plain['slug']}/logo", expect=404)
    linked = await clerk.publisher(owner, logo_url="https://cdn.example.com/logo.png")
    answer = await api.call("GET", f"/publishers/{linked['slug']}/logo", expect=302)
    assert answer.headers["location"] == "https://cdn.example.com/logo.png"


def svg(inner: str, attributes: str = "") -> bytes:
    return f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"{attributes}>{inner}</svg>'.encode()


BAD_SVG = [
    svg("<script>alert(1)</script>"),
    svg("<foreignObject/>"),
    svg("<iframe/>"),
    svg('<animate attributeName="href" to="javascript:alert(1)"/>'),
    svg("", ' onload="alert(1)"'),
    svg('<image href="https://evil.example/x.png"/>'),
    svg('<use xlink:href="https://evil.example/x.svg#a"/>'),
    svg('<a href="javascript:alert(1)"/>'),
    svg('<rect fill="url(https://evil.example/x)"/>'),
    svg('<rect style="background:url( //evil.example/x )"/>'),
    svg("<style>@import 'https://evil.example/x.css';</style>"),
    svg("<style>rect{fill:u\\72l(//evil.example)}</style>"),
    b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY a "b">]><svg>&a;</svg>',
    b'<?xml-stylesheet href="https://evil.example/x.css"?><svg/>',
    b"<html><svg></svg></html>",
    b"<svg><g></svg>",
]


@pytest.mark.parametrize("body", BAD_SVG, ids=range(len(BAD_SVG)))
async def test_an_active_svg_is_refused(api: Api, clerk: Clerk, owner: Member, body: bytes) -> None:
    made = await clerk.publisher(owner)
    path = f"/organizations/{owner.organization_id}/publishers/{made['id']}/logo"
    upload = {"logo": base64.b64encode(body).decode(), "content_type": "image/svg+xml"}
    problem = (await api.call("POST", path, owner.key, json=upload, expect=400)).json()
    assert problem["errors"][0]["field"] == "logo"


@pytest.mark.parametrize(
    ("logo", "kind", "status"),
    [
        (base64.b64encode(PNG).decode(), "image/gif", 400),
        (base64.b64encode(PNG).decode(), "image/jpeg", 400),
        (base64.b64encode(b"<html>").decode(), "image/png", 400),
        ("data:image/png;base64," + base64.b64encode(PNG).decode(), "image/png", 400),
        ("not base64!", "image/png", 400),
        ("", "image/png", 400),
        (base64.b64encode(PNG + bytes(1_048_576)).decode(), "image/png", 400),
        ("A" * 2_100_000, "image/png", 413),
    ],
    ids=range(8),
)
async def test_what_is_no_logo_is_refused(
    api: Api, clerk: Clerk, owner: Member, logo: str, kind: str, status: int
) -> None:
    made = await clerk.publisher(owner)
    path = f"/organizations/{owner.organization_id}/publishers/{made['id']}/logo"
    await api.call("POST", path, owner.key, json={"logo": logo, "content_type": kind}, expect=status)
