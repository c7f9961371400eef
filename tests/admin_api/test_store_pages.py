"""The store for people: well-formed, accessible, cached, and safe whatever publishers have written."""

from __future__ import annotations

import itertools
import re
from typing import Any
from xml.etree.ElementTree import Element

import html5lib
import pytest

from admin_api.store.clean import clean, line
from tests.admin_api.conftest import Api, Clerk

HOSTILE = [
    "<script>document.title='pwned'</script>",
    '"><img src=x onerror="document.title=\'pwned\'">',
    "'><svg/onload=alert(1)>",
    "</title></style></pre></textarea><iframe srcdoc=x>",
    "{{ 7 * 7 }}{% for x in y %}",
    "javascript:alert(1)",
    "&lt;b&gt; &#60;i&#62; <!-- --> ]]>",
    "<a href=//evil.example>free</a><base href=//evil.example>",
]
EVIL = " ".join(HOSTILE)


def parsed(text: str) -> Element:
    """Return a page as an HTML5 parser reads it; a fault in it fails the test."""
    return html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(text)


def elements(page: Element, name: str) -> list[Element]:
    return list(page.iter(name))


async def get(api: Api, path: str, **options: Any) -> Any:
    return await api.call("GET", path, **{"expect": 200, **options})


def assert_safe_and_accessible(page: Element) -> None:
    for name in ("script", "iframe", "object", "embed", "base", "link", "svg"):
        assert elements(page, name) == [], name
    for element in page.iter():
        for name, value in element.attrib.items():
            assert not str(name).startswith("on"), name
            if name in ("href", "src", "action"):
                assert re.match(r"/(?!/)|#", value), value
    (html,) = [page] if page.tag == "html" else elements(page, "html")
    assert html.attrib["lang"] == "en"
    for landmark in ("header", "main", "footer", "h1", "title"):
        assert len(elements(page, landmark)) == 1, landmark
    assert all(nav.attrib["aria-label"] for nav in elements(page, "nav"))
    assert all("alt" in image.attrib for image in elements(page, "img"))
    ids = [element.attrib["id"] for element in page.iter() if "id" in element.attrib]
    assert len(ids) == len(set(ids))
    named = {label.attrib["for"] for label in elements(page, "label")}
    for field in (*elements(page, "input"), *elements(page, "select")):
        assert field.attrib["id"] in named
    for element in page.iter():
        assert element.attrib.get("aria-labelledby", ids[0]) in ids
    assert [one for one in elements(page, "th") if one.attrib.get("scope") not in ("col", "row")] == []
    levels = [int(str(element.tag)[1]) for element in page.iter() if re.fullmatch("h[1-6]", str(element.tag))]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def words(page: Element) -> str:
    return " ".join("".join(page.itertext()).split())


async def test_the_store_lists_searches_and_pages(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    first = await clerk.publisher(owner, name="Zebra & Sons", description="Stripes.")
    for _ in range(25):
        await clerk.publisher(owner)
    page = parsed((await get(api, "/store")).text)
    assert_safe_and_accessible(page)
    assert "Zebra" not in words(page)
    (after,) = [one.attrib["href"] for one in elements(page, "a") if one.attrib.get("rel") == "next"]
    older = parsed((await get(api, after)).text)
    assert "Zebra & Sons" in words(older)
    found = parsed((await get(api, "/store?search=zebra+%26")).text)
    assert_safe_and_accessible(found)
    assert [one.attrib["href"] for one in elements(found, "a") if one.attrib["href"].startswith("/store/")] == [
        f"/store/{first['slug']}"
    ]
    assert "0.05 USDC per call" in words(found)
    assert "1 publisher." in words(found)
    nothing = parsed((await get(api, "/store?category=compute")).text)
    assert "Nothing was found" in words(nothing)
    assert_safe_and_accessible(nothing)


@pytest.mark.parametrize(
    "query",
    ["search=" + "a" * 3_000, "offset=x", "offset=-1", "offset=" + "9" * 40, "category=" + "x" * 99, "search=%00%ff%ED%A0%80",
     "search=a&search=b", "offset=%D9%A1", "search=%25_%5C"],
)  # fmt: skip
async def test_an_address_that_was_mistyped_is_a_page_of_the_store(api: Api, clerk: Clerk, query: str) -> None:
    await clerk.publisher(await clerk.agent())
    assert_safe_and_accessible(parsed((await get(api, f"/store?{query}")).text))


async def test_a_publishers_page_says_prices_endpoints_and_how_to_call(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    endpoints = [
        {"method": "GET", "path": "/v1/it's/{id}", "description": "One", "query_params": [{"name": "unit"}]},
        {"method": "POST", "path": "/v1/items", "price": "0.2"},
        {"method": "GET", "path": "/free", "price": "0"},
        {"method": "GET", "path": "/admin", "is_protected": True},
    ]
    made = await clerk.publisher(owner, endpoints=endpoints, undocumented_endpoint_policy="default_deny")
    page = parsed((await get(api, f"/store/{made['slug']}")).text)
    assert_safe_and_accessible(page)
    text = words(page)
    assert "GET /v1/it's/{id}" in text
    for price in ("0.05 USDC per call", "0.2 USDC per call", "free, or from 0.05 USDC per call"):
        assert price in text
    assert "/admin" not in text
    assert "Other paths are not for sale." in text
    # Pasted into a shell the apostrophe in the path must not open anything.
    assert f"""'http://tollway.test/publishers/{made["slug"]}/v1/it'"'"'s/{{id}}'""" in text


@pytest.mark.parametrize(
    ("reserve", "said"),
    [
        ({}, "at its own server's prices"),
        ({"reserve_max_charge": "0.7"}, "at its own server's prices, at most 0.7 USDC"),
    ],
)
async def test_what_its_own_server_sells_is_never_shown_at_a_price_of_ours(
    api: Api, clerk: Clerk, reserve: dict[str, Any], said: str
) -> None:
    made = await clerk.publisher(
        await clerk.agent(), billing_model="x402_passthrough", price_per_call="0.11", price_per_post="0.12",
        endpoints=[{"method": "GET", "path": "/v1/report", "price": "0.13"}, {"method": "GET", "path": "/v1/free", "price": "0"}],
        **reserve,
    )  # fmt: skip
    text = words(parsed((await get(api, f"/store/{made['slug']}")).text))
    listed = words(parsed((await get(api, f"/store?search={made['slug']}")).text))
    assert said in text
    assert said in listed
    assert not re.search(r"0\.1[123]|\bfree\b", text + listed)
    document = (await get(api, f"/publishers/{made['slug']}/openapi.json")).json()
    for item in document["paths"].values():
        assert item["get"]["x-payment-info"]["price"]["mode"] == "dynamic"


async def test_a_name_that_nobody_can_see_is_refused(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    made = await clerk.publisher(owner)
    path = f"/organizations/{owner.organization_id}/publishers/{made['id']}"
    for name in ("\u200b\u200d", "\u3164"):
        answer = await api.call("PUT", path, owner.key, json={"name": name}, expect=400)
        assert answer.json()["errors"] == [{"field": "name", "message": "must have a character that can be seen"}]


async def test_an_mcp_servers_page_says_what_its_tools_cost_and_where_clients_connect(api: Api, clerk: Clerk) -> None:
    made = await clerk.publisher(
        await clerk.agent(), api_url=..., integration_type="mcp", mcp_endpoint="https://mcp.example.com/mcp",
        price_per_call="9", price_per_get="8", price_per_execution="0.02",
        endpoints=[
            {"method": "POST", "path": "/forecast", "price": "0.05", "description": "The weather"},
            {"method": "GET", "path": "/not-a-tool"},
            {"method": "POST", "path": "/reset", "is_protected": True, "protection_reason": "No."},
        ],
    )  # fmt: skip
    slug = made["slug"]
    page = (await get(api, f"/store/{slug}")).text
    assert_safe_and_accessible(parsed(page))
    assert "MCP server, sold tool by tool" in page
    assert f"/publishers/{slug}/mcp</code>" in page
    assert f'href="/publishers/{slug}/_tools"' in page
    assert "from 0.02 USDC per call" in page
    assert "POST /forecast" in page
    assert "Other tools can be called too: POST 0.02 USDC per call." in page
    assert not re.search("not-a-tool|/reset|mcp\\.example\\.com|9 USDC|8 USDC", page)
    shown = (await get(api, f"/publishers/{slug}")).json()["data"]
    assert (shown["integration_type"], shown.get("mcp_endpoint")) == ("mcp", None)
    document = (await get(api, f"/publishers/{slug}/openapi.json")).json()
    assert list(document["paths"]) == ["/forecast"]
    assert document["paths"]["/forecast"]["post"]["x-payment-info"]["price"]["amount"] == "0.05"
    await api.services.catalog.load()
    text = (await get(api, "/llms.txt")).text
    assert next(one for one in text.splitlines() if f"/{slug})" in one).endswith(
        "MCP tools, 0.02 to 0.05 USDC per call"
    )
    assert "/publishers/<slug>/mcp`" in text


async def test_what_publishers_write_stays_text(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    made = await clerk.publisher(
        owner,
        name="<script>document.title='pwned'</script>",
        description=EVIL + "\u202egnp.exe\u2066 " + "e\u0301\u0301\u0301\u0301\u0301\u0301" * 30,
        capabilities=[one[:100] for one in HOSTILE],
        usage_examples=[{"title": EVIL, "description": EVIL, "curl": EVIL}],
        endpoints=[
            {"method": "GET", "path": "/a", "description": EVIL, "query_params": [{"name": "q", "description": EVIL}]}
        ],
    )
    for path in (f"/store/{made['slug']}", "/store", f"/store?search={EVIL[:100]}&category=<b>"):
        answer = await get(api, path)
        page = parsed(answer.text)
        assert_safe_and_accessible(page)
        assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x08]", answer.text)
    text = words(parsed((await get(api, f"/store/{made['slug']}")).text))
    assert "<script>document.title='pwned'</script>" in text
    assert "{{ 7 * 7 }}" in text
    assert "Read a command before you run it" in text


async def test_giant_texts_make_no_giant_pages(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    endpoints = [{"method": "GET", "path": f"/x{number}", "description": "y" * 1_500} for number in range(450)]
    made = await clerk.publisher(owner, name="w" * 200, description="W" * 10_000, endpoints=endpoints)
    answer = await get(api, f"/store/{made['slug']}")
    assert len(answer.content) < 150_000
    assert "And 350 more" in words(parsed(answer.text))


async def test_pages_may_load_and_run_nothing_and_are_not_sent_twice(api: Api, clerk: Clerk) -> None:
    made = await clerk.publisher(await clerk.agent())
    for path in ("/store", f"/store/{made['slug']}"):
        answer = await get(api, path)
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
        assert policy.pop("style-src").startswith("'sha256-")
        assert policy == {
            "default-src": "'none'", "img-src": "'self'", "form-action": "'self'", "base-uri": "'none'",
            "frame-ancestors": "'none'",
        }  # fmt: skip
        assert answer.headers["cache-control"].startswith("public, max-age=")
        again = await get(api, path, headers={"If-None-Match": answer.headers["etag"]}, expect=304)
        assert again.content == b""


async def test_what_is_not_in_the_store_is_a_page_too(api: Api, clerk: Clerk) -> None:
    made = await clerk.publisher(await clerk.agent(), name="Closing")
    for slug in ("nobody", "x" * 100, "%00", "<script>"):
        answer = await get(api, f"/store/{slug}", expect=404)
        assert_safe_and_accessible(parsed(answer.text))
    (record,) = [made]
    async with api.services.database.acquire() as connection:
        await connection.execute("UPDATE catalog.publisher SET is_active = false WHERE slug = $1", record["slug"])
    await get(api, f"/store/{made['slug']}", expect=404)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("a\u202eb\u2066c\u200bd\ufeffe", "abcde"),
        ("a\x00b\x07c\x1b[31md\x9fe", "abc[31mde"),
        ("line\r\nline\u2028line", "line\nline\nline"),
        ("e\u0301" + "\u0301" * 50, "e" + "\u0301" * 3),
        ("नमस्ते שלום 👩", "नमस्ते שלום 👩"),
        (None, ""),
        ("x" * 5_000, "x" * 1_999 + "…"),
    ],
)
def test_text_is_made_fit_to_be_shown(given: str | None, shown: str) -> None:
    assert clean(given) == shown


def test_a_line_is_one_line() -> None:
    assert line(" a\n\n b\t c ") == "a b c"
