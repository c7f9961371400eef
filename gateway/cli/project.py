"""`tollway project`: an operator's hand on projects, for organizations that have shut themselves out."""

from __future__ import annotations

from uuid import UUID

import click

from gateway.cli.context import on_connection
from gateway.database.pool import Connection
from gateway.errors import NotFound
from gateway.projects import allow_list
from gateway.projects.allow_list import Entry
from gateway.projects.projects import FIND


@click.group()
def project() -> None:
    """Show and empty IP allow-lists of projects."""


@project.group("ip-allow")
def ip_allow() -> None:
    """From which addresses a project is reached."""


@ip_allow.command("show")
@click.argument("project_id", type=click.UUID)
def show_command(project_id: UUID) -> None:
    """Show a project's list, one entry a line."""

    async def run(connection: Connection) -> list[Entry]:
        if await FIND.first(connection, project_id) is None:
            raise click.ClickException(f"there is no project {project_id}")
        return await allow_list.LIST.all(connection, project_id)

    click.echo("\n".join(_lines(on_connection(run))) or "everybody: the list is empty")


@ip_allow.command("clear")
@click.argument("project_id", type=click.UUID)
def clear_command(project_id: UUID) -> None:
    """Empty a project's list, so that everybody reaches it again who may."""

    async def run(connection: Connection) -> list[Entry]:
        try:
            return await allow_list.clear(connection, project_id)
        except NotFound:
            raise click.ClickException(f"there is no project {project_id}") from None

    gone = on_connection(run)
    click.echo("\n".join([*(f"removed {line}" for line in _lines(gone)), "the list is empty: everybody reaches it"]))


def _lines(entries: list[Entry]) -> list[str]:
    return [f"{entry.text:<43} {entry.description or ''}".rstrip() for entry in entries]
