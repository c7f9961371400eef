"""Small things that readers take differently: hosts, control characters in stored text, bodies that must not be."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.hostile.shops import PRICE, Market, Tills
from tests.hostile.wire import ScriptedUpstream, Wire, ask, request
from tests.support.gateway import RunningGateway
from tests.support.upstream import RecordingUpstream

BAD_HOSTS = (
    "gateway:0", "gateway:65536", "gateway:99999", "gateway:123456", "gateway:-1", "gateway:8o", "gateway:80:80",
    "user@gateway", "user:word@gateway", ":80", "gate way", "gateway/x", "gateway#x", "gateway,other", "[::1", "[zz]",
    "[::1]:70000", "[1.2.3.4]", "gateway%zz",
)  # fmt: skip
GOOD_HOSTS = (
    "gateway",
    "gateway:1",
    "gateway:65535",
    "gateway:",
    "127.0.0.1:8402",
    "[::1]",
    "[::1]:443",
    "a_b.example.",
)


@pytest.mark.parametrize("path", ["publishers", "health"])
async def test_a_host_that_is_none_is_400(
    wired: RunningGateway, market: Market, upstream: RecordingUpstream, path: str
) -> None:
    target = f"/publishers/{market.free.slug}/x" if path == "publishers" else "/health/live"
    upstream.forget()
    for host in BAD_HOSTS:
        assert (await ask(wired.port, request("GET", target, host=host))).status == 400, host
    assert (await ask(wired.port, request("GET", target, "Host: other"))).status == 400
    assert upstream.calls == 0
    for host in GOOD_HOSTS:
        assert (await ask(wired.port, request("GET", target, host=host))).status == 200, host


async def test_a_205_has_no_body_and_the_next_call_is_in_step(
    wired: RunningGateway, market: Market, scripted: ScriptedUpstream, tills: Tills
) -> None:
    agent = await tills.agent("reset")
    for framing in (b"Content-Length: 5\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"):
        scripted.answers["reset"] = b"HTTP/1.1 205 Reset Content\r\nContent-Type: text/plain\r\n" + framing
        scripted.answers["told"] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        wire = await Wire.open(wired.port)
        for below, status, body in (("reset", 205, b""), ("told", 200, b"ok")):
            await wire.send(request("GET", f"/publishers/{market.scripted.slug}/{below}", key=agent.key))
            answer = await wire.answer()
            assert (answer.status, answer.body, answer.complete) == (status, body, True)
        wire.close()
    await tills.expect(agent, 4 * PRICE)


async def test_a_refused_upload_ends_with_its_connection(wired: RunningGateway, market: Market) -> None:
    """docs/agents.md: the gateway reads so much of a refused body, and then ends the connection."""
    wire = await Wire.open(wired.port)
    await wire.send(request("POST", f"/publishers/{market.plain.slug}/x", "Content-Length: 100000000") + b"x")
    answer = await wire.answer()
    assert answer.status == 402

    async def drip() -> None:
        while True:
            await wire.send(b"x")
            await asyncio.sleep(0.2)

    dripping = asyncio.create_task(drip())
    try:
        assert await wire.ended(), "the gateway reads on"
    finally:
        dripping.cancel()
        wire.close()


CONTROLS = ["\x00", "\x01", "\x07", "\x08", "\x0b", "\x1b[31m", "\x7f", "\x85", "\x9b31m"]
TEXTS = {
    "a key's name": ("POST", "/organizations/default/api-keys", {"name": "{}"}),
    "an agent's name": ("POST", "/auth/agent", {"name": "{}"}),
    "an organization's name": ("POST", "/organizations", {"name": "{}"}),
    "a webhook's name": ("POST", "/organizations/default/webhooks", {"name": "{}", "url": "https://a.example/"}),
    "a publisher's description": ("PUT", "/organizations/default/publishers/{slug}", {"resource_description": "{}"}),
    "a list of texts": ("PUT", "/organizations/default/publishers/{slug}", {"use_cases": ["fine", "{}"]}),
    "free JSON": ("PUT", "/organizations/default/publishers/{slug}", {"metadata": {"a": ["{}"]}}),
}


@pytest.mark.parametrize("where", TEXTS)
async def test_no_text_that_is_stored_has_control_characters(
    gateway: RunningGateway, market: Market, where: str
) -> None:
    method, path, body = TEXTS[where]
    for control in CONTROLS:
        raw = json.dumps(body).replace("{}", json.dumps(f"a{control}b")[1:-1]).encode()
        answer = await ask(
            gateway.port,
            request(method, path.replace("{slug}", market.plain.slug), "Content-Type: application/json",
                    key=market.agent.key, body=raw),
        )  # fmt: skip
        assert answer.status == 400, (where, control, answer.body)
        assert b"control character" in answer.body, (where, control, answer.body)


async def test_a_text_of_one_line_has_no_second(gateway: RunningGateway, market: Market) -> None:
    for text in ("a\nb", "a\r\nb", "a\tb", "a\u2028b"):
        raw = json.dumps({"name": text}).encode()
        fields = "Content-Type: application/json"
        answer = await ask(gateway.port, request("POST", "/organizations", fields, key=market.agent.key, body=raw))
        assert answer.status == 400, text
        assert json.loads(answer.body)["errors"][0]["field"] == "name"
