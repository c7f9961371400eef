"""An invoice as a page: one file without scripts, which prints on A4. Everything in it is escaped by the templates."""

from __future__ import annotations

import base64
import hashlib

from jinja2 import Environment, PackageLoader, StrictUndefined

from gateway.billing.invoices.document import Document

_templates = Environment(
    loader=PackageLoader("admin_api.invoices"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
    lstrip_blocks=True,
)  # fmt: skip
STYLE = _templates.get_template("invoice.css").render()
_hash = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, no-store",
}


def page_of(document: Document) -> str:
    """Return an invoice as a page."""
    return _templates.get_template("invoice.html").render(document=document, style=STYLE)
