"""`tollway migrate`: the schema and its reference data, up to this version."""

from __future__ import annotations

import asyncio

import click

from gateway.catalog.assets import store_assets
from gateway.cli.context import settings_for_cli
from gateway.database.migrate import migrate as apply_migrations
from gateway.database.pool import connect
from gateway.networks import Networks, load_networks
from gateway.settings import DatabaseSettings


@click.command()
def migrate() -> int:
    """Apply the migrations that the database lacks, and store the assets of networks.toml.

    Safe to repeat and to run from several hosts at once.
    """
    applied = asyncio.run(_bring_up_to_date(settings_for_cli().database.direct, load_networks()))
    click.echo("\n".join(f"applied {name}" for name in applied) or "up to date")
    return 0


async def _bring_up_to_date(database: DatabaseSettings, networks: Networks) -> list[str]:
    applied = await apply_migrations(database.url)
    connection = await connect(database)
    try:
        await store_assets(connection, networks)
    finally:
        await connection.close()
    return applied
