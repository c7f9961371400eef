"""Connections: to the checked address, over verified TLS, within the timeout."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl

import pytest

from gateway.upstreams.egress import EgressGuard
from gateway.upstreams.http import Origin, PoolCounts, Timeouts, UpstreamClient
from gateway.upstreams.http.dial import alternating
from gateway.upstreams.http.errors import AddressRefused, BrokenBody, ConnectError, ConnectTimeout

from .wire import HOST, LOOPBACK, OK, PATIENT, Server, always, everything, line


def resolving(*addresses: str):
    async def resolver(host: str, port: int):
        return addresses

    return resolver


async def call(guard: EgressGuard, origin: Origin, timeouts: Timeouts = PATIENT, tls=None) -> bytes:
    client = UpstreamClient(guard, max_connections=2, max_idle=2, tls=tls)
    try:
        return await everything(await client.send(origin, b"GET", b"/", HOST, None, timeouts))
    finally:
        await client.aclose()
        assert client.counts == PoolCounts()


async def tls_listener(certificate, script):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    names = []
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    server = Server(script)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context)
    return server, listener, listener.sockets[0].getsockname()[1], names


async def test_tls_is_verified_against_the_name_though_the_address_is_dialled(certificate):
    server, listener, port, names = await tls_listener(certificate, always(OK))
    try:
        guard = EgressGuard(LOOPBACK, resolver=resolving("127.0.0.1"))
        trusting = ssl.create_default_context(cafile=str(certificate))
        assert await call(guard, Origin("https", "upstream.test", port), tls=trusting) == b"ok"
        assert names == ["upstream.test"]
        with pytest.raises(ConnectError, match="certificate refused"):
            await call(guard, Origin("https", "other.test", port), tls=trusting)
        with pytest.raises(ConnectError, match="certificate refused"):  # the default trusts no stranger
            await call(guard, Origin("https", "upstream.test", port))
    finally:
        listener.close()
        await server.finish()
        await listener.wait_closed()


async def test_large_bodies_over_tls(certificate):
    async def script(peer):
        request = await peer.request()
        body = request.partition(b"\r\n\r\n")[2]
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await peer.reader.read()

    server, listener, port, _ = await tls_listener(certificate, script)
    tls = ssl.create_default_context(cafile=str(certificate))
    client = UpstreamClient(
        EgressGuard(LOOPBACK, resolver=resolving("127.0.0.1")), max_connections=1, max_idle=1, tls=tls
    )
    try:
        body = bytes(range(256)) * 12_000
        origin = Origin("https", "upstream.test", port)
        response = await client.send(origin, b"POST", b"/", HOST, body, PATIENT)
        assert await everything(response) == body
        assert client.counts == PoolCounts(open=1, idle=1)
    finally:
        await client.aclose()
        listener.close()
        await server.finish()
        await listener.wait_closed()


@pytest.mark.parametrize("notified", [True, False])
async def test_a_tls_body_until_close_is_whole_only_with_close_notify(certificate, notified):
    """An attacker on the path can end a TCP connection, but not send the TLS alert."""

    async def script(peer):
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        if not notified:
            with socket.socket(fileno=os.dup(peer.writer.get_extra_info("socket").fileno())) as raw:
                raw.shutdown(socket.SHUT_WR)
            await peer.reader.read()

    server, listener, port, _ = await tls_listener(certificate, script)
    try:
        tls = ssl.create_default_context(cafile=str(certificate))
        guard = EgressGuard(LOOPBACK, resolver=resolving("127.0.0.1"))
        request = call(guard, Origin("https", "upstream.test", port), tls=tls)
        if notified:
            assert await request == b"all of it"
        else:
            with pytest.raises(BrokenBody):
                await request
    finally:
        listener.close()
        await server.finish()
        await listener.wait_closed()


async def test_an_http_server_on_a_tls_origin_is_a_connect_error():
    async def script(peer):
        await peer.reader.read(1)
        await peer.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with line(script) as up:
        with pytest.raises(ConnectError, match="TLS") as caught:
            await call(EgressGuard(LOOPBACK), Origin("https", "127.0.0.1", up.port))
        assert caught.value.sent is False


async def test_refused_addresses_are_not_connected():
    async with line(always(OK)) as up:
        for host in ("127.0.0.1", "rebind.test"):
            with pytest.raises(AddressRefused, match="loopback") as caught:
                await call(EgressGuard(resolver=resolving("127.0.0.1")), Origin("http", host, up.port))
            assert caught.value.sent is False
        assert up.server.connections == 0


async def test_one_refused_address_among_good_ones_refuses_the_host():
    with pytest.raises(AddressRefused):
        await call(EgressGuard(resolver=resolving("93.184.215.14", "10.0.0.1")), Origin("http", "mixed.test", 80))


async def test_the_socket_goes_to_the_checked_address_without_a_second_resolution(monkeypatch):
    asked = []

    async def resolver(host, port):
        asked.append(host)
        return ["127.0.0.1"]

    def no_system_resolver(*args, **kwargs):
        raise AssertionError("second resolution")

    async with line(always(OK)) as up:
        monkeypatch.setattr(socket, "getaddrinfo", no_system_resolver)
        assert await call(EgressGuard(LOOPBACK, resolver=resolver), Origin("http", "once.test", up.port)) == b"ok"
    assert asked == ["once.test"]


async def test_the_next_address_is_tried_when_one_fails():
    async with line(always(OK)) as up:
        guard = EgressGuard(LOOPBACK, resolver=resolving("127.0.0.2", "127.0.0.1"))
        assert await call(guard, Origin("http", "two.test", up.port)) == b"ok"


@pytest.mark.parametrize(
    ("found", "tried"),
    [
        ("::1 ::2 ::3 1.1.1.1", "::1 1.1.1.1 ::2 ::3"),
        ("1.1.1.1 ::1 1.1.1.2", "1.1.1.1 ::1 1.1.1.2"),
        ("1.1.1.1 1.1.1.2", "1.1.1.1 1.1.1.2"),
        ("", ""),
    ],
)
def test_address_families_take_turns(found, tried):
    assert alternating(found.split()) == tuple(tried.split())


async def test_a_silent_address_leaves_time_for_the_next():
    with socket.socket() as full:
        full.bind(("127.0.0.2", 0))
        full.listen(0)
        port = full.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        try:
            for filler in fillers:  # the backlog is full: the kernel drops further SYNs
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.2", port))
            await asyncio.sleep(0.05)
            server = Server(always(OK))
            listener = await asyncio.start_server(server.serve, "127.0.0.1", port)
            guard = EgressGuard(LOOPBACK, resolver=resolving("127.0.0.2", "127.0.0.1"))
            assert await call(guard, Origin("http", "two.test", port), Timeouts(3, 60, 60, 60)) == b"ok"
            listener.close()
            await server.finish()
            await listener.wait_closed()
        finally:
            for filler in fillers:
                filler.close()


async def test_nobody_listening():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ConnectError) as caught:
        await call(EgressGuard(LOOPBACK), Origin("http", "127.0.0.1", port))
    assert caught.value.sent is False


async def test_unresolvable():
    async def resolver(host, port):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(ConnectError, match=r"nowhere\.test cannot be resolved"):
        await call(EgressGuard(resolver=resolver), Origin("http", "nowhere.test", 80))


@pytest.mark.parametrize("addresses", [("127.0.0.1",), ("127.0.0.1", "127.0.0.1")])
async def test_no_connection_in_time(addresses):
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        try:
            for filler in fillers:  # the backlog is full: the kernel drops further SYNs
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
            await asyncio.sleep(0.05)
            guard = EgressGuard(LOOPBACK, resolver=resolving(*addresses))
            with pytest.raises(ConnectTimeout) as caught:
                await call(guard, Origin("http", "full.test", port), Timeouts(0.2, 5, 5, 5))
            assert caught.value.sent is False
        finally:
            for filler in fillers:
                filler.close()


async def test_a_slow_resolver_counts_as_connecting():
    async def resolver(host, port):
        await asyncio.sleep(0.5)
        return ["127.0.0.1"]

    with pytest.raises(ConnectTimeout):
        await call(EgressGuard(LOOPBACK, resolver=resolver), Origin("http", "slow.test", 80), Timeouts(0.05, 5, 5, 5))
    await asyncio.sleep(0.5)  # the shared resolution ends on its own


async def test_cancelled_while_connecting():
    async def resolver(host, port):
        await asyncio.sleep(0.2)
        return ["127.0.0.1"]

    client = UpstreamClient(EgressGuard(LOOPBACK, resolver=resolver), max_connections=2, max_idle=2)
    task = asyncio.ensure_future(client.send(Origin("http", "slow.test", 1), b"GET", b"/", HOST, None, PATIENT))
    await asyncio.sleep(0.02)
    assert client.counts == PoolCounts(open=1, in_use=1)
    task.cancel()
    await asyncio.wait([task])
    assert client.counts == PoolCounts()
    await client.aclose()
    await asyncio.sleep(0.25)


async def test_nodelay_is_set():
    async with line(always(OK)) as up:
        await up.get()
        pool = next(iter(up.client._pools.values()))
        connection = next(iter(pool._alive))
        raw = connection._transport.get_extra_info("socket")
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize(
    ("origin", "authority"),
    [
        (Origin("http", "a.test", 80), b"a.test"),
        (Origin("https", "a.test", 443), b"a.test"),
        (Origin("https", "a.test", 80), b"a.test:80"),
        (Origin("http", "2001:db8::1", 80), b"[2001:db8::1]"),
        (Origin("http", "2001:db8::1", 8080), b"[2001:db8::1]:8080"),
    ],
)
def test_authority(origin, authority):
    assert origin.authority == authority
    assert str(origin) == f"{origin.scheme}://{authority.decode()}"
    assert origin == Origin(origin.scheme, origin.host, origin.port)
    assert hash(origin) == hash(Origin(origin.scheme, origin.host, origin.port))
