"""`python -m benchmarks.x402`: calls paid on a chain through the gateway, beside the official SDKs' servers.

One local chain with real USDC, one upstream, one load generator; every call brings a fresh payment that was signed just
before. The rounds of all sellers alternate.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from benchmarks import machine
from benchmarks.cases import DEFAULT_SERVER, SERVERS
from benchmarks.options import Listed, interrupt, without_places
from benchmarks.stack import ROOT
from benchmarks.x402.books import prove
from benchmarks.x402.report import PaidReport
from benchmarks.x402.rounds import Blocks, Meter, PaidRow
from benchmarks.x402.stack import PaidStack, running
from gateway.database.pool import connect
from gateway.devservices.processes import ServiceError
from gateway.payments.evm.encoding import parse_address
from gateway.payments.evm.node import Node
from gateway.payments.evm.rpc import Rpc
from gateway.settings import DatabaseSettings

SDKS = ("fastapi", "express", "none")
WARM_SECONDS = 2
SPARE = 1_000  # payments beside those that the last round suggests


@click.command()
@click.option("--quick", is_flag=True, help="One short round on instant blocks: does it work at all?")
@click.option("--connections", type=click.IntRange(1, 1000), default=50, show_default=True)
@click.option("--seconds", type=click.IntRange(1, 120), default=8, show_default=True, help="Length of a round.")
@click.option("--rounds", type=click.IntRange(1, 100), default=3, show_default=True)
@click.option("--blocks", type=Listed("kinds", ("instant", "2")), default="instant,2", show_default=True)
@click.option("--against", type=Listed("servers", SDKS), default="fastapi,express", show_default=True)
@click.option("--server", type=click.Choice(SERVERS), default=DEFAULT_SERVER, show_default=True)
@click.option("--wallets", type=click.IntRange(1, 100_000), default=2000, show_default=True, help="Who pay in turn.")
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), default=ROOT / "benchmarks" / "reports")
@click.option("--name", default="", help="Of the report's files; default the date and time.")
def main(*, quick: bool, output: Path, name: str, **options: Any) -> None:
    """Measure paid calls and write a report."""
    if shutil.which("wrk") is None:
        raise SystemExit("benchmarks.x402: there is no wrk on PATH (Debian: apt-get install wrk)")
    signal.signal(signal.SIGTERM, interrupt)
    if quick:
        options |= {"seconds": 3, "rounds": 1, "blocks": ["instant"]}
    if "express" in options["against"] and shutil.which("npm") is None:
        print("no npm: leaving @x402/express out", file=sys.stderr)
        options["against"] = [one for one in options["against"] if one != "express"]
    name = f"{name or datetime.now(UTC).strftime('%Y-%m-%d-%H%M%S')}-x402"
    sdks = tuple(one for one in options["against"] if one != "none")
    try:
        with running(sdks, server=options["server"], wallets=options["wallets"]) as stack:
            report = asyncio.run(measured(stack, options, name))
    except ServiceError as error:
        raise SystemExit(f"benchmarks.x402: {error}") from None
    print(report.markdown())
    print(f"report: {report.write(output).name} in {output}")
    sys.exit(0 if report.valid else 1)


async def measured(stack: PaidStack, options: dict[str, Any], name: str) -> PaidReport:
    """Run all rounds, prove the books, and return what was found."""
    started, load = datetime.now(UTC).isoformat(timespec="seconds"), [_load()]
    node = Node(Rpc(stack.chain.rpc_url, timeout=60))
    connection = await connect(DatabaseSettings(url=stack.services.database_url, command_timeout=3600))
    treasury, usdc = parse_address(stack.chain.treasury), parse_address(stack.chain.usdc)
    try:
        before = await node.token_balance(usdc, treasury)
        meter = Meter(stack, node, connection)
        rows: list[PaidRow] = []
        for kind in options["blocks"]:
            blocks = Blocks(0 if kind == "instant" else int(kind))
            await blocks.begin(node)
            part = [PaidRow(seller, blocks, options["connections"]) for seller in stack.sellers]
            await _measure_all(meter, part, options)
            rows += part
            load.append(_load())
        capacity = meter.capacity(options["connections"], 2)
        proof = await prove(stack, connection, node, rows, before)
    finally:
        await connection.close()
        await node.rpc.aclose()
    command = shlex.join(["python", "-m", "benchmarks.x402", *without_places(sys.argv[1:])])
    return PaidReport(
        name, started, command, options, machine.machine_facts(stack.services.home), load,
        round(capacity["requests"] / capacity["seconds"]), proof, rows,
    )  # fmt: skip


async def _measure_all(meter: Meter, rows: Sequence[PaidRow], options: dict[str, Any]) -> None:
    for row in rows:
        row.warm_ups.append(await meter.measure(row, WARM_SECONDS, 2_000))
    for number in range(1, options["rounds"] + 1):
        for row in rows:
            last = (row.warm_ups + row.rounds)[-1]
            wanted = int(4 * max(last.rate, last.settled_rate) * options["seconds"]) + SPARE
            row.rounds.append(await meter.measure(row, options["seconds"], wanted))
            found = row.rounds[-1]
            print(
                f"round {number}/{options['rounds']}  {row.blocks.name:<15} {row.seller.name:<26} {found.rate:>7.1f}"
                f" calls/s, settled {found.settled_rate:>6.1f}/s{row.complaint(found)}",
                file=sys.stderr,
            )


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}"


if __name__ == "__main__":
    main()
