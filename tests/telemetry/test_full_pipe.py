"""Nobody reads the gateway's log, or its reader has gone: calls go on, and lines that are lost are counted."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator

import httpx
import pytest

from gateway.telemetry.background import LOST, BackgroundHandler
from tests.support.gateway import ROOT, RunningGateway, free_port
from tests.support.servers import EACH
from tests.support.world import World

PRICE, FUNDS, CALLS = 10_000, 10_000_000, 60
PIPE_BYTES = 4_096

pytestmark = pytest.mark.usefixtures("sound_books")


@contextlib.asynccontextmanager
async def logging_into_a_pipe(
    gateway: RunningGateway, server: str
) -> AsyncIterator[tuple[subprocess.Popen[bytes], httpx.AsyncClient, int]]:
    """Run another gateway beside one, which logs each call into a small pipe. Yields the end to read from as well."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    port = free_port()
    environment = {
        **gateway.environment, "TOLLWAY_PORT": str(port), "TOLLWAY_LOGGING_ACCESS": "true", "TOLLWAY_SERVER": server,
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway.cli.main", "serve"], cwd=ROOT, env=environment, stderr=writer,
        stdout=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    os.close(writer)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            async with asyncio.timeout(60):
                while True:
                    with contextlib.suppress(httpx.TransportError):
                        await client.get("/health/live")
                        break
                    await asyncio.sleep(0.05)
            yield process, client, reader
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.parametrize("server", EACH)
@pytest.mark.parametrize("trouble", ["full", "closed"])
async def test_calls_go_on(gateway: RunningGateway, world: World, server: str, trouble: str) -> None:
    agent, shop = await world.agent(FUNDS), await world.publisher(PRICE)
    async with logging_into_a_pipe(gateway, server) as (process, client, reader):
        if trouble == "closed":
            os.close(reader)
        for _ in range(CALLS):
            answer = await client.get(f"/publishers/{shop.slug}/x", headers=agent.headers)
            assert answer.status_code == 200
        if trouble == "full":
            os.set_blocking(reader, False)
            taken = b""
            async with asyncio.timeout(60):
                while taken.count(b"tollway.access") < CALLS:
                    with contextlib.suppress(BlockingIOError):
                        taken += os.read(reader, 65_536)
                    await asyncio.sleep(0.01)
            assert len(taken) > 2 * PIPE_BYTES, "the pipe was full long before"
        else:
            async with asyncio.timeout(60):
                while "tollway_log_lines_lost_total 0.0" in (await client.get("/metrics")).text:
                    await asyncio.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 60) == 0
        if trouble == "full":
            os.close(reader)
    assert await world.balance(agent) == FUNDS - CALLS * PRICE


def test_what_does_not_fit_is_dropped_and_counted() -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    handler, before = BackgroundHandler(writer, most=1_000), LOST.count
    for _ in range(100):
        handler.handle(logging.makeLogRecord({"msg": "x" * 99}))
    with os.fdopen(reader, "rb") as lines:
        lost = LOST.count - before
        assert lost > 0
        for _ in range(100 - lost):
            assert lines.readline() == b"x" * 99 + b"\n"
        handler.flush()
