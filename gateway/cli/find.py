"""`tollway find`: accounts, keys, publishers, and one call by its request id, as JSON, one object a line."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Any

import click
import orjson

from admin_api.resources.operator_search import shown_call
from gateway.cli.context import on_connection
from gateway.database.pool import Connection
from gateway.operators import search
from gateway.operators.calls import find_call

offset_option = click.option("--offset", type=click.IntRange(min=0), default=0, help="Newest first; skip so many.")
limit_option = click.option("--limit", type=click.IntRange(1, 1_000), default=100, show_default=True)


@click.group()
def find() -> None:
    """Find accounts, keys and publishers by what people know of them, and one call by its request id."""


@find.command("accounts")
@click.argument("text", required=False)
@limit_option
@offset_option
def accounts_command(text: str | None, limit: int, offset: int) -> None:
    """Find accounts by id, e-mail address, name, prepaid wallet or organization id; without TEXT list all."""
    _show(lambda connection: search.accounts(connection, text, limit + 1, offset), limit, offset)


@find.command("keys")
@click.argument("text", required=False)
@limit_option
@offset_option
def keys_command(text: str | None, limit: int, offset: int) -> None:
    """Find keys by prefix, key id or id, or those of an account or organization; without TEXT list all."""
    _show(lambda connection: search.keys(connection, text, limit + 1, offset), limit, offset)


@find.command("publishers")
@click.argument("text", required=False)
@click.option("--status", type=click.Choice(["active", "inactive", "suspended", "deleted"]))
@limit_option
@offset_option
def publishers_command(text: str | None, status: str | None, limit: int, offset: int) -> None:
    """Find publishers by slug, name or id, or those of an organization, deleted ones too; without TEXT list all."""
    _show(lambda connection: search.publishers(connection, text, status, limit + 1, offset), limit, offset)


@find.command("call")
@click.argument("request_id")
def call_command(request_id: str) -> None:
    """Show one call by its X-Request-Id: what moved for it, how it ended, and what became of the money.

    A call that was refused, or free and not counted, leaves only a line in the
    access log.
    """  # fmt: skip

    call = on_connection(lambda connection: find_call(connection, request_id))
    click.echo(shown_call(call).model_dump_json(indent=2))


def _show(query: Callable[[Connection], Awaitable[Sequence[Any]]], limit: int, offset: int) -> None:
    """Print a page of what a query finds, which looks for one more than that."""
    rows = on_connection(query)
    for row in rows[:limit]:
        click.echo(orjson.dumps(asdict(row), default=str).decode())
    if not rows:
        click.echo("Nothing is found.", err=True)
    elif len(rows) > limit:
        click.echo(f"There are more; go on with --offset {offset + limit}.", err=True)
