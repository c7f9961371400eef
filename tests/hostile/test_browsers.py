"""Pages of other sites (CORS): preflights are free and go nowhere, answers can be read, cookies open nothing."""

from __future__ import annotations

import pytest

from tests.hostile.shops import PRICE, Market, Tills
from tests.hostile.wire import Answer, ScriptedUpstream, ask, request
from tests.support.gateway import RunningGateway
from tests.support.upstream import RecordingUpstream

ORIGIN = "Origin: https://page.example"
ASKS = (
    ORIGIN,
    "Access-Control-Request-Method: POST",
    "Access-Control-Request-Headers: authorization, payment-signature",
)


def cors(answer: Answer) -> dict[str, str]:
    """Return what an answer says about CORS, each field once."""
    said = [(name, value) for name, value in answer.headers if name.startswith("access-control-")]
    assert len({name for name, _ in said}) == len(said), said
    return {name.removeprefix("access-control-"): value for name, value in said}


def assert_readable(answer: Answer) -> None:
    said = cors(answer)
    assert set(said) == {"allow-origin", "expose-headers"}, said
    assert said["allow-origin"] == "*"
    assert {"*", "payment-required", "x-cost", "x-request-id"} <= set(said["expose-headers"].split(", "))
    assert "Origin" in answer.all("vary")


@pytest.mark.parametrize("path", ["/publishers/{slug}/x", "/publishers/nobody/x", "/wallet/balance", "/no/such/path"])
async def test_a_preflight_is_free_and_no_publisher_hears_of_it(
    wired: RunningGateway, market: Market, upstream: RecordingUpstream, path: str
) -> None:
    upstream.forget()
    answer = await ask(wired.port, request("OPTIONS", path.format(slug=market.plain.slug), *ASKS))
    said = cors(answer)
    assert (answer.status, answer.body, upstream.calls) == (204, b"", 0)
    assert (said["allow-origin"], said["allow-headers"]) == ("*", "authorization, payment-signature")
    assert {"GET", "POST", "DELETE"} <= set(said["allow-methods"].split(", "))
    assert int(said["max-age"]) > 0
    assert "allow-credentials" not in said


async def test_what_a_preflight_allows_is_bounded_and_sound(wired: RunningGateway, market: Market) -> None:
    async def allowed(*fields: str) -> dict[str, str]:
        return cors(await ask(wired.port, request("OPTIONS", f"/publishers/{market.plain.slug}/x", ORIGIN, *fields)))

    many = ", ".join(f"x-{number}" for number in range(1_000))
    said = await allowed("Access-Control-Request-Method: GET", f"Access-Control-Request-Headers: {many}")
    assert len(said["allow-headers"].split(", ")) == 100
    odd = "Access-Control-Request-Headers: ok, two words, <b>, , X-Fine"
    assert (await allowed("Access-Control-Request-Method: GET", odd))["allow-headers"] == "ok, x-fine"
    assert "QUERY" in (await allowed("Access-Control-Request-Method: QUERY"))["allow-methods"]
    assert "TRACE" not in (await allowed("Access-Control-Request-Method: TRACE"))["allow-methods"]
    private = ("Access-Control-Request-Method: GET", "Access-Control-Request-Private-Network: true")
    assert "allow-private-network" not in await allowed(*private)


async def test_any_other_options_is_a_call_and_paid(
    wired: RunningGateway, market: Market, upstream: RecordingUpstream, tills: Tills
) -> None:
    agent = await tills.agent("options")
    calls = [(), (ORIGIN,), ASKS[1:], ASKS]  # the last one with a key, which no preflight has
    for fields in calls:
        upstream.forget()
        answer = await ask(wired.port, request("OPTIONS", f"/publishers/{market.plain.slug}/x", *fields, key=agent.key))
        assert (answer.status, upstream.calls) == (200, 1)
    await tills.expect(agent, len(calls) * PRICE)


async def test_a_page_reads_answers_and_refusals_and_the_upstream_decides_nothing(
    wired: RunningGateway, server: str, market: Market, scripted: ScriptedUpstream
) -> None:
    own = b"Access-Control-Allow-Origin: https://else.example\r\nAccess-Control-Allow-Credentials: true\r\n"
    own += b"Access-Control-Expose-Headers: X-Theirs\r\n"
    scripted.answers["told"] = b"HTTP/1.1 200 OK\r\n" + own + b"Content-Length: 2\r\n\r\nok"
    paid = await ask(wired.port, market.ask("GET", "/told", ORIGIN, shop=market.scripted))
    assert (paid.status, paid.get("x-cost")) == (200, "0.01")
    assert_readable(paid)
    plain = f"/publishers/{market.plain.slug}/x"
    for status, raw in (
        (402, request("GET", plain, ORIGIN)),
        (401, request("GET", plain, ORIGIN, key="seren_no")),
        (404, request("GET", "/publishers/nobody/x", ORIGIN)),
        (400, request("GET", plain, ORIGIN, "Transfer-Encoding: gzip")),
        (401, request("GET", "/wallet/balance", ORIGIN)),
        (200, request("GET", "/wallet/balance", ORIGIN, key=market.agent.key)),
        (200, request("GET", "/health/live", ORIGIN)),
    ):
        answer = await ask(wired.port, raw)
        if b"gzip" in raw and (server == "tollway" or not answer.all("x-request-id")):
            assert answer.status in (400, 501), answer
            continue  # the server itself refused it; h11 says 501 to a coding that it does not know
        assert answer.status == status, answer
        assert_readable(answer)
    without = await ask(wired.port, market.ask("GET", "/told", shop=market.scripted))
    assert cors(without) == {
        "allow-origin": "https://else.example", "allow-credentials": "true", "expose-headers": "X-Theirs",
    }  # fmt: skip


async def test_a_cookie_opens_nothing(wired: RunningGateway, market: Market) -> None:
    for path in (f"/publishers/{market.free.slug}/x", "/wallet/balance", "/auth/sessions"):
        answer = await ask(wired.port, request("GET", path, ORIGIN, "Cookie: __Host-tollway_access=a"))
        assert cors(answer) == {}, path
        asked = await ask(wired.port, request("OPTIONS", path, *ASKS, "Cookie: a=b"))
        assert cors(asked) == {}, path
