"""The benchmark of analytics runs, and its sums are the ledger's."""

from __future__ import annotations

import asyncio
import sys

import pytest


@pytest.mark.slow
async def test_it_asks_every_answer_of_both_ledgers_and_compares_the_sums() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.analytics", "--small=50", "--large=500", "--agents=20", "--tail=5",
        "--rounds=2", stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode == 0
    lines = said.decode().splitlines()
    answers = ["revenue", "revenue-by-day", "revenue-by-endpoint", "top-agents", "counts"]
    assert [line.split()[0] for line in lines[1:-1]] == answers
    assert lines[-1] == "the sums agree"
