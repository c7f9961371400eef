"""`tollway publisher`: an operator's hand on the store, and a publisher's on the role that sells its database."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import Mapping
from dataclasses import asdict
from ipaddress import ip_network
from typing import Any, BinaryIO
from uuid import UUID

import click
import orjson
from pydantic import ValidationError

from admin_api.kit.body import parse
from gateway.billing.charges import END_TERMS, SET_TERMS, TERMS_OF
from gateway.catalog.assets import LIST_ASSETS, Asset
from gateway.catalog.authentication import Authentication
from gateway.catalog.history import note
from gateway.catalog.openapi.desk import Import, import_openapi
from gateway.catalog.openapi.text import MAX_DOCUMENT
from gateway.catalog.publishers import PublisherDesk
from gateway.catalog.records import FIND_ANY, LIST_ANY, SET_FLAGS, Record, assemble
from gateway.catalog.requests import CreatePublisherRequest
from gateway.catalog.urls import UrlPolicy
from gateway.catalog.views import owner_view
from gateway.cli.context import on_database
from gateway.database.pool import Connection, Database
from gateway.database.statement import Statement
from gateway.errors import InvalidRequest
from gateway.proxy.connection_test import keep_seen, stored, try_connection
from gateway.request_body import nearest_field
from gateway.settings import Settings
from gateway.upstreams.auth.authenticator import Authenticator, authenticator
from gateway.upstreams.credentials import CredentialBox
from gateway.upstreams.documents import NotFetched, fetch
from gateway.upstreams.egress import EgressGuard
from gateway.upstreams.http.client import UpstreamClient
from gateway.upstreams.postgres.address import TLS_MODES, BadConnectionString, read_address
from gateway.upstreams.postgres.errors import DatabaseError
from gateway.upstreams.postgres.inspection import Selection, sandbox_sql
from gateway.upstreams.postgres.onboarding import DatabaseInspector, look
from gateway.upstreams.probe import Finding
from pricing.money import MoneyError, format_amount, parse_amount

CREATOR_OF = Statement(
    "SELECT created_by::text FROM identity.organization WHERE id = $1 AND deleted_at IS NULL", UUID, scalar=True
)


@click.group()
def publisher() -> None:
    """List, show, create, test, verify and switch publishers, and import what they sell."""


@publisher.command("list")
def list_command() -> None:
    """List every publisher, one a line."""

    async def run(database: Database, _settings: Settings) -> list[str]:
        async with database.acquire() as connection:
            publishers = await assemble(connection, await LIST_ANY.all(connection))
        return [
            f"{one.record.slug:<32} {_state(one.record):<20} {one.usage.calls:>10} calls  {one.record.name}"
            for one in publishers
        ]

    click.echo("\n".join(on_database(run)) or "there are no publishers")


@publisher.command("show")
@click.argument("slug_or_id")
def show_command(slug_or_id: str) -> None:
    """Show a publisher as its owner sees it, as JSON; credentials are never shown."""

    async def run(database: Database, settings: Settings) -> dict[str, Any]:
        async with database.acquire() as connection:
            record = await _find(connection, slug_or_id)
            return owner_view((await assemble(connection, [record]))[0], settings.public_url)

    click.echo(_json(on_database(run)))


@publisher.command("create")
@click.option("--file", "source", type=click.File("rb"), required=True, help="JSON of a CreatePublisherRequest, or -.")
@click.option("--organization", type=click.UUID, required=True, help="The organization that owns it.")
def create_command(source: BinaryIO, organization: UUID) -> None:
    """Create a publisher from a JSON file, with the same checks as the API."""
    request = _request(source.read())

    async def run(database: Database, settings: Settings) -> dict[str, Any]:
        async with database.acquire() as connection:
            account_id = await CREATOR_OF.first(connection, organization)
        if account_id is None:
            raise click.ClickException(f"there is no organization {organization}")
        made = await _desk(settings, database).create(organization, account_id, request)
        return owner_view(made, settings.public_url)

    click.echo(_json(on_database(run)))


@publisher.command("activate")
@click.argument("slug_or_id")
def activate_command(slug_or_id: str) -> None:
    """Put a publisher into the store: it can be called."""
    _set_flags(slug_or_id, active=True, verified=None)


@publisher.command("deactivate")
@click.argument("slug_or_id")
def deactivate_command(slug_or_id: str) -> None:
    """Take a publisher out of the store: calls answer 404."""
    _set_flags(slug_or_id, active=False, verified=None)


@publisher.command("verify")
@click.argument("slug_or_id")
@click.option("--revoke", is_flag=True, help="Take the mark away again.")
def verify_command(slug_or_id: str, revoke: bool) -> None:
    """Mark a publisher as verified."""
    _set_flags(slug_or_id, active=None, verified=not revoke)


@publisher.command("first-party")
@click.argument("slug_or_id")
@click.option("--max-charge", help="What one charge may take at most, such as 5.00.")
@click.option("--daily", help="What may be taken of one agent in a day (UTC) at most, penalties included.")
@click.option("--revoke", is_flag=True, help="It may charge nobody any more; what it has charged can be refunded.")
def first_party_command(slug_or_id: str, max_charge: str | None, daily: str | None, revoke: bool) -> None:
    """Let a publisher of your own house charge agents directly, within bounds in the default asset."""
    if revoke == (max_charge is not None or daily is not None) or (max_charge is None) != (daily is None):
        raise click.UsageError("give --max-charge and --daily, or --revoke")

    async def run(database: Database, _settings: Settings) -> str:
        async with database.transaction() as connection:
            record = await _find(connection, slug_or_id)
            asset = next(one for one in await LIST_ASSETS.all(connection) if one.is_default)
            before = await TERMS_OF.first(connection, record.id)
            if max_charge is None or daily is None:
                await END_TERMS.run(connection, record.id)
            else:
                bounds = [_amount(max_charge, asset, "--max-charge"), _amount(daily, asset, "--daily")]
                if bounds[0] > bounds[1]:
                    raise click.BadParameter("is less than --max-charge", param_hint="--daily")
                await SET_TERMS.run(connection, record.id, asset.id, *map(str, bounds))
            after = await TERMS_OF.first(connection, record.id)
            sides = [None if one is None else asdict(one) for one in (before, after)]
            await note(
                connection, "publisher.first_party", record.organization_id, record, before=sides[0], after=sides[1]
            )
        if after is None:
            return f"{record.slug} may charge nobody directly"
        per_charge, per_day = (format_amount(one, asset.decimals) for one in (after.per_charge, after.per_day))
        return (
            f"{record.slug} may charge agents directly: at most {per_charge} {asset.symbol} at once, {per_day}"
            f" {asset.symbol} of one agent in a day"
        )

    click.echo(on_database(run))


@publisher.command("test")
@click.argument("slug_or_id")
@click.option("--path", default="/", show_default=True, help="What to ask for, below the base URL.")
def test_command(slug_or_id: str, path: str) -> None:
    """Try a publisher's server from here, with its stored credentials; exit 1 when calls could not work.

    An MCP server is asked for its tools.
    """
    if not path.startswith("/"):
        raise click.BadParameter("must start with /", param_hint="--path")

    async def run(database: Database, settings: Settings) -> Finding:
        desk = _desk(settings, database)
        async with database.acquire() as connection:
            record = await _find(connection, slug_or_id)
            sold = await stored(connection, record.id, desk.box.open)
        draft = desk.draft_of(record)
        guard = EgressGuard([ip_network(network) for network in settings.proxy.allow_addresses])
        client = UpstreamClient(guard, max_connections=1, max_idle=0)

        def authenticate(plan: Authentication, slug: str) -> Authenticator:
            return authenticator(plan, slug, client, guard)

        try:
            found = await try_connection(
                guard, settings, authenticate, draft.document, draft.secrets, publisher=sold, path=path
            )
            async with database.acquire() as connection:
                await keep_seen(connection, record.id, draft.document.get("mcp_endpoint"), found)
            return found
        finally:
            await client.aclose()

    found = on_database(run)
    click.echo(f"{'ok' if found.ok else 'failed'}: {found.outcome}. {found.detail}")
    if found.tls is not None:
        ends = found.tls.expires_at.date().isoformat() if found.tls.expires_at else "unknown"
        click.echo(f"{found.tls.version}, certificate by {found.tls.issuer or 'unknown'}, valid until {ends}")
    click.echo(", ".join(f"{step.removesuffix('_ms')} {took} ms" for step, took in found.times.items()))
    sys.exit(0 if found.ok else 1)


@publisher.command("import-openapi")
@click.argument("slug_or_id")
@click.argument("source")
@click.option("--replace", is_flag=True, help="Drop endpoints that it does not describe; protected ones stay.")
@click.option("--dry-run", is_flag=True, help="Change nothing, and show what would be.")
def import_command(slug_or_id: str, source: str, replace: bool, dry_run: bool) -> None:
    """Make endpoints of an OpenAPI 3 document: a file with JSON or YAML, - for standard input, or a URL."""

    async def run(database: Database, settings: Settings) -> Import:
        async with database.acquire() as connection:
            record = await _find(connection, slug_or_id)
        raw = await _document(settings, source)
        desk = _desk(settings, database)
        return await import_openapi(desk, record.organization_id, record.id, raw, replace=replace, dry_run=dry_run)

    try:
        done = on_database(run)
    except InvalidRequest as error:
        raise click.ClickException(error.detail) from None
    for endpoint in done.merged.endpoints:
        click.echo(f"{endpoint['method']:<6} {endpoint.get('price') or '-':>10}  {endpoint['path']}")
    for part in done.skipped:
        click.echo(f"skipped {part.place}: {part.reason}")
    counts = f"{done.merged.added} added, {done.merged.changed} changed, {done.merged.removed} removed"
    click.echo(f"nothing was changed; it would be {counts}" if dry_run else counts)


async def _document(settings: Settings, source: str) -> bytes:
    """Return a document's bytes. Raises click.ClickException."""
    if not source.startswith(("http://", "https://")):
        try:
            with click.open_file(source, "rb") as file:
                return file.read(MAX_DOCUMENT + 1)
        except OSError as error:
            raise click.ClickException(f"{source} cannot be read: {error.strerror}") from None
    guard = EgressGuard([ip_network(network) for network in settings.proxy.allow_addresses])
    client = UpstreamClient(guard, max_connections=1, max_idle=0)
    try:
        return await fetch(client, guard, source, MAX_DOCUMENT)
    except NotFetched as error:
        raise click.ClickException(f"{source} {error}") from None
    finally:
        await client.aclose()


@publisher.command("sandbox-sql")
@click.argument("connection_string")
@click.option("--schema", "schemas", multiple=True, help="Only tables of this schema; may be repeated.")
@click.option("--table", "tables", multiple=True, help="Only this table, as table or schema.table; may be repeated.")
@click.option("--column", "columns", multiple=True, help="Only this column of its table, as schema.table.column.")
@click.option("--role", default="tollway_reader", show_default=True, help="The role to make.")
@click.option("--tls", type=click.Choice(TLS_MODES), default=None, help="How to reach the database; see docs/sql.md.")
def sandbox_sql_command(
    connection_string: str,
    schemas: tuple[str, ...],
    tables: tuple[str, ...],
    columns: tuple[str, ...],
    role: str,
    tls: str | None,
) -> None:
    """Print the SQL that makes the role through which a PostgreSQL may be sold.

    CONNECTION_STRING is any role that can read what is to be sold; nothing is changed. Run what is printed as the
    database's owner, then give the new role's connection string to the gateway.
    """  # fmt: skip
    selection = Selection(schemas, tables, columns)
    guard = EgressGuard([ip_network(network) for network in ("0.0.0.0/0", "::/0")])  # the operator's own choice
    try:
        address = read_address(connection_string, tls=tls)
        found = asyncio.run(look(address, guard, selection))
    except (BadConnectionString, DatabaseError) as error:
        raise click.ClickException(f"the connection string {error}") from None
    if not found:
        raise click.ClickException("the role can read none of the tables that are named")
    password = secrets.token_urlsafe(24)
    click.echo(sandbox_sql(role, address.database, [table.relation() for table in found], password), nl=False)


def _set_flags(slug_or_id: str, *, active: bool | None, verified: bool | None) -> None:
    async def run(database: Database, _settings: Settings) -> Record:
        async with database.transaction() as connection:
            record = await _find(connection, slug_or_id)
            await SET_FLAGS.run(connection, record.id, active, verified)
            after = await _find(connection, slug_or_id)
            flags = [{"is_active": one.is_active, "is_verified": one.is_verified} for one in (record, after)]
            await note(connection, "publisher.update", record.organization_id, record, before=flags[0], after=flags[1])
            return after

    record = on_database(run)
    click.echo(f"{record.slug} is {_state(record)}")


def _desk(settings: Settings, database: Database) -> PublisherDesk:
    allowed = settings.proxy.allow_addresses
    guard = EgressGuard([ip_network(network) for network in allowed])
    return PublisherDesk(
        database,
        CredentialBox.from_setting(settings.secrets.keys),
        UrlPolicy(guard, allowed),
        settings,
        DatabaseInspector(guard),
    )


def _amount(text: str, asset: Asset, option: str) -> int:
    try:
        amount = parse_amount(text, asset.decimals)
    except MoneyError as error:
        raise click.BadParameter(str(error), param_hint=option) from None
    if not amount:
        raise click.BadParameter("must be more than 0", param_hint=option)
    return amount


def _request(text: bytes) -> CreatePublisherRequest:
    try:
        return CreatePublisherRequest.model_validate(parse(text))  # as strict as a request's body
    except InvalidRequest as error:
        raise click.ClickException(_of_a_file(error)) from None
    except ValidationError as error:
        # Without the input: it may be a credential.
        faults = (f"{'.'.join(map(str, fault['loc']))}: {_words(fault)}" for fault in error.errors(include_input=False))
        raise click.ClickException("\n".join(faults)) from None


def _of_a_file(error: InvalidRequest) -> str:
    """Return why a file is refused, of which the API would say that it is no acceptable body."""
    return str(error.detail).replace("The body is not acceptable JSON", "the file is not JSON that the API takes", 1)


def _words(fault: Mapping[str, Any]) -> str:
    if fault["type"] != "extra_forbidden":
        return str(fault["msg"]).removeprefix("Value error, ")
    nearest = nearest_field(CreatePublisherRequest, fault["loc"])
    return f"no such field; did you mean {nearest}?" if nearest else "no such field"


async def _find(connection: Connection, name: str) -> Record:
    record = await FIND_ANY.first(connection, name)
    if record is None:
        raise click.ClickException(f"no publisher is called {name}")
    return record


def _state(record: Record) -> str:
    return ("active" if record.is_active else "inactive") + (", verified" if record.is_verified else "")


def _json(document: dict[str, Any]) -> str:
    return orjson.dumps(document, option=orjson.OPT_INDENT_2, default=str).decode()
