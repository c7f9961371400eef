"""`tollway oauth`: the OAuth providers of all organizations, and those that an operator makes the platform's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar
from uuid import UUID

import click

from gateway.audit.entries import record
from gateway.audit.origin import Origin, acting
from gateway.cli.context import settings_for_cli
from gateway.database.pool import Connection, UniqueViolation, connect
from gateway.identity.oauth_providers import DELETE_PROVIDER, FIND_ANY, LIST_EVERY, SHARE_PROVIDER, Provider
from gateway.upstreams.egress import EgressRefused, canonical_host

Result = TypeVar("Result")
SECRET = ("client_secret",)


@click.group()
def oauth() -> None:
    """List OAuth providers, make one the platform's, and remove one."""


@oauth.command("list")
def list_command() -> None:
    """List every provider, the platform's first."""

    async def run(connection: Connection) -> list[str]:
        return list(_lines(await LIST_EVERY.all(connection)))

    click.echo("\n".join(_with_connection(run)) or "there are no OAuth providers")


@oauth.command("share")
@click.argument("provider", type=click.UUID)
@click.option("--host", "hosts", multiple=True, required=True, help="A server that tokens may go to; repeatable.")
def share_command(provider: UUID, hosts: tuple[str, ...]) -> None:
    """Make a provider the platform's: everybody connects to it by its slug, every organization's publishers use it.

    Anybody may publish, so its tokens go to the servers named here and to no others. Its organization has it no longer.
    """
    try:
        named = sorted({canonical_host(host) for host in hosts})
    except EgressRefused as error:
        raise click.BadParameter(str(error), param_hint="--host") from None

    async def run(connection: Connection) -> str:
        found = await _find(connection, provider)
        async with connection.transaction():
            try:
                await SHARE_PROVIDER.run(connection, provider, named)
            except UniqueViolation:
                raise click.ClickException(f"the platform has a provider {found.slug}") from None
            after = await FIND_ANY.one(connection, provider)
            await record(
                connection, "oauth_provider.update", found.organization_id, provider, before=found, after=after,
                secret=SECRET, details={"hosts": named},
            )  # fmt: skip
        return f"{found.slug} is the platform's; its tokens may go to {', '.join(named)}"

    click.echo(_with_connection(run))


@oauth.command("remove")
@click.argument("provider", type=click.UUID)
def remove_command(provider: UUID) -> None:
    """Delete a provider with all connections to it."""

    async def run(connection: Connection) -> str:
        found = await _find(connection, provider)
        async with connection.transaction():
            await DELETE_PROVIDER.run(connection, provider)
            await record(
                connection, "oauth_provider.delete", found.organization_id, provider, before=found, secret=SECRET
            )  # fmt: skip
        return f"{found.slug} is gone, with all connections to it"

    click.echo(_with_connection(run))


def _lines(providers: list[Provider]) -> Iterator[str]:
    for one in providers:
        owner = "the platform" if one.organization_id is None else str(one.organization_id)
        state = "" if one.is_active else "  inactive"
        hosts = f"  to {', '.join(one.hosts)}" if one.hosts else ""
        yield f"{one.id}  {one.slug:<32} of {owner}{hosts}{state}"


async def _find(connection: Connection, provider_id: UUID) -> Provider:
    found = await FIND_ANY.first(connection, provider_id)
    if found is None:
        raise click.ClickException(f"there is no OAuth provider {provider_id}")
    return found


def _with_connection(work: Callable[[Connection], Awaitable[Result]]) -> Result:
    async def started() -> Result:
        connection = await connect(settings_for_cli().database)
        try:
            with acting(Origin("operator", credential_type="command_line")):
                return await work(connection)
        finally:
            await connection.close()

    return asyncio.run(started())
