"""`tollway ledger`: the proof that the books balance."""

from __future__ import annotations

import asyncio
import dataclasses

import click
import orjson

from gateway.cli.context import settings_for_cli
from gateway.database.pool import connect
from gateway.ledger.proof import Report, verify
from gateway.settings import Settings


@click.group()
def ledger() -> None:
    """Look at the ledger and prove it."""


@ledger.command("verify")
@click.option("--json", "as_json", is_flag=True, help="Print the whole report as JSON.")
def verify_command(as_json: bool) -> int:
    """Recompute every balance from the transfers. Exit status 0 when the books balance, 1 when they do not."""
    report = asyncio.run(_verify(settings_for_cli()))
    click.echo(orjson.dumps(_document(report), option=orjson.OPT_INDENT_2).decode() if as_json else _text(report))
    return 0 if report.sound else 1


async def _verify(settings: Settings) -> Report:
    connection = await connect(settings.database.direct)
    try:
        return await verify(connection)
    finally:
        await connection.close()


def _document(report: Report) -> dict[str, object]:
    """Return the report as JSON data; amounts are strings, because an 18-decimals asset exceeds 64 bits."""
    return {
        "sound": report.sound,
        "transfers": report.transfers,
        "accounts": report.accounts,
        "open_exchanges": report.open_exchanges,
        "pending_holds": report.pending_holds,
        "assets": [
            {name: str(value) for name, value in dataclasses.asdict(totals).items()} for totals in report.assets
        ],
        "violations": report.violations,
    }


def _text(report: Report) -> str:
    lines = [
        f"{report.transfers} transfers, {report.accounts} accounts, "
        f"{report.open_exchanges} open exchanges, {report.pending_holds} pending holds"
    ]
    lines += [
        f"asset {totals.asset}: debits {totals.debits} = credits {totals.credits}; "
        f"customers hold {totals.customers}, publishers {totals.publishers}, fees {totals.fees}"
        for totals in report.assets
    ]
    for rule, details in report.violations.items():
        lines.append(f"BROKEN: {rule}")
        lines += [f"  {detail}" for detail in details]
    lines.append("the books balance" if report.sound else "THE BOOKS DO NOT BALANCE")
    return "\n".join(lines)
