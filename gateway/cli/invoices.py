"""`tollway invoices`: the invoices of a month, made, listed and issued."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from uuid import UUID

import click

from gateway.billing.invoices import issuing, records
from gateway.billing.invoices.drafts import generate
from gateway.billing.invoices.month import Month, past_month
from gateway.billing.invoices.records import Invoice
from gateway.cli.context import on_database
from gateway.database.pool import Database
from gateway.settings import Settings


class PastMonth(click.ParamType[Month]):
    """A month that is over, as 2026-10."""

    name = "YYYY-MM"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Month:
        """Return the month."""
        found = re.fullmatch(r"([0-9]{4})-([0-9]{2})", str(value))
        if found is None:
            self.fail("must be a month such as 2026-10", param, ctx)
        return past_month(int(found[1]), int(found[2]), datetime.now(UTC))


@click.group()
def invoices() -> None:
    """Make, list and issue the invoices of a month."""


@invoices.command("generate")
@click.option("--month", type=PastMonth(), required=True, help="The month, which must be over.")
def generate_command(month: Month) -> None:
    """Make a draft for every organization that bought something in a month, unless it has its invoice already."""

    async def work(database: Database, settings: Settings) -> int:
        return len(await generate(database, settings.invoices, month))

    click.echo(f"{on_database(work)} invoices of {month}")


@invoices.command("list")
@click.option("--month", type=PastMonth(), required=True, help="The month that they are about.")
def list_command(month: Month) -> None:
    """List the invoices of a month, void ones as well."""

    async def work(database: Database, _settings: Settings) -> list[Invoice]:
        async with database.acquire() as connection:
            return await records.OF_MONTH.all(connection, month.first)

    for invoice in on_database(work):
        total, due = issuing.usd(invoice, invoice.total), issuing.usd(invoice, invoice.open)
        click.echo(f"{invoice.id}  {invoice.label}  {invoice.organization_id}  {invoice.status}  {total}, due {due}")


@invoices.command("issue")
@click.argument("invoice_id", type=click.UUID)
def issue_command(invoice_id: UUID) -> None:
    """Give a draft its number and book what is due. From then on nothing of it changes."""

    async def work(database: Database, settings: Settings) -> Invoice:
        async with database.transaction() as connection:
            return await issuing.issue(connection, settings.invoices, invoice_id)

    issued = on_database(work)
    click.echo(f"{issued.label}: {issued.status}, due {issuing.usd(issued, issued.open)}")
