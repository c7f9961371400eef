"""Idempotency-Key in hands that want more than one answer for one payment, or one payment for none (EX-48, EX-49)."""

from __future__ import annotations

import pytest

from tests.hostile.shops import PRICE, Market, Tills
from tests.hostile.wire import Answer, Wire, ask, request
from tests.support.gateway import RunningGateway
from tests.support.upstream import RecordingUpstream
from tests.support.world import Agent

OTHERS = {
    "path": ("POST", "/y", "a", ()), "query": ("POST", "/x?a", "a", ()), "empty query": ("POST", "/x?=", "a", ()),
    "method": ("PUT", "/x", "a", ()), "body": ("POST", "/x", "b", ()), "longer body": ("POST", "/x", "aa", ()),
    "no body": ("POST", "/x", "", ()), "type": ("POST", "/x", "a", ("Content-Type: b/c",)),
    "spelling of the path": ("POST", "/%78", "a", ()), "case of the path": ("POST", "/X", "a", ()),
}  # fmt: skip


def keyed(
    market: Market, agent: Agent, key: str, method: str = "POST", below: str = "/x", body: str = "a", *fields: str
) -> bytes:
    path = f"/publishers/{market.plain.slug}{below}"
    return request(method, path, f"Idempotency-Key: {key}", *fields, key=agent.key, body=body.encode())


async def first(wired: RunningGateway, market: Market, agent: Agent, key: str) -> Answer:
    answer = await ask(wired.port, keyed(market, agent, key))
    assert (answer.status, answer.get("x-cost")) == (200, "0.01")
    return answer


@pytest.mark.parametrize("change", OTHERS)
async def test_another_request_under_a_used_key_is_refused(
    wired: RunningGateway, market: Market, tills: Tills, upstream: RecordingUpstream, change: str
) -> None:
    agent = await tills.agent(change)
    await first(wired, market, agent, "used")
    upstream.forget()
    method, below, body, fields = OTHERS[change]
    answer = await ask(wired.port, keyed(market, agent, "used", method, below, body, *fields))
    assert (answer.status, answer.get("x-cost"), upstream.calls) == (422, "0", 0)
    assert b"key-reused" in answer.body
    again = await ask(wired.port, keyed(market, agent, "used"))
    assert (again.status, again.get("idempotency-replayed")) == (200, "true")
    await tills.expect(agent, PRICE)


async def test_a_key_of_one_account_opens_nothing_of_another(
    wired: RunningGateway, market: Market, tills: Tills, upstream: RecordingUpstream
) -> None:
    one, other = await tills.agent("one"), await tills.agent("other")
    theirs = await first(wired, market, one, "shared")
    upstream.forget()
    mine = await first(wired, market, other, "shared")
    assert (upstream.calls, mine.get("x-request-id") != theirs.get("x-request-id")) == (1, True)
    nobody = request("POST", f"/publishers/{market.plain.slug}/x", "Idempotency-Key: shared", body=b"a")
    assert (await ask(wired.port, nobody)).status == 402
    await tills.expect(one, PRICE)
    await tills.expect(other, PRICE)


@pytest.mark.parametrize(
    "key", ["", " ", "a" * 256, "a\tb", "\xe9", "caf\xe9", "a\x7f", "\U0001f511".encode().decode("latin-1")]
)
async def test_a_key_that_is_none_is_refused_before_anything_is_paid(
    wired: RunningGateway, market: Market, tills: Tills, upstream: RecordingUpstream, key: str
) -> None:
    agent = await tills.agent(repr(key))
    upstream.forget()
    answer = await ask(wired.port, keyed(market, agent, key))
    assert (answer.status, upstream.calls) == (400, 0)
    await tills.expect(agent, 0)


@pytest.mark.parametrize(
    "key", ["a", "a" * 255, "a b", "'; DROP TABLE x; --", '{"a":1}', "%00", "../../x", "A", '"quoted"']
)
async def test_any_visible_text_is_a_key_and_cases_differ(
    wired: RunningGateway, market: Market, tills: Tills, upstream: RecordingUpstream, key: str
) -> None:
    agent = await tills.agent(key)
    upstream.forget()
    await first(wired, market, agent, key)
    again = await ask(wired.port, keyed(market, agent, key))
    assert again.get("idempotency-replayed") == "true"
    if key.swapcase() != key:
        await first(wired, market, agent, key.swapcase())
    await tills.expect(agent, PRICE * upstream.calls)


async def test_a_repeated_answer_needs_no_funds_but_the_same_key(
    wired: RunningGateway, market: Market, tills: Tills, upstream: RecordingUpstream
) -> None:
    """A wallet that is empty by now has paid for its answer; a stranger has not."""
    agent = await tills.agent("empty")
    answer = await first(wired, market, agent, "mine")
    await tills.expect(agent, PRICE)
    upstream.forget()
    stranger = await tills.agent("stranger")
    replayed = await ask(wired.port, keyed(market, agent, "mine"))
    bought = await ask(wired.port, keyed(market, stranger, "mine"))
    assert (replayed.body, replayed.get("x-cost"), bought.get("x-cost")) == (answer.body, "0", "0.01")
    assert upstream.calls == 1
    await tills.expect(stranger, PRICE)


async def test_a_repeat_with_other_framing_is_the_same_request(
    wired: RunningGateway, market: Market, tills: Tills, upstream: RecordingUpstream
) -> None:
    """Chunked or not, the bytes are the request; a chunk boundary is no way to a second call."""
    agent = await tills.agent("framing")
    upstream.forget()
    await first(wired, market, agent, "framed")
    path = f"/publishers/{market.plain.slug}/x"
    raw = request("POST", path, "Idempotency-Key: framed", "Transfer-Encoding: chunked", key=agent.key)
    again = await ask(wired.port, raw + b"1\r\na\r\n0\r\n\r\n")
    assert (again.status, again.get("idempotency-replayed"), upstream.calls) == (200, "true", 1)
    await tills.expect(agent, PRICE)


async def test_a_repeated_head_and_a_repeated_204_leave_the_connection_in_step(
    wired: RunningGateway, market: Market, tills: Tills
) -> None:
    agent = await tills.agent("in step")
    wire = await Wire.open(wired.port)
    for method, below, status in (("HEAD", "/x", 200), ("GET", "/status/204", 204), ("GET", "/status/304", 304)):
        for _ in range(2):
            await wire.send(keyed(market, agent, f"step{status}", method, below, ""))
            answer = await wire.answer(head=method == "HEAD")
            assert (answer.status, answer.body) == (status, b"")
        assert answer.get("idempotency-replayed") == "true"
    wire.close()
    await tills.expect(agent, 3 * PRICE)


async def test_a_refused_call_does_not_use_up_its_key(
    wired: RunningGateway, market: Market, tills: Tills, upstream: RecordingUpstream
) -> None:
    agent = await tills.agent("refused")
    upstream.forget()
    for below in ("/../x", "/x#y z", "/%zz"):
        assert (await ask(wired.port, keyed(market, agent, "spare", below=below))).status == 400
    await first(wired, market, agent, "spare")
    assert upstream.calls == 1
    await tills.expect(agent, PRICE)
