"""`make run CHAIN=1`: x402 works out of the box, and the printed command pays with the official client, as docs/x402.md
shows."""

from __future__ import annotations

import asyncio
import re
import shlex
import subprocess
from pathlib import Path

import asyncpg
import httpx
import pytest

from gateway.payments.evm.encoding import parse_address
from tests.docs.markdown import ROOT, blocks
from tests.docs.test_quick_starts import assert_shows
from tests.support.chain import Chain
from tests.support.databases import drop_database, replaced
from tests.support.dev import environment, start_program, still_running
from tests.support.services import Services

PAGE = ROOT / "docs" / "x402.md"

pytestmark = pytest.mark.slow


@pytest.fixture
def agreement() -> None:
    """The gateway of this test has a database and a chain of its own."""


async def test_the_printed_command_pays(services: Services, tmp_path: Path) -> None:
    connection = await asyncpg.connect(services.database_url)
    await drop_database(connection, "tw_dev")
    await connection.execute('CREATE DATABASE "tw_dev"')
    await connection.close()
    stores = {
        "TOLLWAY_DATABASE_URL": replaced(services.database_url, "tw_dev"),
        "TOLLWAY_REDIS_URL": services.redis_url,
        "TOLLWAY_DEV_APP": "",
    }
    program = start_program("dev", tmp_path, arguments=("--chain",), **stores)
    try:
        program.line("ready ", 120)
        command = program.line("/", 10).partition("#")[0]
        document = program.document()
        told = document["chain"]
        chain = Chain(
            told["rpc_url"], told["chain_id"], told["network"], parse_address(told["usdc"]),
            parse_address(told["treasury"]), "", tuple(told["funded_keys"]),
        )  # fmt: skip
        (shown,) = [block.text for block in blocks(PAGE) if block.words == ("text", "paid")]
        expected = re.sub(r"0x[0-9a-f]{64}", "…", shown.replace("http://127.0.0.1:8402", document["url"]))
        for turn in range(2):
            done = await asyncio.to_thread(
                subprocess.run, shlex.split(command), env=environment(), capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
            if turn == 0:
                assert_shows(expected, done.stdout)
            assert "X-Cost 0.001 USDC" in done.stdout
            assert '"state":"confirmed"' in done.stdout
        async with httpx.AsyncClient(base_url=document["url"]) as client:
            for slug in document["demo"]["publishers"]:
                shown = (await client.get(f"/publishers/{slug}")).json()["data"]
                if shown["publisher_category"] == "integration":
                    assert [one["network_id"] for one in shown["x402_accepts"]] == [told["network"]]
        await chain.aclose()
    finally:
        assert program.end() == 0
    assert still_running(list(document["pids"].values())) == []
