"""Answers of a publisher's server that two readers could understand differently: 502, uncharged, connection not used again.

The upstream is the attacker here: it poisons the next caller's answer on a shared connection, smuggles fields past us,
or makes a server below us fail after the money has moved.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.hostile.shops import PRICE, Market, Tills
from tests.hostile.talk import OK, told
from tests.hostile.wire import CLOSE, ScriptedUpstream, Wire, ask, request
from tests.support.gateway import RunningGateway

L = b"HTTP/1.1 200 OK\r\n"
BROKEN: dict[str, bytes] = {
    "CL and TE": L + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "CL twice, different": L + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    "CL twice, equal": L + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nab",
    "CL list": L + b"Content-Length: 2, 2\r\n\r\nab",
    "CL negative": L + b"Content-Length: -2\r\n\r\nab",
    "CL plus": L + b"Content-Length: +2\r\n\r\nab",
    "CL hex": L + b"Content-Length: 0x2\r\n\r\nab",
    "CL huge": L + b"Content-Length: 99999999999999999999\r\n\r\nab",
    "CL empty": L + b"Content-Length:\r\n\r\nab" + CLOSE,
    "TE gzip": L + b"Transfer-Encoding: gzip\r\n\r\nab" + CLOSE,
    "TE gzip, chunked": L + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "TE twice": L + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE under HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "obs-fold": L + b"X-A: a\r\n b\r\nContent-Length: 2\r\n\r\nab",
    "NUL in a value": L + b"X-A: a\x00b\r\nContent-Length: 2\r\n\r\nab",
    "bare CR in a value": L + b"X-A: a\rX-Cost: 0\r\nContent-Length: 2\r\n\r\nab",
    "bare LF in a value": L + b"X-A: a\nX-B: b\r\nContent-Length: 2\r\n\r\nab",
    "control in a value": L + b"X-A: a\x01b\r\nContent-Length: 2\r\n\r\nab",
    "DEL in a value": L + b"X-A: a\x7fb\r\nContent-Length: 2\r\n\r\nab",
    "blank in a name": L + b"X A: a\r\nContent-Length: 2\r\n\r\nab",
    "blank behind a name": L + b"Content-Length : 2\r\n\r\nab",
    "parenthesis in a name": L + b"X(A): a\r\nContent-Length: 2\r\n\r\nab",
    "no colon": L + b"garbage\r\nContent-Length: 2\r\n\r\nab",
    "empty name": L + b": a\r\nContent-Length: 2\r\n\r\nab",
    "status 099": b"HTTP/1.1 099 Odd\r\nContent-Length: 2\r\n\r\nab",
    "status 600": b"HTTP/1.1 600 Odd\r\nContent-Length: 2\r\n\r\nab",
    "status 999": b"HTTP/1.1 999 Odd\r\nContent-Length: 2\r\n\r\nab",
    "status of four digits": b"HTTP/1.1 2000 Odd\r\nContent-Length: 2\r\n\r\nab",
    "status of two digits": b"HTTP/1.1 20 Odd\r\nContent-Length: 2\r\n\r\nab",
    "status negative": b"HTTP/1.1 -200 Odd\r\nContent-Length: 2\r\n\r\nab",
    "101 unasked": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\nraw",
    "HTTP/2.0 in text": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nab",
    "HTTP/0.9": b"hello\r\n\r\n" + CLOSE,
    "ICY": b"ICY 200 OK\r\n\r\nab" + CLOSE,
    "small letters": b"http/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab",
    "TLS alert": b"\x15\x03\x01\x00\x02\x02\x46" + CLOSE,
    "nothing": CLOSE,
    "half a head": L + b"X-A: a" + CLOSE,
    "head of 100 KB": L + b"X-A: " + b"a" * 100_000 + b"\r\nContent-Length: 2\r\n\r\nab",
    "300 fields": L + b"".join(b"X-%d: 1\r\n" % number for number in range(300)) + b"Content-Length: 2\r\n\r\nab",
    "interim answers only": b"HTTP/1.1 100 Continue\r\n\r\n" * 5_000 + CLOSE,
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
async def test_an_answer_with_two_readings_is_502_and_costs_nothing(
    wired: RunningGateway, market: Market, scripted: ScriptedUpstream, tills: Tills, case: str
) -> None:
    agent = await tills.agent(case)
    scripted.answers["broken"] = BROKEN[case]
    answer = await ask(wired.port, request("POST", f"/publishers/{market.scripted.slug}/broken", key=agent.key))
    assert (answer.status, answer.get("x-cost")) == (502, "0")
    assert answer.get("content-type") == "application/problem+json"
    assert b"/problems/upstream-invalid" in answer.body
    assert not answer.all("x-a")
    await tills.expect(agent, 0)
    assert (await told(wired, market, scripted, OK)).body == b"ok"


CHUNKS: dict[str, bytes] = {
    "size is a word": b"zz\r\nab\r\n0\r\n\r\n",
    "size negative": b"-2\r\nab\r\n0\r\n\r\n",
    "size overflows": b"fffffffffffffffff\r\nab\r\n0\r\n\r\n",
    "longer than it says": b"1\r\nab\r\n0\r\n\r\n",
    "bare LF": b"2\nab\n0\n\n",
    "broken trailer": b"2\r\nab\r\n0\r\nX A: b\r\n\r\n",
    "ends in a chunk": b"5\r\nab" + CLOSE,
    "without an end": b"2\r\nab\r\n" + CLOSE,
    "endless extension": b"2;" + b"a" * 400_000,
}


@pytest.mark.parametrize("case", CHUNKS)
async def test_a_body_that_breaks_its_framing_is_a_broken_body_and_costs_nothing(
    wired: RunningGateway, market: Market, scripted: ScriptedUpstream, tills: Tills, case: str
) -> None:
    """The head has gone out by then: what is left is to cut the connection, so that nobody takes the part for the whole."""
    agent = await tills.agent(case)
    scripted.answers["chunks"] = L + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS[case]
    raw = request("GET", f"/publishers/{market.scripted.slug}/chunks", key=agent.key)
    try:
        answer = await ask(wired.port, raw)
    except EOFError:
        pass
    else:
        assert not answer.complete or answer.status == 502
    await tills.expect(agent, 0)


BEHIND = {
    "a second answer": b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nX-Poison: 1\r\n\r\npoison",
    "bytes": b"poison",
    "line ends": b"\r\n\r\n",
    "half an answer": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Poison: ",
}


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("method", ["GET", "HEAD", "204"])
async def test_what_stands_behind_an_answer_reaches_no_other_caller(
    wired: RunningGateway, market: Market, scripted: ScriptedUpstream, tills: Tills, behind: str, method: str
) -> None:
    """Response queue poisoning: the next call must get its own answer, from a connection in step."""
    victim = await tills.agent(f"{method} {behind}")
    head = b"HTTP/1.1 204 No Content\r\n\r\n" if method == "204" else b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    body = b"ab" if method == "GET" else b""

    async def answer_and_more(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head + body + BEHIND[behind])
        await writer.drain()

    scripted.early["poisoned"] = answer_and_more
    scripted.answers["victim"] = OK
    verb = "GET" if method == "204" else method
    first = await ask(wired.port, market.ask(verb, "/poisoned", shop=market.scripted), head=verb == "HEAD")
    assert (first.status, first.body) == (204 if method == "204" else 200, body)
    second = await ask(wired.port, request("GET", f"/publishers/{market.scripted.slug}/victim", key=victim.key))
    assert (second.status, second.body, second.all("x-poison")) == (200, b"ok", [])
    await tills.expect(victim, PRICE)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "place", ["http://169.254.169.254/latest/", "http://127.0.0.1:1/", "//evil.example/", "/elsewhere"]
)
async def test_a_redirect_is_passed_on_and_never_followed(
    wired: RunningGateway, market: Market, scripted: ScriptedUpstream, status: int, place: str
) -> None:
    """EX-24: neither the publisher's credential nor our network is lent to a Location, nor the caller led into its own."""
    scripted.forget()
    moved = f"HTTP/1.1 {status} Moved\r\nLocation: {place}\r\nRefresh: 0;url={place}\r\nContent-Length: 0\r\n\r\n"
    answer = await told(wired, market, scripted, moved.encode())
    shown = {"//evil.example/": [place], "/elsewhere": [f"/publishers/{market.scripted.slug}/elsewhere"]}.get(place, [])
    assert (answer.status, answer.all("location"), scripted.targets) == (status, shown, [b"/told"])
    assert answer.all("refresh") == [f"0; url={url}" for url in shown]


async def test_answers_of_one_caller_never_reach_another_on_the_same_connection(
    wired: RunningGateway, market: Market, scripted: ScriptedUpstream
) -> None:
    """Hundreds of calls over few upstream connections, some broken: each reads what it asked for."""
    scripted.answers |= {
        f"n{number}": OK.replace(b"2\r\n", b"4\r\n").replace(b"ok", b"%04d" % number) for number in range(30)
    }
    scripted.answers["broken"] = BROKEN["CL and TE"]

    async def caller(start: int) -> None:
        wire = await Wire.open(wired.port)
        for step in range(10):
            number = (start + step * 7) % 30
            await wire.send(
                market.ask("GET", "/broken", shop=market.scripted)
                if step % 4 == 3
                else market.ask("GET", f"/n{number}", shop=market.scripted)
            )
            answer = await wire.answer()
            assert answer.status == 502 if step % 4 == 3 else answer.body == b"%04d" % number
        wire.close()

    await asyncio.gather(*(caller(start) for start in range(12)))
