"""`tollway migrate`: the schema, up to this version."""

from __future__ import annotations

import asyncio

import click

from gateway.cli.context import settings_for_cli
from gateway.database.migrate import migrate as apply_migrations


@click.command()
def migrate() -> int:
    """Apply the migrations that the database lacks; safe to repeat and to run from several hosts at once."""
    applied = asyncio.run(apply_migrations(settings_for_cli().database.direct.url))
    click.echo("\n".join(f"applied {name}" for name in applied) or "up to date")
    return 0
