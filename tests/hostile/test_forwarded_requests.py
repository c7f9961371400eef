"""What an upstream gets of a request: fields, target and trailers, byte for byte, on every server (EX-15, EX-25 to EX-28)."""

from __future__ import annotations

import pytest

from tests.hostile.shops import Market
from tests.hostile.talk import seen_by
from tests.hostile.wire import ask, request
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.upstream import RecordingUpstream

# --- Fields of the request ---

HOP_BY_HOP = [
    "Connection: keep-alive, X-Listed", "CONNECTION: x-second", "X-Listed: 1", "X-Second: 1", "X_Second: 1", "Keep-Alive: 300",
    "TE: trailers", "Trailer: X-T", "Proxy-Authorization: Basic eA==", "Proxy-Connection: keep-alive",
    "Proxy-Authenticate: Basic", "HTTP2-Settings: AAMAAABkAAQAAP__",
]  # fmt: skip


async def test_hop_by_hop_and_listed_fields_stay_here(
    wired: RunningGateway, market: Market, upstream: RecordingUpstream
) -> None:
    seen = await seen_by(upstream, wired, market.ask("GET", "/x", *HOP_BY_HOP, "X-Stays: 1"))
    names = {name for name, _ in seen.headers}
    assert not names & {line.partition(":")[0].lower() for line in HOP_BY_HOP}
    assert seen.all("x-stays") == ["1"]


async def test_a_caller_cannot_list_away_what_we_write(
    wired: RunningGateway, market: Market, upstream: RecordingUpstream
) -> None:
    listed = "host, x-forwarded-for, via, x-request-id, x-upstream-token, content-length, content-type, authorization"
    seen = await seen_by(
        upstream, wired, market.ask("POST", "/x", f"Connection: {listed}", "Content-Type: a/b", body=b"whole")
    )
    for name in ("host", "x-forwarded-for", "via", "x-request-id", "x-upstream-token", "content-type"):
        assert len(seen.all(name)) == 1, name
    assert (seen.body, seen.all("authorization")) == (b"whole", [])


async def test_what_the_agent_shows_us_alone_stays_here(
    wired: RunningGateway, market: Market, upstream: RecordingUpstream
) -> None:
    private = [
        "Cookie: session=1",
        "PAYMENT-SIGNATURE: p",
        "X-PAYMENT: p",
        "X-Agent-Wallet: 0x0",
        "Idempotency-Key: once",
    ]
    seen = await seen_by(upstream, wired, market.ask("GET", "/x", *private[:-1]))
    assert market.agent.key.encode() not in seen.head
    assert not {name for name, _ in seen.headers} & {
        "authorization",
        *(line.partition(":")[0].lower() for line in private[:-1]),
    }


CLAIMS = [
    "X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 7.7.7.7", "X-Forwarded-Proto: gopher", "X-Forwarded-Host: evil.example",
    "X-Forwarded-Port: 1", "Forwarded: for=6.6.6.6", "X-Real-IP: 6.6.6.6", "True-Client-IP: 6.6.6.6", "CF-Connecting-IP: 6.6.6.6",
    "X-Client-IP: 6.6.6.6", "X_Forwarded_For: 6.6.6.6", "X_Real_IP: 6.6.6.6", "X-Request-Id: mine",
]  # fmt: skip


async def test_what_a_caller_claims_of_itself_is_replaced(
    wired: RunningGateway, market: Market, upstream: RecordingUpstream
) -> None:
    seen = await seen_by(upstream, wired, market.ask("GET", "/x", *CLAIMS))
    assert (seen.all("x-forwarded-for"), seen.all("x-forwarded-proto")) == (["127.0.0.1"], ["http"])
    assert seen.all("x-forwarded-host") == ["gateway"]
    assert b"6.6.6.6" not in seen.head
    assert b"evil" not in seen.head
    assert seen.all("x-request-id") != ["mine"]


async def test_a_trusted_proxy_is_believed_and_added_to_the_chain(
    services: Services, database_url: str, market: Market, upstream: RecordingUpstream
) -> None:
    behind = await start_gateway(services, database_url, SERVER_TRUSTED_PROXIES="127.0.0.1/32")
    try:
        seen = await seen_by(upstream, behind, market.ask("GET", "/x", *CLAIMS[:4], "X-Forwarded-Proto: https"))
        odd = await seen_by(upstream, behind, market.ask("GET", "/x", "X-Forwarded-Proto: https"))
    finally:
        await behind.stop()
    assert seen.all("x-forwarded-for") == ["6.6.6.6, 7.7.7.7, 127.0.0.1"]
    assert seen.all("x-forwarded-host") == ["evil.example"]
    assert seen.all("x-forwarded-proto") == ["http"], "neither http nor https"
    assert odd.all("x-forwarded-proto") == ["https"]


async def test_the_publishers_own_fields_cannot_be_doubled(
    wired: RunningGateway, market: Market, upstream: RecordingUpstream
) -> None:
    """Nor in the spelling that CGI-like servers take for the same."""
    fields = ["X-Upstream-Token: mine", "X_Upstream_Token: mine", "x-upstream_token: mine"]
    seen = await seen_by(upstream, wired, market.ask("GET", "/x", *fields))
    assert seen.head.lower().count(b"token") == 1
    assert seen.all("x-upstream-token") == ["the-publishers-own"]


async def test_order_duplicates_and_bytes_of_fields_are_kept(
    wired: RunningGateway, market: Market, upstream: RecordingUpstream
) -> None:
    sent = [
        ("x-b", "2"), ("x-a", "1"), ("x-b", "\xe9\xff\xf0"), ("x-c", "a\tb"), ("x-empty", ""), ("x-b", 'q"\\,;='), ("x-d", "x" * 4_000),
    ]  # fmt: skip
    seen = await seen_by(upstream, wired, market.ask("GET", "/x", *(f"{name}: {value}" for name, value in sent)))
    arrived = [(name, value) for name, value in seen.headers if name in dict(sent)]
    assert arrived == sent


async def test_request_trailers_are_no_fields(
    wired: RunningGateway, market: Market, upstream: RecordingUpstream
) -> None:
    """A front that filters fields does not look at trailers: RFC 9110 section 6.5.1."""
    trailers = "X-Late: 1\r\nX-Forwarded-For: 6.6.6.6\r\nAuthorization: Bearer x\r\nHost: evil.example\r\n"
    raw = market.ask("POST", "/x", "Transfer-Encoding: chunked", "Trailer: X-Late")
    seen = await seen_by(upstream, wired, raw + b"5\r\nhello\r\n0\r\n" + trailers.encode() + b"\r\n")
    assert (seen.body, seen.all("x-late")) == (b"hello", [])
    assert b"6.6.6.6" not in seen.head


async def test_trailers_authenticate_nobody(wired: RunningGateway, market: Market, upstream: RecordingUpstream) -> None:
    upstream.forget()
    raw = request("POST", f"/publishers/{market.plain.slug}/x", "Transfer-Encoding: chunked")
    answer = await ask(wired.port, raw + f"0\r\nAuthorization: Bearer {market.agent.key}\r\n\r\n".encode())
    assert (answer.status, upstream.calls) == (402, 0)


# --- The target ---

TARGETS = [
    "/a%2Fb", "/a%2fb", "/a;b=c/d", "/a+b", "/a//b", "//a", "/a/", "/", "/%E2%82%AC", "/a%20b", "/a!$&'()*,=:@-._~", "/A%41", "/x?a=&&b",
    "/x?a+b=c%20d&a=%26", "/x?%", "/x?a=%zz", "/x?a/b?c", "/x?=&=", "/x?;a;b", "/x?redirect=http://e.example/%2e%2e/", "/a|b", '/a"b', "/a^b",
    "/a[1]{2}", "/x?a=[1]{2}|`", "/" + "a" * 4_000, "/x?" + "a=1&" * 1_000,
]  # fmt: skip


@pytest.mark.parametrize("below", TARGETS, ids=[target[:30] for target in TARGETS])
async def test_path_and_query_arrive_as_they_were_sent(
    wired: RunningGateway, market: Market, upstream: RecordingUpstream, below: str
) -> None:
    upstream.forget()
    answer = await ask(wired.port, market.ask("GET", below, shop=market.keyed))
    if answer.status == 400:  # a server below refuses characters that RFC 3986 does not allow; nobody repairs them
        assert set(below) & set('|"^[]{}`%')
        assert upstream.calls == 0
        return
    assert (answer.status, [seen.target for seen in upstream.requests]) == (200, ["/base/v2" + below])


async def test_a_bare_question_mark_is_lost(wired: RunningGateway, market: Market, upstream: RecordingUpstream) -> None:
    """ASGI does not tell an empty query from none."""
    seen = await seen_by(upstream, wired, market.ask("GET", "/x?"))
    assert seen.target == "/x"
