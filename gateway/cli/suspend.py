"""`tollway suspend`, `restore` and `suspensions`: what an operator stops, and starts again."""

from __future__ import annotations

import click

from gateway.cli.context import on_database, operator_name
from gateway.database.pool import Database
from gateway.operators import suspending
from gateway.operators.suspending import SuspensionRow
from gateway.settings import Settings
from gateway.suspensions import KINDS, Kind

kind_argument = click.argument("kind", type=click.Choice(KINDS))


@click.command()
@kind_argument
@click.argument("subject")
@click.option("--reason", required=True, help="Shown to the owner, wherever it is refused.")
@click.option("--note", help="For operators only.")
def suspend(kind: Kind, subject: str, reason: str, note: str | None) -> None:
    """Stop a publisher, key, account, organization or wallet. Its owner cannot undo it; `tollway restore` does.

    \b
    SUBJECT is
      a publisher's slug or id
      a key's prefix, key id or id
      an account's id, e-mail address or agent name
      an organization's slug or id
      a wallet: agent:<account id>, or an address 0x… (on every chain)
    """  # fmt: skip
    if not reason.strip():
        raise click.BadParameter("must not be empty", param_hint="--reason")

    async def run(database: Database, _settings: Settings) -> SuspensionRow:
        return await suspending.suspend(
            database, kind, subject, operator=operator_name(), reason=reason.strip(), note=note
        )  # fmt: skip

    click.echo(f"suspended: {_line(on_database(run))}")


@click.command()
@kind_argument
@click.argument("subject")
@click.option("--note", help="For operators only.")
def restore(kind: Kind, subject: str, note: str | None) -> None:
    """End a suspension: everything is as it was before."""

    async def run(database: Database, _settings: Settings) -> SuspensionRow:
        return await suspending.restore(database, kind, subject, operator=operator_name(), note=note)

    click.echo(f"restored: {_line(on_database(run))}")


@click.command()
@click.option("--kind", type=click.Choice(KINDS))
@click.option("--all", "lifted", is_flag=True, help="Also those that were lifted.")
@click.option("--limit", type=click.IntRange(1, 1_000), default=100, show_default=True)
def suspensions(kind: Kind | None, lifted: bool, limit: int) -> None:
    """List suspensions, newest first."""

    async def run(database: Database, _settings: Settings) -> list[SuspensionRow]:
        async with database.acquire() as connection:
            return (await suspending.page(connection, kind, None, lifted=lifted, limit=limit, offset=0))[0]

    for row in on_database(run):
        click.echo(_line(row))


def _line(row: SuspensionRow) -> str:
    name = row.subject if row.label == row.subject else f"{row.label} ({row.subject})"
    lifted = f"  lifted {row.lifted_at:%FT%TZ} by {row.lifted_by}" if row.lifted_at else ""
    note = f"  [{row.note}]" if row.note else ""
    return f"{row.kind} {name}  since {row.since:%FT%TZ} by {row.suspended_by}: {row.reason}{note}{lifted}"
