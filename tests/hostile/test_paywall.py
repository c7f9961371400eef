"""No spelling of a call is cheaper, freer or less protected than the call that the upstream will understand (EX-26).

Also what must never be forwarded at all: TRACE would echo the publisher's own credential to the caller.
"""

from __future__ import annotations

import pytest

from tests.hostile.shops import BASE, PREMIUM, PRICE, Market, Tills
from tests.hostile.wire import ask, request
from tests.support.gateway import RunningGateway
from tests.support.upstream import RecordingUpstream
from tests.support.world import Agent, Shop, World


def understood(target: str) -> str:
    """Return the path as the most forgiving upstream reads it."""
    path = target.partition("?")[0].partition("#")[0]
    for _ in range(3):
        path = path.replace("%2F", "/").replace("%2f", "/").replace("%25", "%").replace("%70", "p").replace("%61", "a")
        path = path.replace("%2E", ".").replace("%2e", ".").replace("%5C", "\\").replace("%5c", "\\")
    path = path.replace("\\", "/").partition("#")[0]
    segments = [segment.partition(";")[0].lower() for segment in path.split("/")]
    return "/" + "/".join(segment for segment in segments if segment)


SPELLINGS = [
    "/v1/premium", "/v1/PREMIUM", "/V1/Premium", "/v1/premium/", "//v1/premium", "/v1//premium", "/v1/%70remium",
    "/v1%2Fpremium", "/v1%2fpremium", "/v1/premium;x=1", "/v1;a/premium", "/v1\\premium", "/v1%5Cpremium",
    "/v1/premium#x", "/v1/%2570remium", "/v1/premium?", "/v1/premium?x=1", "/v1/premium;", "/v1/premium/;a",
    "/v1/items/7", "/v1/items/7/", "/v1/items//7", "/V1/items/%37",
]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "spelling"),
    [("GET", spelling) for spelling in SPELLINGS]
    + [(method, spelling) for method in ("HEAD", "get", "gEt") for spelling in SPELLINGS[:4]],
)
async def test_no_spelling_of_method_and_path_is_cheaper(
    wired: RunningGateway, market: Market, tills: Tills, upstream: RecordingUpstream, spelling: str, method: str
) -> None:
    upstream.forget()
    agent = await tills.agent(f"{method} {spelling}")
    answer = await ask(wired.port, _request(method, agent, market.dear, spelling), head=method == "HEAD")
    if not upstream.requests:
        assert answer.status in (400, 404, 405, 501)
        await tills.expect(agent, 0)
        return
    (seen,) = upstream.requests
    assert understood(seen.target) in ("/v1/premium", "/v1/items/7", "/v1/items/%37")
    assert seen.target == spelling.removesuffix("?").removesuffix("#x")
    await tills.expect(agent, PREMIUM)


PROTECTED = [
    "/admin", "/ADMIN", "/%61dmin", "/admin/", "//admin", "/admin;x", "/admin%2F", "/admin#x", "/%2561dmin", "\\admin", "/admin?a",
]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "spelling"),
    [
        *(("GET", spelling) for spelling in PROTECTED),
        ("HEAD", "/admin"), ("HEAD", "/Admin/"), ("get", "/admin"), ("Get", "/Admin/"),
    ],
)  # fmt: skip
async def test_no_spelling_reaches_a_protected_endpoint(
    wired: RunningGateway, market: Market, upstream: RecordingUpstream, spelling: str, method: str
) -> None:
    upstream.forget()
    answer = await ask(wired.port, _request(method, market.agent, market.dear, spelling), head=method == "HEAD")
    assert answer.status in (400, 403, 404, 405)
    assert upstream.calls == 0


@pytest.mark.parametrize("method", ["TRACE", "TRACK", "CONNECT", "DEBUG", "trace", "Trace", "options", "head"])
async def test_methods_that_reflect_tunnel_or_imitate_are_never_forwarded(
    wired: RunningGateway, server: str, market: Market, tills: Tills, upstream: RecordingUpstream, method: str
) -> None:
    """An upstream that answers TRACE sends the publisher's credential back to the caller (RFC 9110 section 9.3.8)."""
    upstream.forget()
    agent = await tills.agent(method)
    answer = await ask(wired.port, _request(method, agent, market.plain, "/x"), head=method == "head")
    if server == "hypercorn" and method in ("options", "head"):  # it capitalises methods for all readers
        assert [one.method for one in upstream.requests] == [method.upper()]
        return
    assert answer.status in (400, 405, 501)
    assert upstream.requests == []
    await tills.expect(agent, 0)


@pytest.fixture(scope="module")
async def by_method(world: World) -> Shop:
    """A publisher that sells GET and POST and says nothing of the rest."""
    return await world.publisher(None, price_per_get=10_000, price_per_post=20_000)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "PROPFIND", "SEARCH"])
async def test_a_publisher_with_prices_per_method_only_gives_no_other_method_away(
    wired: RunningGateway, by_method: Shop, tills: Tills, upstream: RecordingUpstream, method: str
) -> None:
    """Prices for GET and POST are no invitation to do the rest for nothing."""
    upstream.forget()
    agent = await tills.agent(method)
    answer = await ask(wired.port, _request(method, agent, by_method, "/x"), head=method == "HEAD")
    price = {"GET": 10_000, "HEAD": 10_000, "POST": 20_000}.get(method, 0)
    assert (answer.status, answer.get("allow")) == ((200, "") if price else (405, "GET, POST, HEAD"))
    assert upstream.calls == bool(price)
    await tills.expect(agent, price)


OVERRIDES = [
    "X-HTTP-Method-Override: DELETE", "X-HTTP-Method: DELETE", "X-Method-Override: DELETE", "x_http_method_override: DELETE",
    "X_HTTP-Method_Override: DELETE", "X-Original-Method: DELETE", "X-Original-URL: /v1/premium", "X-Rewrite-URL: /v1/premium",
    "X-Original-URI: /v1/premium", "X_Original_URL: /v1/premium", "X-Forwarded-Uri: /v1/premium", "X-Forwarded-Method: DELETE",
    "X-Forwarded-Prefix: /v1", "Proxy: http://evil.example", "X-Sendfile-Type: X-Accel-Redirect",
]  # fmt: skip


@pytest.mark.parametrize("field", OVERRIDES)
async def test_a_field_that_makes_frameworks_read_another_request_is_not_forwarded(
    wired: RunningGateway, market: Market, upstream: RecordingUpstream, field: str
) -> None:
    """With `*` passed through, IIS, Symfony, Rack and CGI would serve something else than what was priced."""
    upstream.forget()
    raw = request("POST", f"/publishers/{market.dear.slug}/x", field, "X-Kept: 1", key=market.agent.key, body=b"{}")
    assert (await ask(wired.port, raw)).status == 200
    (seen,) = upstream.requests
    assert seen.all(field.partition(":")[0].lower()) == []
    assert seen.all("x-kept") == ["1"]


@pytest.mark.parametrize(
    "query", ["_method=DELETE", "a=1&_method=delete", "a;%5Fmethod=DELETE", "_METHOD=D%45LETE", "_method="]
)
async def test_a_query_cannot_change_the_method_that_was_priced(
    wired: RunningGateway, market: Market, tills: Tills, upstream: RecordingUpstream, query: str
) -> None:
    """DELETE costs 2.0 here, POST 0.00001."""
    upstream.forget()
    agent = await tills.agent(query)
    answer = await ask(wired.port, _request("POST", agent, market.dear, f"/v1/items/7?{query}"))
    assert (answer.status, upstream.calls) == (400, 0)
    await tills.expect(agent, 0)


async def test_a_method_in_the_query_that_changes_nothing_goes_on(
    wired: RunningGateway, market: Market, tills: Tills, upstream: RecordingUpstream
) -> None:
    upstream.forget()
    agent = await tills.agent("harmless")
    for shop, query in (
        (market.dear, "_method=post"),
        (market.dear, "method=DELETE"),
        (market.plain, "_method=DELETE"),
    ):
        assert (await ask(wired.port, _request("POST", agent, shop, f"/x?{query}"))).status == 200
    assert [seen.target for seen in upstream.requests] == ["/x?_method=post", "/x?method=DELETE", "/x?_method=DELETE"]
    await tills.expect(agent, 2 * BASE + PRICE)


@pytest.mark.parametrize(
    "target",
    [
        "http://gateway{t}", "HTTP://GATEWAY{t}", "http://169.254.169.254{t}", "https://gateway:1{t}", "http://gateway{t}?a=b",
    ],
)  # fmt: skip
async def test_an_absolute_target_is_the_same_paid_call(
    wired: RunningGateway, market: Market, tills: Tills, upstream: RecordingUpstream, target: str
) -> None:
    """RFC 9112 section 3.2.2: accepted; what it names is our own path, never another host to connect to."""
    upstream.forget()
    agent = await tills.agent(target)
    raw = request("GET", target.replace("{t}", f"/publishers/{market.dear.slug}/v1/premium"), key=agent.key)
    answer = await ask(wired.port, raw)
    assert answer.status == 200
    (seen,) = upstream.requests
    assert seen.target.partition("?")[0] == "/v1/premium"
    await tills.expect(agent, PREMIUM)


@pytest.mark.parametrize("target", ["*", "publishers/{s}/x", "http:/publishers/{s}/x", "http://", "?a"])
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
async def test_a_target_of_another_form_is_no_call(
    wired: RunningGateway, server: str, market: Market, tills: Tills, upstream: RecordingUpstream, target: str,
    method: str,
) -> None:  # fmt: skip
    upstream.forget()
    agent = await tills.agent(target)
    raw = request(method, target.replace("{s}", market.plain.slug), key=agent.key)
    answer = await ask(wired.port, raw)
    if (server, method, target) == ("tollway", "OPTIONS", "*"):  # of the server itself (RFC 9110 section 9.3.7)
        assert (answer.status, "GET" in answer.get("allow")) == (204, True)
    else:
        assert answer.status in (400, 404, 405)
    assert upstream.calls == 0
    await tills.expect(agent, 0)


STRANGE = [
    "/Publishers/{s}/x", "//publishers/{s}/x", "/publishers//{s}/x", "/publishers/%2F{s}/x", "/./publishers/{s}/x",
    "/x/../publishers/{s}/x", "/%70ublishers/{s}/x", "/publishers%2F{s}/x", "/publishers/{S}/x", "/publishers/{s}%2Fx",
    "/publishers/{s};x/x", "/publishers/{s}%00/x", "/publishers/{s}%20/x", "/publishers/%E2%80%8B{s}/x", "/publishers/{s}\\x",
    "/publishers/{s}./x",
]  # fmt: skip


@pytest.mark.parametrize("target", STRANGE)
async def test_no_other_spelling_of_prefix_and_slug_leads_to_a_publisher(
    wired: RunningGateway, market: Market, tills: Tills, upstream: RecordingUpstream, target: str
) -> None:
    """One spelling, one publisher: two would be limited, priced or counted apart."""
    upstream.forget()
    agent = await tills.agent(target)
    slug = market.plain.slug
    raw = request("GET", target.replace("{s}", slug).replace("{S}", slug.upper()), key=agent.key)
    answer = await ask(wired.port, raw)
    assert (answer.status in (400, 404), upstream.calls) == (True, 0)
    await tills.expect(agent, 0)


CLIMBS = [
    "/..", "/../x", "/a/../../x", "/.", "/./x", "/%2e%2e/x", "/%2E./x", "/.%2e/x", "/%252e%252e/x", "/..%2fx", "/..%5cx", "/..\\x",
    "/..;/x", "/..;a=b/x", "/a/..", "/a%2f..%2f..%2fx", "/%c0%ae%c0%ae/x", "/%00/x", "/x%00.json", "/%zz", "/%", "/%u002e%u002e/x",
    "/..%00/x", "/%25252525252e/x",
]  # fmt: skip


@pytest.mark.parametrize("below", CLIMBS)
async def test_no_path_leaves_the_base_path(
    wired: RunningGateway, market: Market, tills: Tills, upstream: RecordingUpstream, below: str
) -> None:
    """One documented treatment of EX-26: dot segments are refused in every spelling, before anything is paid."""
    upstream.forget()
    agent = await tills.agent(below)
    answer = await ask(wired.port, _request("GET", agent, market.keyed, below))
    if upstream.requests:  # an overlong encoding is no dot for anyone who follows RFC 3629: its bytes go on as they are
        assert [seen.target for seen in upstream.requests] == ["/base/v2/%c0%ae%c0%ae/x"]
        return
    assert answer.status == 400
    await tills.expect(agent, 0)


def _request(method: str, agent: Agent, shop: Shop, below: str, *fields: str) -> bytes:
    return request(method, f"/publishers/{shop.slug}{below}", *fields, key=agent.key)
