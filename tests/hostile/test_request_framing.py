"""Requests whose end two readers could see in different places (EX-16 and its class): refused, closed, never forwarded.

Every row is sent raw on a connection of its own with a second request behind it. Required: a 4xx/5xx refusal or a close
without an answer, no byte behind it executed, the connection ended, nothing charged, and no hit at the upstream. Where
a server cannot do that, tests/hostile/servers.py says what holds instead.
"""

from __future__ import annotations

import contextlib
import re

import pytest

from tests.hostile.servers import FRAMING
from tests.hostile.shops import PRICE, Market, Tills
from tests.hostile.wire import QUIET, Wire, request
from tests.support.gateway import RunningGateway
from tests.support.upstream import Recorded, RecordingUpstream
from tests.support.world import Agent

REFUSED = {400, 405, 411, 413, 414, 417, 431, 501, 505}
CLOSED = 0
# {t} is a paid target, {s} what paths begin with, and {k} an agent's key; SMUGGLED stands where a second reader would
# find another request.
SMUGGLED = b"GET {s}/smuggled HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {k}\r\n\r\n"
HEAD = b"POST {t} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {k}\r\n"
CASES: dict[str, bytes] = {
    "TE and CL": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "CL and TE": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "TE gzip, chunked": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "TE chunked, gzip": HEAD + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "TE twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE chunked, chunked": HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "TE identity": HEAD + b"Transfer-Encoding: identity\r\n\r\n",
    "TE unknown": HEAD + b"Transfer-Encoding: cow\r\n\r\n0\r\n\r\n",
    "TE xchunked": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "TE with vertical tab": HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "TE quoted": HEAD + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "TE with semicolon": HEAD + b"Transfer-Encoding: chunked;x=1\r\n\r\n0\r\n\r\n",
    "TE with trailing comma": HEAD + b"Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n",
    "TE empty": HEAD + b"Transfer-Encoding:\r\n\r\n0\r\n\r\n",
    "TE twice, one unknown": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n\r\n0\r\n\r\n",
    "TE under HTTP/1.0": b"POST {t} HTTP/1.0\r\nHost: gateway\r\nAuthorization: Bearer {k}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE name with blank": HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "CL twice, different": HEAD + b"Content-Length: 0\r\nContent-Length: 60\r\n\r\n",
    "CL list": HEAD + b"Content-Length: 0, 60\r\n\r\n",
    "CL negative": HEAD + b"Content-Length: -1\r\n\r\n",
    "CL plus": HEAD + b"Content-Length: +5\r\n\r\nhello",
    "CL hex": HEAD + b"Content-Length: 0x5\r\n\r\nhello",
    "CL words": HEAD + b"Content-Length: five\r\n\r\nhello",
    "CL empty": HEAD + b"Content-Length:\r\n\r\n",
    "CL fraction": HEAD + b"Content-Length: 5.0\r\n\r\nhello",
    "CL underscore": HEAD + b"Content-Length: 1_0\r\n\r\n0123456789",
    "CL too large": HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "CL twice, equal": HEAD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "CL with vertical tab": HEAD + b"Content-Length: \x0b5\r\n\r\nhello",
    "CL in other digits": HEAD + b"Content-Length: \xd9\xa5\r\n\r\nhello",
    "CL name with blank": HEAD + b"Content-Length : 5\r\n\r\nhello",
    "obs-fold": HEAD + b"X-Folded: a\r\n Transfer-Encoding: chunked\r\n\r\n",
    "obs-fold on the first field": b"GET {t} HTTP/1.1\r\n Host: gateway\r\nAuthorization: Bearer {k}\r\n\r\n",
    "bare CR in a value": HEAD + b"X-A: a\rTransfer-Encoding: chunked\r\n\r\n",
    "NUL in a value": HEAD + b"X-A: a\x00b\r\n\r\n",
    "NUL in a name": HEAD + b"X\x00A: b\r\n\r\n",
    "control in a value": HEAD + b"X-A: a\x01b\r\n\r\n",
    "no colon": HEAD + b"garbage\r\n\r\n",
    "empty name": HEAD + b": value\r\n\r\n",
    "name with parenthesis": HEAD + b"X(A): value\r\n\r\n",
    "chunk size is a word": HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\nhello\r\n0\r\n\r\n",
    "chunk size negative": HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nhello\r\n0\r\n\r\n",
    "chunk size 0x5": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
    "chunk size overflows": HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "chunk longer than it says": HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n",
    "chunk ends with bare LF": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n",
    "chunk size ends with bare LF": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
    "chunk size plus": HEAD + b"Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n",
    "chunk size with blank before": HEAD + b"Transfer-Encoding: chunked\r\n\r\n 5\r\nhello\r\n0\r\n\r\n",
    "chunk extension with bare CR": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;a\rb\r\nhello\r\n0\r\n\r\n",
    "chunk extension without end": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;" + b"a" * 200_000,
    "chunk without size": HEAD + b"Transfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n",
    "bare LF for line ends": b"GET {t} HTTP/1.1\nHost: gateway\nAuthorization: Bearer {k}\n\n",
    "bare LF in a value": HEAD + b"X-A: a\nX-B: b\r\n\r\n",
    "DEL in a value": HEAD + b"X-A: a\x7fb\r\n\r\n",
    "8 bits in a name": HEAD + b"X-\xc9: b\r\n\r\n",
    "empty Host": b"GET {t} HTTP/1.1\r\nHost:\r\nAuthorization: Bearer {k}\r\n\r\n",
    "missing Host": b"GET {t} HTTP/1.1\r\nAuthorization: Bearer {k}\r\n\r\n",
    "two Hosts": b"GET {t} HTTP/1.1\r\nHost: gateway\r\nHost: other\r\nAuthorization: Bearer {k}\r\n\r\n",
    "Host with a path": b"GET {t} HTTP/1.1\r\nHost: gateway/x\r\nAuthorization: Bearer {k}\r\n\r\n",
    "Host with userinfo": b"GET {t} HTTP/1.1\r\nHost: a@gateway\r\nAuthorization: Bearer {k}\r\n\r\n",
    "Host list": b"GET {t} HTTP/1.1\r\nHost: gateway, other\r\nAuthorization: Bearer {k}\r\n\r\n",
    "two Idempotency-Keys": HEAD + b"Idempotency-Key: a\r\nIdempotency-Key: b\r\n\r\n",
    "two Authorizations": HEAD + b"Authorization: Bearer seren_x\r\n\r\n",
    "HTTP/2.0 in text": b"GET {t} HTTP/2.0\r\nHost: gateway\r\nAuthorization: Bearer {k}\r\n\r\n",
    "HTTP/9.9": b"GET {t} HTTP/9.9\r\nHost: gateway\r\nAuthorization: Bearer {k}\r\n\r\n",
    "HTTP/0.9": b"GET {t}\r\n\r\n",
    "http/1.1 in small letters": b"GET {t} http/1.1\r\nHost: gateway\r\nAuthorization: Bearer {k}\r\n\r\n",
    "space in the target": b"GET {t} /x HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {k}\r\n\r\n",
    "two blanks": b"GET  {t} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {k}\r\n\r\n",
    "tab for a blank": b"GET\t{t}\tHTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {k}\r\n\r\n",
    "small-letter method": b"get {t} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {k}\r\n\r\n",
    "mixed-case method": b"Post {t} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {k}\r\n\r\n",
    "method is no token": b"G(T {t} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {k}\r\n\r\n",
    "method with 8 bits": b"G\xc9T {t} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {k}\r\n\r\n",
    "TRACE": b"TRACE {t} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {k}\r\n\r\n",
    "TRACK": b"TRACK {t} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {k}\r\n\r\n",
    "CONNECT": b"CONNECT {t} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {k}\r\n\r\n",
    "CONNECT authority": b"CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: gateway\r\n\r\n",
    "control in the target": b"GET {t}/\x01 HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {k}\r\n\r\n",
    "8 bits in the target": b"GET {t}/\xe9 HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {k}\r\n\r\n",
    "fragment in the target": b"GET {t}#x HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {k}\r\n\r\n",
    "fields of 100 KB": HEAD + b"X-Long: " + b"a" * 100_000 + b"\r\n\r\n",
    "5000 fields": HEAD + b"".join(b"X-%d: 1234567\r\n" % number for number in range(5000)) + b"\r\n",
    "target of 100 KB": b"GET {t}/"
    + b"a" * 100_000
    + b" HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {k}\r\n\r\n",
    "target of 9 KB": b"GET {t}/" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {k}\r\n\r\n",
    "SSH hello": b"SSH-2.0-OpenSSH_9.9\r\n",
    "TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64,
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}

# Refused while its body is streamed: the upstream may have seen the head, never a complete body.
WHILE_STREAMING = {case for case in CASES if case.startswith("chunk ")}
TWO_LENGTHS = {"TE and CL", "CL and TE"}
MARK = re.compile("/[0-9a-f]{32}")


def filled(raw: bytes, market: Market, agent: Agent) -> bytes:
    """Name in the paths whose request it is: one that is refused while it streams may reach the upstream later."""
    below = f"/publishers/{market.plain.slug}/{agent.id.hex}".encode()
    return raw.replace(b"{t}", below + b"/x").replace(b"{s}", below).replace(b"{k}", agent.key.encode())


def reached(upstream: RecordingUpstream, agent: Agent) -> list[Recorded]:
    """Return what has reached the upstream and is not known to be another case's."""
    return [one for one in upstream.requests if MARK.findall(one.request_line) in ([], [f"/{agent.id.hex}"])]


async def outcome(port: int, raw: bytes, answers: int, seconds: float) -> tuple[int, bytes, bool]:
    """Return the status (0: closed without one, -1: silence), what came behind the answers, and whether it closed."""
    wire = await Wire.open(port)
    await wire.send(raw)
    try:
        statuses = [(await wire.answer(seconds=seconds)).status for _ in range(answers)]
        behind = b"" if answers > 1 else await wire.rest()
        return statuses[0], behind, wire.reader.at_eof()
    except EOFError:
        return CLOSED, b"", True
    except TimeoutError:
        return -1, b"", False
    finally:
        wire.close()


@pytest.mark.parametrize("case", CASES)
async def test_a_request_with_two_readings_is_refused_and_ends_the_connection(
    wired: RunningGateway, server: str, market: Market, tills: Tills, upstream: RecordingUpstream, case: str
) -> None:
    agent = await tills.agent(case)
    upstream.forget()
    difference = FRAMING.get((server, case))
    kind = "" if difference is None else difference.kind
    raw = filled(CASES[case] + SMUGGLED, market, agent)
    status, behind, closed = await outcome(
        wired.port, raw, answers=2 if kind == "one by one" else 1, seconds=1 if kind == "waits" else QUIET
    )
    seen = [MARK.sub("", one.request_line).removesuffix(" HTTP/1.1") for one in reached(upstream, agent)]
    whole = [one.body_digest for one in reached(upstream, agent) if one.body_digest]
    if difference is not None:
        assert difference.holds(status, seen, closed, whole), (status, seen, closed)
        await tills.expect(agent, difference.paid * PRICE)
        return
    assert status in ({400} if case in TWO_LENGTHS else REFUSED | {CLOSED}), (status, seen)
    assert whole == [] if case in WHILE_STREAMING else seen == []
    assert (behind, closed) == (b"", True)
    await tills.expect(agent, 0)


@pytest.mark.parametrize("upgrade", ["foo", "h2c", "TLS/1.0"])
async def test_a_body_behind_an_upgrade_is_a_body_or_refused_but_never_a_request(
    wired: RunningGateway, market: Market, tills: Tills, upstream: RecordingUpstream, upgrade: str
) -> None:
    agent = await tills.agent(upgrade)
    body = filled(SMUGGLED, market, agent)
    head = filled(HEAD, market, agent) + b"Connection: Upgrade\r\nUpgrade: %b\r\n" % upgrade.encode()
    upstream.forget()
    wire = await Wire.open(wired.port)
    await wire.send(head + b"Content-Length: %d\r\n\r\n" % len(body))
    await wire.send(body)
    answer = await wire.answer()
    wire.close()
    assert answer.status in (200, 400)
    assert [one.method for one in upstream.requests] == (["POST"] if answer.status == 200 else [])
    await tills.expect(agent, PRICE if answer.status == 200 else 0)


@pytest.mark.parametrize("behind", [b"\r\n", b"\0", SMUGGLED], ids=["blank line", "NUL", "request"])
async def test_what_follows_the_last_request_of_a_connection_is_forgotten(
    wired: RunningGateway, market: Market, tills: Tills, upstream: RecordingUpstream, behind: bytes
) -> None:
    """RFC 9112 section 9.6: whoever sent Connection: close sends no further request, and gets the answer to this one."""
    agent = await tills.agent("last")
    upstream.forget()
    last = request("GET", f"/publishers/{market.plain.slug}/x", "Connection: close", key=agent.key)
    status, rest, closed = await outcome(wired.port, last + filled(behind, market, agent), answers=1, seconds=QUIET)
    assert (status, rest, closed, upstream.calls) == (200, b"", True, 1)
    await tills.expect(agent, PRICE)


@pytest.mark.parametrize("reason", ["unknown slug", "bad key", "no funds", "climbs", "admin"])
@pytest.mark.parametrize("apart", [False, True], ids=["at once", "later"])
async def test_the_body_of_a_refused_call_is_never_read_as_a_request(
    wired: RunningGateway, market: Market, tills: Tills, upstream: RecordingUpstream, reason: str, apart: bool
) -> None:
    """The refusal comes before the body is read; what then comes is that body still."""
    agent = await tills.agent(reason)
    inner = filled(SMUGGLED, market, agent)
    path = {"unknown slug": "/publishers/nobody-here/x", "admin": "/agent/wallet"}.get(reason, "/publishers/%s/x")
    path = path.replace("%s", market.plain.slug) + ("/%2e%2e/y" if reason == "climbs" else "")
    key = {"bad key": "seren_x", "no funds": ""}.get(reason, agent.key)
    head = request("POST", path, f"Content-Length: {len(inner)}", key=key)
    upstream.forget()
    sentinel = request("GET", "/publishers/nobody-here/sentinel")
    wire = await Wire.open(wired.port)
    await wire.send(head if apart else head + inner + sentinel)
    answer = await wire.answer()
    if apart:
        await wire.send(inner + sentinel)
    with contextlib.suppress(EOFError, ConnectionError):
        assert (await wire.answer()).status == 404, "not the sentinel was answered"
    wire.close()
    assert (answer.status // 100, upstream.calls) == (4, 0)
    await tills.expect(agent, 0)


async def test_every_stated_difference_is_of_a_case_that_is_tested() -> None:
    assert {case for _, case in FRAMING} <= set(CASES)
