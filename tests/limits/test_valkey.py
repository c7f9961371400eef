"""The connection answers in order, reaches every kind of address, and never leaves a caller waiting."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.limits.valkey import Address, Valkey, ValkeyRefused, ValkeyUnavailable, parse, parse_nodes

PASSWORD = "p@ss:w/rd"  # as in conftest.py
LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://cache", Address(host="cache")),
        ("redis://:s%40c@[::1]:7000/3", Address(host="::1", port=7000, database=3, password="s@c")),
        ("rediss://me:pw@cache:1/0", Address(host="cache", port=1, tls=True, user="me", password="pw")),
        ("unix:///run/v.sock?db=2", Address(path="/run/v.sock", database=2)),
        ("unix://me:pw@/run/v.sock", Address(path="/run/v.sock", user="me", password="pw")),
    ],
)
def test_every_kind_of_url_is_read(url: str, address: Address) -> None:
    assert parse(url) == address


@pytest.mark.parametrize("url", ["redis://:hunter2@h:port/0", "redis://:hunter2@h/x", "http://:hunter2@h"])
def test_a_wrong_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match=r"redis\.url") as caught:
        parse(url)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(parse("redis://:hunter2@h"))


def test_the_nodes_of_a_cluster_are_read() -> None:
    login = {"user": "u@", "password": "p:/w"}
    assert parse_nodes("redis+cluster://u%40:p%3A%2Fw@one:7000,[::1]:7001,two") == [
        Address("one", 7000, **login), Address("::1", 7001, **login), Address("two", 6379, **login),
    ]  # fmt: skip
    assert parse_nodes("rediss+cluster://one:7000/") == [Address("one", 7000, tls=True)]


@pytest.mark.parametrize("hosts", ["", "secret@one:7000/1", "secret@one:seven", "secret@one,two/3", ":secret@one?db=1"])
def test_a_wrong_list_of_nodes_is_refused_without_its_password(hosts: str) -> None:
    with pytest.raises(ValueError, match=r"redis\.url: use") as caught:
        parse_nodes(f"redis+cluster://{hosts}")
    assert "secret" not in str(caught.value)


async def patiently(valkey: Valkey) -> None:
    """Wait until the server answers: after a failure there is a pause between attempts, and the machine may be busy."""
    async with asyncio.timeout(60):
        while await outcome(valkey.execute("PING")) != b"PONG":
            await asyncio.sleep(0.02)


@asynccontextmanager
async def connection(settings) -> AsyncIterator[Valkey]:
    valkey = Valkey(settings)
    try:
        yield valkey
    finally:
        await valkey.close()


def run(loop: Callable[[], asyncio.AbstractEventLoop], main) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


@LOOPS
def test_replies_match_their_commands_in_order(server, principal: str, loop) -> None:
    async def main() -> None:
        async with connection(server.settings()) as valkey:
            replies = await asyncio.gather(*(valkey.execute("ECHO", f"{principal}-{n}") for n in range(500)))
            assert replies == [f"{principal}-{n}".encode() for n in range(500)]
            assert await valkey.execute(b"INCRBY", principal, 2**40) == 2**40

    run(loop, main)


@LOOPS
def test_login_by_user_and_database_over_tcp_and_unix_socket(server, principal: str, loop) -> None:
    login = f"tester:{quote(PASSWORD, safe='')}@"

    async def main() -> None:
        async with connection(server.settings(f"unix://{login}{server.socket}?db=2")) as valkey:
            await valkey.execute("SET", principal, "here", "PX", 5_000)
            assert await valkey.execute("ACL", "WHOAMI") == b"tester"
        async with connection(server.settings(f"redis://{login}127.0.0.1:{server.port}/2")) as valkey:
            assert await valkey.execute("GET", principal) == b"here"

    run(loop, main)


async def test_a_wrong_password_counts_as_unavailable_and_is_not_told(server) -> None:
    async with connection(server.settings(f"redis://tester:hunter2@127.0.0.1:{server.port}")) as valkey:
        with pytest.raises(ValkeyUnavailable, match="WRONGPASS") as caught:
            await valkey.execute("PING")
        assert "hunter2" not in str(caught.value)


async def test_an_error_reply_fails_its_own_command_only(server, principal: str) -> None:
    async with connection(server.settings()) as valkey:
        good, bad, last = await asyncio.gather(
            valkey.execute("SET", principal, "x"),
            valkey.execute("INCR", principal),
            valkey.execute("DEL", principal),
            return_exceptions=True,
        )
        assert (good, last) == (b"OK", 1)
        assert isinstance(bad, ValkeyRefused)
        assert bad.code == "ERR"


async def test_a_cancelled_caller_does_not_shift_the_replies_of_others(server) -> None:
    async with connection(server.settings()) as valkey:
        await valkey.execute("PING")
        given_up = asyncio.create_task(valkey.execute("ECHO", "given up"))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(valkey.execute("ECHO", "kept"))
        await asyncio.sleep(0)
        given_up.cancel()
        assert await waiting == b"kept"


@LOOPS
def test_a_killed_server_fails_what_is_pending_and_its_successor_is_found(server, loop) -> None:
    async def main() -> None:
        async with connection(server.settings(command_timeout=5)) as valkey:
            await valkey.execute("PING")
            server.freeze()
            pending = [asyncio.create_task(valkey.execute("PING")) for _ in range(10)]
            await asyncio.sleep(0.05)
            server.kill()
            results = await asyncio.gather(*pending, return_exceptions=True)
            assert {type(result) for result in results} == {ValkeyUnavailable}
            with pytest.raises(ValkeyUnavailable):
                await valkey.execute("PING")
            server.start()
            await patiently(valkey)

    run(loop, main)


@LOOPS
def test_a_frozen_server_costs_the_command_timeout_and_no_more(server, loop) -> None:
    async def main() -> None:
        async with connection(server.settings(command_timeout=0.2)) as valkey:
            await patiently(valkey)
            server.freeze()
            try:
                with pytest.raises(ValkeyUnavailable, match=r"within 0\.2 s"):
                    await asyncio.wait_for(valkey.execute("PING"), 30)
            finally:
                server.thaw()
            await patiently(valkey)

    run(loop, main)


async def test_while_nobody_listens_commands_fail_at_once_between_attempts(server, monkeypatch) -> None:
    for pause in ("FIRST_PAUSE", "LONGEST_PAUSE"):
        monkeypatch.setattr(f"gateway.limits.valkey.{pause}", 3_600.0)
    server.kill()
    async with connection(server.settings()) as valkey:
        with pytest.raises(ValkeyUnavailable):
            await valkey.execute("PING")
        with pytest.raises(ValkeyUnavailable, match="a moment ago"):
            await valkey.execute("PING")


async def test_a_server_that_accepts_and_says_nothing_is_given_up(server) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with listening(silent) as port:
        url = f"redis://:pw@127.0.0.1:{port}"
        async with connection(server.settings(url, command_timeout=0.1, connect_timeout=0.2)) as valkey:
            with pytest.raises(ValkeyUnavailable):
                await valkey.execute("PING")


@pytest.mark.parametrize("nonsense", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"+OK\r\n+OK\r\n+OK\r\n"])
async def test_a_server_that_talks_nonsense_is_dropped(server, nonsense: bytes) -> None:
    """Not an answer, or more answers than questions: whatever came next could be somebody else's reply."""
    dropped = asyncio.Event()

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(nonsense)
        with suppress(OSError):
            while await reader.read(65_536):
                pass
        dropped.set()
        writer.close()

    async with listening(babble) as port:
        settings = server.settings(f"redis://127.0.0.1:{port}", connect_timeout=3_600, command_timeout=3_600)
        async with connection(settings) as valkey:
            await asyncio.wait_for(outcome(valkey.execute("PING")), 60)
            await asyncio.wait_for(dropped.wait(), 60)  # no timeout of ours: the nonsense was noticed


async def test_close_fails_what_waits_even_while_connecting(server) -> None:
    valkey = Valkey(server.settings())
    first = asyncio.create_task(valkey.execute("PING"))
    await asyncio.sleep(0)
    await valkey.close()
    assert await outcome(first) is ValkeyUnavailable


async def test_tls_is_spoken_and_the_certificate_checked(server, tmp_path: Path, monkeypatch) -> None:
    certificate = self_signed(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(pump(reader, forth), pump(back, writer))

    async with listening(relay, context) as port:
        url = f"rediss://localhost:{port}"
        async with connection(server.settings(url)) as valkey:
            with pytest.raises(ValkeyUnavailable, match="certificate"):
                await valkey.execute("PING")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        async with connection(server.settings(url)) as valkey:
            assert await valkey.execute("PING") == b"PONG"


async def outcome(answer) -> object:
    try:
        return await answer
    except ValkeyUnavailable:
        return ValkeyUnavailable


@asynccontextmanager
async def listening(serve, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        await asyncio.sleep(0.05)  # let the handlers see the end of their streams


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
    except OSError:
        pass
    writer.close()


def self_signed(folder: Path) -> Path:
    """Write a certificate for localhost and its key into one file and return its path."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
    builder = builder.add_extension(names, critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    certificate = builder.sign(key, hashes.SHA256())
    plain = serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    path = folder / "localhost.pem"
    path.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain) + certificate.public_bytes(pem)
    )  # fmt: skip
    return path
