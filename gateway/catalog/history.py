"""What the audit log is told of a publisher: everything that its owner sets, to compare before with after.

No value is kept there (gateway/audit/entries.py), and of secrets not even a digest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any
from uuid import UUID

from gateway.audit.entries import record
from gateway.catalog.drafts import Draft
from gateway.catalog.prices import Pricing
from gateway.catalog.records import Record
from gateway.catalog.requests import SECRET_FIELDS
from gateway.database.pool import Connection

_PRICES = tuple(one.name for one in fields(Pricing) if one.name not in ("publisher_id", "asset_id"))


def facts(draft: Draft, prices: Iterable[Pricing]) -> dict[str, Any]:
    """Return a publisher as one flat document: a price has a value for each asset that is accepted."""
    rows = list(prices)
    priced = {name: {str(row.asset_id): getattr(row, name) for row in rows} for name in _PRICES}
    assets = sorted(str(row.asset_id) for row in rows)
    return {**draft.columns, **draft.document, **draft.secrets, **priced, "accepted_asset_ids": assets}


async def note(
    connection: Connection,
    action: str,
    organization_id: UUID,
    publisher: Record,
    *,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    **details: object,
) -> None:
    """Write down what was done to a publisher, last in its transaction. Webhooks of its projects hear of it."""
    named = {side.get("project_id") for side in (publisher.document, before or {}, after or {})} - {None}
    await record(
        connection, action, organization_id, publisher.id, before=before, after=after, secret=SECRET_FIELDS,
        details={"slug": publisher.slug, "name": publisher.name, **details},
        projects=[UUID(str(one)) for one in named],
    )  # fmt: skip
