"""TLS by the gateway itself: calls and WebSockets on every server, and plain words about files that do not fit."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect

from tests.support.certificates import self_signed
from tests.support.dev import tollway
from tests.support.gateway import RunningGateway
from tests.support.leaks import SECRET_KEYS
from tests.support.sockets import SocketUpstream
from tests.support.upstream import RecordingUpstream
from tests.support.world import World

pytestmark = pytest.mark.usefixtures("sound_books")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return self_signed(tmp_path_factory.mktemp("tls") / "localhost.pem", "localhost")


@pytest.fixture(scope="module")
def settings(certificate: Path) -> dict[str, str]:
    return {"SERVER_TLS_CERTIFICATE": str(certificate), "SERVER_TLS_KEY": str(certificate)}


@pytest_asyncio.fixture
async def trust(certificate: Path) -> AsyncIterator[ssl.SSLContext]:
    yield ssl.create_default_context(cafile=certificate)


async def test_a_paid_call_over_tls(
    wired: RunningGateway, world: World, upstream: RecordingUpstream, trust: ssl.SSLContext
) -> None:
    agent, shop = await world.agent(1_000_000), await world.publisher(10_000)
    upstream.forget()
    answer = await wired.client.get(f"/publishers/{shop.slug}/x", headers=agent.headers)
    assert (answer.status_code, answer.headers["x-cost"]) == (200, "0.01")
    assert upstream.requests[0].all("x-forwarded-proto") == ["https"]
    unpaid = await wired.client.get(f"/publishers/{shop.slug}/x")
    assert unpaid.json()["resource"]["url"].startswith("https://")
    with pytest.raises(httpx.TransportError):
        await httpx.AsyncClient().get(f"http://127.0.0.1:{wired.port}/publishers")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_tls_before_1_2_is_refused(wired: RunningGateway, trust: ssl.SSLContext) -> None:
    trust.minimum_version = ssl.TLSVersion.TLSv1
    trust.maximum_version = ssl.TLSVersion.TLSv1_1
    trust.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("localhost", wired.port, ssl=trust)


async def test_a_websocket_over_tls(
    wired: RunningGateway, world: World, sockets: SocketUpstream, trust: ssl.SSLContext
) -> None:
    agent = await world.agent(1_000_000)
    shop = await world.publisher(10_000, api_url=sockets.url, websocket_enabled=True)
    url = f"wss://localhost:{wired.port}/publishers/{shop.slug}/hello/you"
    async with connect(url, additional_headers=agent.headers, ssl=trust, proxy=None) as socket:
        assert await socket.recv() == "you"
    assert sockets.last.request.headers["X-Forwarded-Proto"] == "https"


@pytest.mark.parametrize("kind", ["missing", "nonsense", "mismatch"])
def test_files_that_do_not_fit_are_one_line(tmp_path: Path, certificate: Path, kind: str) -> None:
    key = tmp_path / "key.pem"
    if kind == "nonsense":
        key.write_text("not a key")
    elif kind == "mismatch":
        self_signed(key, "other")
    files = {"TOLLWAY_SERVER_TLS_CERTIFICATE": str(certificate), "TOLLWAY_SERVER_TLS_KEY": str(key)}
    ended = tollway("serve", TOLLWAY_LOG_LEVEL="warning", TOLLWAY_SECRET_KEYS=SECRET_KEYS, **files)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"tollway: TLS with {certificate} and {key}: ")


def test_a_certificate_without_a_key_is_a_wrong_setting(certificate: Path) -> None:
    ended = tollway("config", "check", TOLLWAY_SERVER_TLS_CERTIFICATE=str(certificate))
    assert ended.returncode == 2
    assert "tls_certificate and tls_key belong together" in ended.stderr
