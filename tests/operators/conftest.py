"""A gateway of two workers with named operators, and their hands: over HTTP and by command."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.support import forking
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services

ALICE, BOB = "alice-token-of-some-length", "bob-token-of-a-good-length"
OPERATORS = {"SECRETS_OPERATOR_TOKENS": f"alice:{ALICE},bob:{BOB}"}


@dataclass
class Desk:
    """Operators at one gateway."""

    gateway: RunningGateway

    async def call(
        self,
        method: str,
        path: str,
        token: str = ALICE,
        expect: int | None = None,
        more_headers: dict[str, str] | None = None,
        **options: Any,
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}", **(more_headers or {})}
        answer = await self.gateway.client.request(method, f"/operator{path}", headers=headers, **options)
        if expect is not None:
            assert answer.status_code == expect, answer.text
        return answer

    async def suspend(self, kind: str, subject: object, reason: str = "fraud", **more: Any) -> dict[str, Any]:
        body = {"kind": kind, "subject": str(subject), "reason": reason, **more}
        return (await self.call("POST", "/suspensions", json=body, expect=201)).json()["data"]

    async def restore(self, kind: str, subject: object) -> dict[str, Any]:
        body = {"kind": kind, "subject": str(subject)}
        return (await self.call("POST", "/suspensions/restore", json=body, expect=200)).json()["data"]

    async def command(self, *arguments: str) -> tuple[int, str]:
        """Run `tollway …` against the gateway's database; return its exit status and what it said."""
        done = await asyncio.to_thread(forking.run, *arguments, env=self.gateway.environment, merged=True)
        return done.returncode, done.stdout


@pytest_asyncio.fixture(scope="module")
async def gateway(services: Services, database_url: str) -> AsyncIterator[RunningGateway]:
    """Two workers, so that each has to hear of what another one did."""
    running = await start_gateway(services, database_url, WORKERS="2", **OPERATORS)
    yield running
    await running.stop()


@pytest.fixture
def desk(gateway: RunningGateway) -> Desk:
    return Desk(gateway)


async def everywhere(call: Callable[[], Awaitable[httpx.Response]], status: int) -> httpx.Response:
    """Call by new connections until a dozen in a row are answered so: every worker knows by then."""
    in_a_row = 0
    async with asyncio.timeout(60):
        while True:
            answer = await call()
            in_a_row = in_a_row + 1 if answer.status_code == status else 0
            if in_a_row == 12:
                return answer
            await asyncio.sleep(0 if in_a_row else 0.02)
