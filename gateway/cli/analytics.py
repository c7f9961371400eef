"""`tollway analytics`: the sums by day are what the ledger says, or are made anew from it."""

from __future__ import annotations

import asyncio
import time

import click
import orjson

from gateway.analytics.rollups import LAG, REBUILD, catch_up, differences
from gateway.cli.context import settings_for_cli
from gateway.database.pool import connect
from gateway.settings import Settings

LONGEST = 86_400.0  # seconds: both read the whole ledger


@click.group()
def analytics() -> None:
    """Prove the sums that analytics and usage are answered from, or make them anew."""


@analytics.command("verify")
@click.option("--json", "as_json", is_flag=True, help="Print the differences as JSON.")
def verify_command(as_json: bool) -> int:
    """Recompute every sum from the ledger. Exit status 0 when they are the same, 1 when they are not.

    Days of archived months are compared with their own sums only: their calls are not in the ledger any more.
    """
    found = asyncio.run(_verify(settings_for_cli()))
    if as_json:
        click.echo(orjson.dumps({"sound": not found, "differences": found}, option=orjson.OPT_INDENT_2).decode())
    else:
        click.echo(
            "\n".join([*found, "THE SUMS ARE WRONG: tollway analytics rebuild"] if found else ["the sums agree"])
        )
    return 1 if found else 0


@analytics.command("rebuild")
def rebuild_command() -> None:
    """Make the sums anew from the ledger, in one transaction; answers stay the old ones until it is done.

    What was archived stays as it is.
    """
    asyncio.run(_rebuild(settings_for_cli()))
    click.echo("the sums are made anew")


async def _verify(settings: Settings) -> list[str]:
    connection = await connect(settings.database.direct.model_copy(update={"command_timeout": LONGEST}))
    try:
        return await differences(connection)
    finally:
        await connection.close()


async def _rebuild(settings: Settings) -> None:
    connection = await connect(settings.database.direct.model_copy(update={"command_timeout": LONGEST}))
    try:
        await REBUILD.run(connection)
        await catch_up(connection, LAG, time.monotonic() + LONGEST)
    finally:
        await connection.close()
