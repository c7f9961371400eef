"""Calls paid on a chain, beside the official x402 servers: benchmarks.x402 as a part of the report."""

from __future__ import annotations

import asyncio
import shutil
from typing import Any

from benchmarks.experiments.finding import Finding
from benchmarks.tools import MissingTool
from benchmarks.x402.__main__ import measured
from benchmarks.x402.stack import running

SDKS = ("fastapi", "express")


def run(server: str, *, rounds: int, seconds: int, blocks: list[str]) -> Finding:
    """Start its own stack with a local chain and measure our three policies and the official servers."""
    if shutil.which("wrk") is None:
        raise MissingTool("there is no wrk on PATH (Debian: apt-get install wrk)")
    sdks = tuple(sdk for sdk in SDKS if sdk != "express" or shutil.which("npm"))
    options: dict[str, Any] = {
        "connections": 50, "seconds": seconds, "rounds": rounds, "blocks": blocks, "against": list(sdks),
        "server": server, "wallets": 2000,
    }  # fmt: skip
    with running(sdks, server=server, wallets=options["wallets"]) as stack:
        report = asyncio.run(measured(stack, options, "x402"))
    # Its own page begins with a title and its conditions, which the report has already.
    text = report.markdown().split("\n\n", 2)[2].replace("\n## ", "\n### ")
    text = f"### {text.removeprefix('## ')}" if text.startswith("## ") else text
    return Finding("x402", "Calls paid on a chain", report.document(), text.strip(), report.valid)
