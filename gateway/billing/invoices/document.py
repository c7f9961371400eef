"""An invoice as text, the same for the page and the PDF: every word and number that stands on it, in order.

Nothing here depends on the moment of looking, so the same invoice is the same document, byte for byte.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson
from pydantic import TypeAdapter

from gateway.billing.invoices.line import Line
from gateway.billing.invoices.records import CURRENCY, Invoice
from pricing.money import format_amount

# What has no look of its own but turns the order of others: a name must not rearrange the sum beside it.
_TURNS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
TITLES = {"draft": "Invoice draft", "issued": "Invoice", "paid": "Invoice", "void": "Invoice"}


@dataclass(frozen=True, slots=True)
class Party:
    """A seller or buyer: its lines, the first of them the name."""

    title: str
    lines: list[str]


@dataclass(frozen=True, slots=True)
class Row:
    """One line item as it stands in the table."""

    description: str
    quantity: str
    unit_price: str
    amount: str


@dataclass(frozen=True, slots=True)
class Sum:
    """A line below the table. `strong`: what the reader looks for."""

    label: str
    amount: str
    strong: bool = False


@dataclass(frozen=True, slots=True)
class Document:
    """Everything that stands on an invoice."""

    title: str
    number: str
    mark: str
    seller: Party
    buyer: Party
    facts: list[tuple[str, str]]
    rows: list[Row]
    sums: list[Sum]
    notes: list[str]
    moment: datetime
    others: list[Row] = field(default_factory=list[Row])


def document_of(invoice: Invoice, lines: Sequence[Line]) -> Document:
    """Return an invoice as text."""
    return Document(
        title=TITLES[invoice.status],
        number=invoice.label,
        mark={"draft": "DRAFT", "void": "VOID", "paid": "PAID"}.get(invoice.status, ""),
        seller=_party("From", invoice.seller),
        buyer=_party("Bill to", invoice.buyer),
        facts=_facts(invoice),
        rows=[_row(line, invoice.decimals) for line in lines],
        sums=_sums(invoice),
        notes=_notes(invoice),
        moment=invoice.issued_at or invoice.created_at,
        others=[_other(other) for other in invoice.others],
    )


def packed(document: Document) -> bytes:
    """Return a document as bytes, for another process."""
    return orjson.dumps(document)


def parsed(raw: bytes) -> Document:
    """Return the document that `packed` has made bytes of."""
    return TypeAdapter(Document).validate_json(raw)


def clean(text: object) -> str:
    """Return a text of somebody else's as it can stand on a document: one line, nothing that hides or turns."""
    plain = _TURNS.sub("", unicodedata.normalize("NFC", str(text or "")))
    plain = "".join(
        letter if unicodedata.category(letter) not in ("Cc", "Cs", "Co", "Cn") else " " for letter in plain
    )  # fmt: skip
    words = " ".join(plain.split())
    return words if any(unicodedata.category(letter) not in ("Cf", "Zs", "Mn") for letter in words) else ""


def money(amount: int, decimals: int) -> str:
    """Return an amount with groups of thousands: "-1,234,567.00", and more digits where it has them."""
    whole, _, fraction = format_amount(abs(amount), decimals, places=2).partition(".")
    text = f"{int(whole):,}.{fraction}" if fraction else f"{int(whole):,}"
    return f"-{text}" if amount < 0 else text


def percent(ppm: int) -> str:
    """Return a rate in parts per million as a percentage: "19 %", "8.1 %"."""
    return f"{format_amount(ppm, 4)} %"


def unit_price(line: Line) -> int:
    """Return what one unit cost, on average, rounded toward zero. A line without a quantity has its amount."""
    if not line.quantity:
        return line.amount
    scaled = int(line.quantity * 1_000_000)
    sign = -1 if line.amount < 0 else 1
    return sign * (abs(line.amount) * 1_000_000 // scaled)


def _party(title: str, given: dict[str, Any]) -> Party:
    lines = [clean(given.get("name"))]
    lines += [clean(part) for part in str(given.get("address") or "").splitlines()]
    lines += [clean(given.get("country"))]
    if given.get("tax_id"):
        lines.append(f"Tax ID: {clean(given['tax_id'])}")
    return Party(title, [line for line in lines if line])


def _facts(invoice: Invoice) -> list[tuple[str, str]]:
    def day(moment: datetime | None) -> str:
        return f"{moment:%Y-%m-%d}" if moment else "not issued yet"

    facts = [
        ("Number", invoice.label),
        ("Issued", day(invoice.issued_at)),
        ("Period", f"{invoice.month.first} to {invoice.month.last}"),
        ("Currency", CURRENCY),
    ]
    if invoice.due and invoice.due_at:
        facts.append(("Due", day(invoice.due_at)))
    if invoice.status == "paid" and invoice.paid_at and invoice.due:
        facts.append(("Paid", day(invoice.paid_at)))
    if invoice.voided_at:
        facts.append(("Void since", day(invoice.voided_at)))
    return facts


def _row(line: Line, decimals: int) -> Row:
    quantity = format_amount(int(line.quantity * 1_000_000), 6)
    whole, _, fraction = quantity.partition(".")
    grouped = f"{int(whole):,}" + (f".{fraction}" if fraction else "")
    shown = clean(line.description) + (" (prepaid)" if line.paid else "")
    return Row(shown, grouped, money(unit_price(line), decimals), money(line.amount, decimals))


def _sums(invoice: Invoice) -> list[Sum]:
    def shown(amount: int) -> str:
        return money(amount, invoice.decimals)

    sums = [Sum("Subtotal", shown(invoice.subtotal))]
    if invoice.taxable:
        sums.append(Sum(f"Tax ({percent(invoice.tax_ppm)} of {shown(invoice.taxable)})", shown(invoice.tax)))
    else:
        sums.append(Sum("Tax", shown(invoice.tax)))
    sums.append(Sum("Total", shown(invoice.total), strong=True))
    if invoice.prepaid:
        paid = "Paid from the prepaid balance" if invoice.prepaid > 0 else "Given back to the prepaid balance"
        sums.append(Sum(paid, shown(-invoice.prepaid)))
    if invoice.receipt is not None:
        sums.append(Sum("Paid", shown(invoice.owed_again - invoice.due)))
    sums.append(Sum(f"Amount due ({CURRENCY})", shown(invoice.open), strong=True))
    return sums


def _notes(invoice: Invoice) -> list[str]:
    notes: list[str] = []
    if invoice.tax_note:
        notes.append(invoice.tax_note)
    if invoice.prepaid:
        notes.append(
            "Lines marked (prepaid) were sold by the publishers named in them and paid from the prepaid balance when"
            " they were bought. They are listed for the records: nothing more is due for them."
        )
    if invoice.status == "void":
        notes.append(f"This invoice is void: {clean(invoice.void_reason)}")
    if invoice.status == "draft":
        notes.append("This is a draft and no invoice yet. Its lines may change until it is issued.")
    return notes


def _other(other: dict[str, Any]) -> Row:
    return Row(
        f"Calls paid in {clean(other['asset'])}", f"{int(other['calls']):,}", "",
        f"{money(int(other['amount']), int(other['decimals']))} {clean(other['asset'])}",
    )  # fmt: skip
