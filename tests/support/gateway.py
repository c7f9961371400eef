"""A gateway process for tests: started on a free port, spoken to over its socket, ended by us alone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx

from tests.support import forking, leaks
from tests.support.leaks import SECRET_KEYS
from tests.support.services import Services

ROOT = Path(__file__).resolve().parents[2]
PROBE = "/publishers/-/-"  # answered 404 by the pipeline as soon as it serves


def free_port() -> int:
    """Return a port that was free a moment ago, of those that the kernel gives nobody meanwhile."""
    while True:
        port = secrets.choice(range(12_000, 32_000))
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


_running: dict[str, RunningGateway] = {}


@dataclass
class RunningGateway:
    """A gateway process and its environment. `client` is a plain httpx client with its base URL set."""

    process: forking.Forked | subprocess.Popen[bytes]
    url: str
    environment: dict[str, str]
    log: Path
    client: httpx.AsyncClient = field(repr=False)

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def output(self) -> str:
        """Return everything it has printed so far."""
        return self.log.read_text(errors="replace")

    async def hears(self, slug: str) -> None:
        """Wait until it knows a publisher, by calls that are refused as soon as it does.

        Workers are not told apart: with several, a dozen new connections in a row must find one that knows.
        """
        fields = {
            "Authorization": "Bearer none",
            "SIGN-IN-WITH-X": "none",
        }  # refused before anything is counted or paid
        wanted, knew = 1, 0
        if self.environment.get("TOLLWAY_WORKERS", "1") != "1":
            wanted, fields["Connection"] = 12, "close"
        async with asyncio.timeout(60):
            while knew < wanted:
                answer = await self.client.get(f"/publishers/{slug}/-", headers=fields)
                knew = 0 if "unknown-publisher" in answer.text else knew + 1
                if not knew:
                    await asyncio.sleep(0.01)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal the process, wait for its end and return its exit status."""
        _running.pop(self.url, None)
        await self.client.aclose()
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = await asyncio.to_thread(self.process.wait, 90)
        self._demand_no_secrets()
        return status

    async def kill(self) -> None:
        """End it and all its workers as a power cut would."""
        _running.pop(self.url, None)
        await self.client.aclose()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await asyncio.to_thread(self.process.wait, 90)
        self._demand_no_secrets()

    def _demand_no_secrets(self) -> None:
        leaked = leaks.found_in(self.output())
        assert not leaked, f"the gateway has printed secrets: {leaked[:5]}"


async def start_gateway(
    services: Services, database_url: str, *, module: Sequence[str] = (), **settings: str
) -> RunningGateway:
    """Start `tollway serve`; keyword arguments are environment names without TOLLWAY_ (SERVER="hypercorn").

    `module`: another server that runs the application, as a Python module and its arguments but for `--port`.
    """
    port = free_port()
    environment = gateway_environment(services, database_url, port, **settings)
    log = new_log()
    command = [*module, "--port", str(port)] if module else ["gateway.cli.main", "serve"]
    forked = not module and not forking.fresh(environment)
    process = await asyncio.to_thread(forking.start if forked else partial(_start, command), environment, log)
    authority = settings.get("SERVER_TLS_CERTIFICATE")
    url = f"https://localhost:{port}" if authority else f"http://127.0.0.1:{port}"
    limits = httpx.Limits(max_connections=400, max_keepalive_connections=400)
    verify = ssl.create_default_context(cafile=authority) if authority else True
    client = httpx.AsyncClient(
        base_url=url, timeout=60, limits=limits, verify=verify, event_hooks={"response": [_refuses_without_secrets]}
    )
    running = RunningGateway(process, url, environment, log, client)
    await _until_ready(running)
    _running[url] = running
    return running


def gateway_environment(services: Services, database_url: str, port: int, **settings: str) -> dict[str, str]:
    """Return the environment of a gateway in tests; keyword arguments are as for `start_gateway`."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("TOLLWAY_")},
        "TOLLWAY_PORT": str(port),
        "TOLLWAY_DATABASE_URL": database_url,
        "TOLLWAY_REDIS_URL": services.redis_url,
        "TOLLWAY_SECRET_KEYS": SECRET_KEYS,
        "TOLLWAY_PROXY_ALLOW_ADDRESSES": "127.0.0.0/8",
        "TOLLWAY_PROXY_WAIT": "60",  # a busy machine is none of their business
        "TOLLWAY_REDIS_COMMAND_TIMEOUT": "5",
        "TOLLWAY_SERVER_FAREWELL": "0",  # it has tests of its own
        "TOLLWAY_LIMITS_PER_KEY": "1000000",
        "TOLLWAY_LIMITS_PER_ADDRESS": "1000000",
        "TOLLWAY_LIMITS_GUESSES": "1000000",
        "TOLLWAY_LIMITS_REGISTRATIONS": "1000000",
        **{f"TOLLWAY_{name}": value for name, value in settings.items()},
    }


def new_log() -> Path:
    """Return a fresh file for what a gateway prints."""
    return Path(tempfile.mkstemp(prefix="tw-gateway-", suffix=".log")[1])


async def _refuses_without_secrets(answer: httpx.Response) -> None:
    """Look through a refusal: it may repeat what was wrong, and nothing secret."""
    if answer.headers.get("content-type") == "application/problem+json":
        leaked = leaks.found_in((await answer.aread()).decode())
        assert not leaked, f"{answer.request.method} {answer.request.url.path} was refused with {leaked}"


def _start(command: Sequence[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip


async def hear(database_url: str, slug: str) -> None:
    """Wait until every gateway that runs on a database knows a publisher; one that starts later reads it anyway."""
    for gateway in list(_running.values()):
        if gateway.environment["TOLLWAY_DATABASE_URL"] == database_url and gateway.process.poll() is None:
            await gateway.hears(slug)


async def _until_ready(running: RunningGateway) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if running.process.poll() is not None:
            break
        with contextlib.suppress(httpx.TransportError):
            if (await running.client.get(PROBE)).status_code == 404:
                return
        await asyncio.sleep(0.05)
    running.process.kill()
    raise AssertionError(f"the gateway did not start:\n{running.output()}")
