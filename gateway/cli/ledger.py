"""`tollway ledger`: the proof that the books balance, and the archive of old months."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import click
import orjson

from gateway.catalog.earnings import LONGEST_CALL
from gateway.cli.context import settings_for_cli
from gateway.database.pool import Connection, NotFinished, connect
from gateway.ids import floor_at
from gateway.ledger.archive import ArchiveError, archive, check, manifest_name, moment_of
from gateway.ledger.proof import Report, verify
from gateway.settings import Settings

LEAST_DAYS = 31
LONGEST = 86_400.0  # seconds
ARCHIVES = "archives are what was carried forward"


@click.group()
def ledger() -> None:
    """Look at the ledger and prove it."""


@ledger.command("verify")
@click.option("--json", "as_json", is_flag=True, help="Print the whole report as JSON.")
@click.option(
    "--archive",
    "directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Read the archives in this directory too, and compare them with what was carried forward.",
)
def verify_command(as_json: bool, directory: Path | None) -> int:
    """Recompute every balance from the transfers. Exit status 0 when the books balance, 1 when they do not."""
    report = asyncio.run(_verify(settings_for_cli(), directory))
    click.echo(orjson.dumps(_document(report), option=orjson.OPT_INDENT_2).decode() if as_json else _text(report))
    return 0 if report.sound else 1


@ledger.command("archive")
@click.option("--before", required=True, type=click.DateTime(["%Y-%m-%d"]), help="Months that end by this day, in UTC.")
@click.option(
    "--to",
    "directory",
    required=True,
    type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
    help="Where the files go; outside of the database's machine, and into the backup.",
)
def archive_command(before: datetime, directory: Path) -> int:
    """Write old months to files, keep their sums, and drop their rows. May be stopped at any time and run again.

    A month goes when every call in it has its end, for good, and it is over for as long as refunds may take and as
    earnings are held back, but at least for 31 days.
    """
    settings = settings_for_cli()
    age = timedelta(days=max(LEAST_DAYS, settings.money.refund_grace_days, _held_back(settings)))
    moment = before.replace(tzinfo=UTC)
    if moment > datetime.now(UTC) - age:
        raise click.BadParameter(f"must be {age.days} days ago or more", param_hint="--before")
    asyncio.run(_archive(settings, floor_at(int(moment.timestamp() * 1000)), directory))
    return 0


def _held_back(settings: Settings) -> int:
    """Return for how many days earnings are looked up in the ledger, to hold back the young ones."""
    return math.ceil((timedelta(seconds=settings.payouts.holdback) + LONGEST_CALL) / timedelta(days=1))


async def _archive(settings: Settings, before: UUID, directory: Path) -> None:
    connection = await _connect(settings)
    try:
        number = 0
        async for one in archive(connection, before, directory):
            number += 1
            click.echo(f"archived until {moment_of(one.upto):%Y-%m-%d}: {manifest_name(one.upto)}")
        if not number:
            click.echo("nothing is so old")
    except (ArchiveError, NotFinished) as error:
        raise click.ClickException(str(error)) from error
    finally:
        await connection.close()


async def _connect(settings: Settings) -> Connection:
    """Connect for as long as it takes: these commands read whole months."""
    return await connect(settings.database.direct.model_copy(update={"command_timeout": LONGEST}))


async def _verify(settings: Settings, directory: Path | None) -> Report:
    connection = await _connect(settings)
    try:
        report = await verify(connection)
        wrong = [] if directory is None else await check(connection, directory)
        if wrong:
            report.violations[ARCHIVES] = wrong
        return report
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
        f"{totals.symbol} on {totals.network} (asset {totals.asset}), in atomic units: "
        f"debits {totals.debits} = credits {totals.credits}; "
        f"customers hold {totals.customers}, publishers {totals.publishers}, fees {totals.fees}"
        for totals in report.assets
    ]
    for rule, details in report.violations.items():
        lines.append(f"BROKEN: {rule}")
        lines += [f"  {detail}" for detail in details]
    lines.append("the books balance" if report.sound else "THE BOOKS DO NOT BALANCE")
    return "\n".join(lines)
