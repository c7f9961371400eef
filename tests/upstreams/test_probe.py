"""What a try of a publisher's server tells its owner, step by step; and what it never tells."""

from __future__ import annotations

import asyncio
import socket
import ssl

import pytest

from gateway.upstreams.egress import EgressGuard
from gateway.upstreams.http import Origin, Timeouts
from gateway.upstreams.probe import Finding, Prober, probe
from tests.support.certificates import self_signed

from .test_dial import resolving, tls_listener
from .wire import HOST, LOOPBACK, OK, PATIENT, Peer, always, answers, line

QUICK = Timeouts(connect=0.5, first_byte=60, idle=60, total=60)
BRIEF = Timeouts(connect=60, first_byte=0.3, idle=60, total=60)


async def tried(
    origin: Origin, *, guard: EgressGuard | None = None, tls=None, headers=HOST, timeouts: Timeouts = PATIENT
) -> Finding:
    return await probe(Prober(guard or EgressGuard(LOOPBACK), origin, timeouts, tls), b"GET", b"/", headers)


@pytest.mark.parametrize(
    ("status", "outcome", "ok"),
    [
        (200, "answered", True),
        (404, "answered", True),
        (304, "answered", True),
        (307, "redirected", True),
        (401, "unauthorized", False),
        (403, "unauthorized", False),
        (503, "server_error", False),
    ],
)
async def test_an_answer_is_told_by_its_status_and_type_and_not_by_its_content(status, outcome, ok):
    wire = b"HTTP/1.1 %d X\r\nContent-Type: text/plain; charset=x\r\nContent-Length: 6\r\n\r\nsecret" % status
    async with line(always(wire)) as up:
        found = await tried(up.origin)
    assert (found.outcome, found.ok, found.status, found.content_type) == (outcome, ok, status, "text/plain")
    assert str(status) in found.detail
    assert "secret" not in repr(found)
    assert set(found.times) == {"resolve_ms", "connect_ms", "first_byte_ms"}


async def silent(peer: Peer) -> None:
    await peer.request()
    await peer.reader.read()


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        (silent, "answer_timeout"),
        (answers(b"", close=True), "connection_closed"),
        (answers(b"SSH-2.0-OpenSSH\r\n"), "invalid_answer"),
    ],
)
async def test_a_server_that_does_not_answer_in_http(script, outcome):
    async with line(script) as up:
        found = await tried(up.origin, timeouts=BRIEF if script is silent else PATIENT)
    assert (found.outcome, found.ok, found.status) == (outcome, False, None)
    assert set(found.times) == {"resolve_ms", "connect_ms"}
    assert "SSH" not in found.detail


async def test_a_port_where_nobody_listens_and_the_address_stays_untold():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    guard = EgressGuard(LOOPBACK, resolver=resolving("127.0.0.1"))
    found = await tried(Origin("http", "shop.test", port), guard=guard)
    assert (found.outcome, set(found.times)) == ("connect_failed", {"resolve_ms"})
    assert "Connection refused" in found.detail
    assert "127.0.0.1" not in found.detail


async def test_names_without_an_address_and_slow_resolvers():
    async def nowhere(_host: str, _port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def slow(_host: str, _port: int) -> list[str]:
        await asyncio.sleep(1)
        return []

    for resolver in (nowhere, slow):
        found = await tried(Origin("https", "shop.test", 443), guard=EgressGuard(resolver=resolver), timeouts=QUICK)
        assert (found.outcome, found.times) == ("dns_failed", {})
        assert "shop.test" in found.detail
    await asyncio.sleep(0.6)  # the shared resolution ends on its own


@pytest.mark.parametrize("address", ["10.1.2.3", "169.254.169.254", "::1"])
async def test_an_inner_address_is_refused_and_not_told(address):
    found = await tried(Origin("https", "inner.test", 443), guard=EgressGuard(resolver=resolving(address)))
    assert (found.outcome, found.times) == ("address_refused", {})
    assert found.detail.startswith("inner.test resolves to a")
    assert address not in found.detail


@pytest.mark.parametrize(
    ("host", "days", "trusted", "reason"),
    [
        ("upstream.test", (-1, 1), False, "self-signed certificate"),
        ("other.test", (-1, 1), True, "Hostname mismatch"),
        ("upstream.test", (-9, -1), True, "certificate has expired"),
        ("upstream.test", (1, 9), True, "certificate is not yet valid"),
    ],
)
async def test_what_is_wrong_with_a_certificate(tmp_path, host, days, trusted, reason):
    made = self_signed(tmp_path / "tls.pem", host, first_day=days[0], last_day=days[1])
    server, listener, port, _ = await tls_listener(made, always(OK))
    tls = ssl.create_default_context(cafile=str(made)) if trusted else None
    guard = EgressGuard(LOOPBACK, resolver=resolving("127.0.0.1"))
    found = await tried(Origin("https", "upstream.test", port), guard=guard, tls=tls)
    listener.close()
    await server.finish()
    assert (found.outcome, found.tls) == ("tls_failed", None)
    assert reason in found.detail


async def test_the_session_and_certificate_that_were_accepted(certificate):
    server, listener, port, _ = await tls_listener(certificate, always(OK))
    guard = EgressGuard(LOOPBACK, resolver=resolving("127.0.0.1"))
    tls = ssl.create_default_context(cafile=str(certificate))
    found = await tried(Origin("https", "upstream.test", port), guard=guard, tls=tls)
    listener.close()
    await server.finish()
    assert found.ok
    assert found.tls is not None
    assert (found.tls.version, found.tls.issuer) == ("TLSv1.3", "upstream.test")
    assert found.tls.expires_at is not None


async def test_a_request_that_cannot_be_sent_reaches_nobody():
    async with line(always(OK)) as up:
        found = await tried(up.origin, headers=[(b"X", b"a\r\nb: c")])
        assert (found.outcome, up.server.connections) == ("invalid_request", 0)
