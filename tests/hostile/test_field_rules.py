"""Fields that a publisher's server may not send through, and callers' keys that may not go to it, on every server."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from urllib.parse import quote

import pytest

from gateway.proxy.answer_fields import OF_THE_HOST, PREFIXES, TO_SERVERS
from tests.hostile.shops import PRICE, Market, Tills
from tests.hostile.talk import seen_by, told
from tests.hostile.wire import ScriptedUpstream, ask, request
from tests.support.gateway import RunningGateway
from tests.support.upstream import RecordingUpstream
from tests.support.world import World

NAMES = sorted(name.decode() for name in TO_SERVERS | OF_THE_HOST)
FAMILIES = ["x-accel-redirect", "X-Accel-Buffering", "X_Accel_Redirect", "X-LiteSpeed-Location", "Surrogate-Anything"]
CLAIMS = ["payment-required", "PAYMENT-RESPONSE", "X-Payment-Response", "x-cost-more", "X-Tollway-Anything"]


async def test_what_orders_servers_about_or_holds_for_the_host_is_dropped(
    wired: RunningGateway, market: Market, scripted: ScriptedUpstream
) -> None:
    names = [*NAMES, *FAMILIES, *CLAIMS]
    for start in range(0, len(names), 20):
        some = names[start : start + 20]
        lines = "".join(f"{name.title() if number % 2 else name}: forged\r\n" for number, name in enumerate(some))
        raw = f"HTTP/1.1 200 OK\r\nX-Stays: 1\r\n{lines}Content-Length: 2\r\n\r\nok"
        answer = await told(wired, market, scripted, raw.encode())
        assert (answer.status, answer.get("x-stays"), answer.body) == (200, "1", b"ok")
        assert [name for name, value in answer.headers if value == "forged"] == []


def test_the_docs_list_them() -> None:
    text = (Path(__file__).parents[2] / "docs/publishers.md").read_text()
    listed = text.partition("\n## What of an answer reaches the caller\n")[2].partition("\n## ")[0].lower()
    words = set(re.findall(r"`([\w…-]+)`", listed))
    families = {f"{prefix.decode()}…" for prefix in PREFIXES}
    assert {name for name in NAMES if not name.startswith(tuple(prefix.decode() for prefix in PREFIXES))} <= words
    assert {family.replace("-…", "") for family in families} <= {word.replace("-…", "").rstrip("…") for word in words}


SECRET = "the-publishers-own"  # shops.open_market
ECHOES = {
    "as it is": SECRET,
    "in a text": f'error="unknown key {SECRET}"',
    "percent-encoded": quote(f"{SECRET}", safe="").replace("-", "-"),
    "in base64": base64.b64encode(SECRET.encode()).decode(),
    "in base64 behind other bytes": base64.b64encode(f"a{SECRET}:x".encode()).decode(),
    "in base64 behind two": base64.urlsafe_b64encode(f"ab{SECRET}z".encode()).decode(),
    "in digits": SECRET.encode().hex(),
}


@pytest.mark.parametrize("echo", ECHOES)
async def test_the_publishers_own_credential_is_not_echoed_in_a_field(
    wired: RunningGateway, market: Market, world: World, scripted: ScriptedUpstream, echo: str
) -> None:
    own = {"X-Upstream-Token": SECRET, "Accept": "application/json; charset=utf-8"}
    shop = await world.publisher(PRICE, api_url=scripted.url, upstream_headers=own)
    lines = (
        f"X-Debug: {ECHOES[echo]}\r\nLocation: /x?k={ECHOES[echo]}\r\nContent-Type: application/json; charset=utf-8\r\n"
    )
    trailer = f"0\r\nX-T: {ECHOES[echo]}\r\n\r\n"
    raw = f"HTTP/1.1 200 OK\r\n{lines}X-Stays: 1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n{trailer}"
    scripted.answers["echo"] = raw.encode()
    answer = await ask(wired.port, market.ask("GET", "/echo", shop=shop))
    assert (answer.body, answer.get("x-stays")) == (b"ok", "1")
    assert (answer.all("x-debug"), answer.all("location"), answer.all("x-t")) == ([], [], [])
    assert answer.get("content-type") == "application/json; charset=utf-8"
    assert SECRET.encode() not in answer.head


async def test_a_key_in_another_field_is_taken_out(
    wired: RunningGateway, market: Market, upstream: RecordingUpstream
) -> None:
    key = market.agent.key
    fields = [f"X-Api-Key: {key}", f"Proxy-Info: Bearer {key}", f"Referer: https://a.example/?k={key}", "X-Stays: 1"]
    fields += [f"X-Encoded: {key.replace('_', '%5F')[:6]}_{key[6:]}", "X-Word: seren_ok"]
    seen = await seen_by(upstream, wired, market.ask("GET", "/x", *fields))
    assert key.encode() not in seen.head
    assert not {"x-api-key", "proxy-info", "referer"} & {name for name, _ in seen.headers}
    assert (seen.all("x-stays"), seen.all("x-word")) == (["1"], ["seren_ok"])


@pytest.mark.parametrize("place", ["/x?api_key={key}", "/x?a=1&k=Bearer%20{key}", "/{key}/x", "/x?k={encoded}"])
async def test_a_key_in_the_url_is_refused_before_anything_is_paid(
    wired: RunningGateway, market: Market, upstream: RecordingUpstream, tills: Tills, place: str
) -> None:
    agent = await tills.agent(f"key in {place}")
    upstream.forget()
    below = place.format(key=agent.key, encoded=agent.key.replace("_", "%5f"))
    answer = await ask(wired.port, request("GET", f"/publishers/{market.plain.slug}{below}", key=agent.key))
    assert (answer.status, b"/problems/key-in-url" in answer.body, upstream.calls) == (400, True, 0)
    assert agent.key.encode() not in answer.body
    await tills.expect(agent, 0)
