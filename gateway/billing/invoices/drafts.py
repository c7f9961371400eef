"""Making the invoices of a month: one draft per organization that bought something, however often it is run.

A draft is a look ahead: its lines are read again from the ledger when it is issued.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from uuid import UUID

from gateway.audit.entries import record
from gateway.billing.invoices import details
from gateway.billing.invoices.lines import Bought, lines_of, organizations_of
from gateway.billing.invoices.month import Month
from gateway.billing.invoices.records import Invoice, cent_of
from gateway.billing.invoices.taxes import tax_for, tax_on
from gateway.database.pool import Connection, Database
from gateway.database.statement import Command, Statement
from gateway.ids import uuid7
from gateway.settings import InvoiceSettings


@dataclass(frozen=True, slots=True)
class Asset:
    """What invoices are counted in."""

    id: UUID
    decimals: int


DEFAULT_ASSET = Statement(
    """
    SELECT l.id, l.decimals::integer AS decimals
      FROM catalog.asset a JOIN catalog.asset l ON l.id = a.ledger_asset_id WHERE a.is_default
    """,
    Asset,
)
OF_MONTH = Statement(
    "SELECT id::text FROM invoice.invoice WHERE period_start = $1 AND status <> 'void' ORDER BY id", UUID, scalar=True
)
# Whoever comes second waits for the first, and finds it made.
INSERT = Command(
    """
    INSERT INTO invoice.invoice (id, organization_id, period_start, asset_id, decimals, subtotal, taxable, tax, tax_ppm,
                                 tax_note, seller, buyer, others)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
    ON CONFLICT (organization_id, period_start) WHERE status <> 'void' DO NOTHING
    """
)
REFRESH = Command(
    """
    UPDATE invoice.invoice
       SET subtotal = $2, taxable = $3, tax = $4, tax_ppm = $5, tax_note = $6, seller = $7, buyer = $8, others = $9
     WHERE id = $1 AND status = 'draft'
    """
)
DELETE_LINES = Command("DELETE FROM invoice.line WHERE invoice_id = $1")
INSERT_LINES = Command(
    """
    INSERT INTO invoice.line (invoice_id, place, line_type, description, quantity, amount, paid, reference)
    SELECT $1, l.place, l.line_type, l.description, l.quantity, l.amount, l.paid, l.reference
      FROM unnest($2::text[], $3::text[], $4::numeric[], $5::numeric[], $6::boolean[], $7::text[])
           WITH ORDINALITY AS l (line_type, description, quantity, amount, paid, reference, place)
    """
)
HAVE_ONE = Statement(
    "SELECT organization_id::text FROM invoice.invoice WHERE period_start = $1 AND status <> 'void'", UUID, scalar=True
)
NAME = Statement("SELECT name FROM identity.organization WHERE id = $1", str, scalar=True)


async def generate(database: Database, settings: InvoiceSettings, month: Month) -> list[UUID]:
    """Make what is missing of a month, each in its own transaction; return all that exist, except void ones."""
    async with database.acquire() as connection:
        have = set(await HAVE_ONE.all(connection, month.first))
        wanted = [one for one in await organizations_of(connection, month) if one not in have]
    for organization_id in wanted:
        async with database.transaction() as connection:
            await _draft(connection, settings, organization_id, month)
    async with database.acquire() as connection:
        return await OF_MONTH.all(connection, month.first)


async def _draft(connection: Connection, settings: InvoiceSettings, organization_id: UUID, month: Month) -> None:
    """Make a draft, unless there is one by now, or all that was bought came back at once."""
    asset = await DEFAULT_ASSET.one(connection)
    bought = await lines_of(connection, organization_id, month, cent_of(asset.decimals))
    if not bought.lines and not bought.others:
        return
    invoice_id = uuid7()
    made = await INSERT.run(
        connection, invoice_id, organization_id, month.first, asset.id, asset.decimals, 0, 0, 0, 0, "", {}, {}, []
    )
    if not made:
        return
    await _fill(connection, settings, invoice_id, organization_id, bought, cent_of(asset.decimals))
    await record(
        connection, "invoice.generate", organization_id, invoice_id, details={"period": str(month)}
    )  # fmt: skip


async def refresh(connection: Connection, settings: InvoiceSettings, draft: Invoice) -> None:
    """Read a draft's lines again."""
    bought = await lines_of(connection, draft.organization_id, draft.month, draft.cent)
    await _fill(connection, settings, draft.id, draft.organization_id, bought, draft.cent)


async def _fill(
    connection: Connection,
    settings: InvoiceSettings,
    invoice_id: UUID,
    organization_id: UUID,
    bought: Bought,
    cent: int,
) -> None:
    """Write lines, sums and both parties of a draft."""
    buyer = await buyer_of(connection, organization_id)
    tax = tax_for(settings, buyer["country"], buyer["tax_id"])
    added = tax_on(max(bought.due, 0), tax.ppm, cent)
    others = [{**asdict(other), "amount": str(other.amount)} for other in bought.others]
    await REFRESH.run(
        connection, invoice_id, bought.subtotal, bought.due, added, tax.ppm, tax.note, seller_of(settings), buyer,
        others,
    )  # fmt: skip
    await DELETE_LINES.run(connection, invoice_id)
    await INSERT_LINES.run(connection, invoice_id, *_columns(bought))


def _columns(bought: Bought) -> tuple[list[object], ...]:
    names = ("line_type", "description", "quantity", "amount", "paid", "reference")
    return tuple([getattr(line, name) for line in bought.lines] for name in names)


def seller_of(settings: InvoiceSettings) -> dict[str, str | None]:
    """Return who sells, as it stands on invoices."""
    return {
        "name": settings.seller_name,
        "address": settings.seller_address.replace("|", "\n"),
        "country": settings.seller_country or None,
        "tax_id": settings.seller_tax_id or None,
    }


async def buyer_of(connection: Connection, organization_id: UUID) -> dict[str, str | None]:
    """Return who buys: what the organization has said of itself, else its name."""
    known = await details.find(connection, organization_id)
    if known is None:
        name = await NAME.one(connection, organization_id)
        return {"name": name, "address": "", "country": None, "tax_id": None}
    return {"name": known.legal_name, "address": known.address, "country": known.country, "tax_id": known.tax_id}
