"""`tollway invoices`: the invoices of a month, made, listed, issued, and taken back."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from uuid import UUID

import click

from gateway.billing.invoices import issuing, records
from gateway.billing.invoices.document import clean
from gateway.billing.invoices.drafts import generate
from gateway.billing.invoices.month import Month, past_month
from gateway.billing.invoices.paying import InvoicePayments
from gateway.billing.invoices.records import Invoice
from gateway.cli.context import on_database
from gateway.database.pool import Database
from gateway.payments.stripe.client import StripeDoor
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
    """Make, list, issue and void the invoices of a month."""


@invoices.command("generate")
@click.option("--month", type=PastMonth(), required=True, help="The month, which must be over.")
def generate_command(month: Month) -> None:
    """Make a draft for every organization that bought something in a month, unless it has its invoice already."""

    async def work(database: Database, settings: Settings) -> int:
        return len(await generate(database, settings.invoices, month))

    click.echo(f"{on_database(work)} invoices of {month}")


@invoices.command("list")
@click.option("--month", type=PastMonth(), help="The month that they are about.")
@click.option("--reversed", "is_reversed", is_flag=True, help="Those whose payment failed or was disputed later.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="With --reversed.")
def list_command(month: Month | None, is_reversed: bool, limit: int) -> None:
    """List the invoices of a month, void ones as well; or those whose payment was taken back, the last one first."""
    if (month is None) != is_reversed:
        raise click.UsageError("say --month YYYY-MM or --reversed, one of the two")

    async def work(database: Database, _settings: Settings) -> list[Invoice]:
        async with database.acquire() as connection:
            if month is None:
                return await records.REVERSED.all(connection, limit)
            return await records.OF_MONTH.all(connection, month.first)

    for invoice in on_database(work):
        click.echo(_line(invoice))


@invoices.command("issue")
@click.argument("invoice_ids", type=click.UUID, nargs=-1, required=True)
def issue_command(invoice_ids: tuple[UUID, ...]) -> None:
    """Give drafts their numbers, in this order, and book what is due. From then on nothing of them changes."""

    async def work(database: Database, settings: Settings) -> None:
        for invoice_id in invoice_ids:
            async with database.transaction() as connection:
                issued = await issuing.issue(connection, settings.invoices, invoice_id)
            click.echo(f"{issued.label}: {issued.status}, due {issuing.usd(issued, issued.open)}")

    on_database(work)


@invoices.command("void")
@click.argument("invoice_id", type=click.UUID)
@click.option("--reason", required=True, help="Why; it stands on the document, 500 characters at most.")
def void_command(invoice_id: UUID, reason: str) -> None:
    """Take back an issued invoice that is not paid, and end its open card payment. It keeps its number."""
    said = clean(reason)
    if not 1 <= len(said) <= 500:
        raise click.BadParameter("must have 1 to 500 characters", param_hint="--reason")

    async def work(database: Database, settings: Settings) -> Invoice:
        door = StripeDoor(settings.stripe)
        try:
            return await InvoicePayments(database, door, settings.stripe.recheck).void(invoice_id, said)
        finally:
            await door.aclose()

    void = on_database(work)
    click.echo(f"{void.label}: {void.status}. Its month can be generated anew.")


def _line(invoice: Invoice) -> str:
    total, due = issuing.usd(invoice, invoice.total), issuing.usd(invoice, invoice.open)
    reversal = ""
    if invoice.payment_reversal is not None and invoice.payment_reversed_at is not None:
        what = invoice.payment_reversal.replace("_", " ")
        reversal = f", {what} after it was paid ({invoice.payment_reversed_at:%Y-%m-%d %H:%M})"
    return f"{invoice.id}  {invoice.label}  {invoice.organization_id}  {invoice.status}  {total}, due {due}{reversal}"
