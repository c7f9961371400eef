"""Importing a document into a publisher: read, make endpoints, put them beside those that are there; or only show it.

Reading is work for a processor, so it is done in a thread: paid calls go on meanwhile. Before that nothing is locked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from gateway.catalog.assets import Asset
from gateway.catalog.openapi.importing import Imported, Skipped, import_document
from gateway.catalog.openapi.merging import Merged, merge
from gateway.catalog.openapi.payment_info import Units
from gateway.catalog.openapi.refused import DocumentRefused
from gateway.catalog.openapi.text import read_document
from gateway.catalog.publishers import PublisherDesk
from gateway.catalog.records import Publisher
from gateway.catalog.refusals import refused
from gateway.catalog.requests import Endpoints

_ENDPOINTS: TypeAdapter[Any] = TypeAdapter(Endpoints)
FIELD = "document"


@dataclass(frozen=True, slots=True)
class Import:
    """What an import did, or would do: the publisher before or after it, all its endpoints then, what was left out."""

    publisher: Publisher
    merged: Merged
    skipped: Sequence[Skipped]


async def import_openapi(
    desk: PublisherDesk, organization_id: UUID, publisher_id: UUID, raw: bytes, *, replace: bool, dry_run: bool
) -> Import:
    """Import a document (JSON or YAML). Raises NotFound, or InvalidRequest with the place in the document."""
    async with desk.database.acquire() as connection:
        publisher = await desk.get(connection, organization_id, publisher_id)
    try:
        found = await asyncio.to_thread(_read, raw, publisher)
        if dry_run:
            merged = merge(publisher.record.document.get("endpoints") or [], found.endpoints, replace=replace)
        else:
            publisher, merged = await desk.describe(organization_id, publisher_id, found.endpoints, replace=replace)
    except DocumentRefused as error:
        raise refused(FIELD, error.detail) from None
    return Import(publisher, merged, found.skipped)


def _read(raw: bytes, publisher: Publisher) -> Imported:
    base_url = publisher.record.document.get("api_url")
    if publisher.record.category != "integration" or base_url is None:
        raise DocumentRefused("can be imported for a publisher with an api_url only")
    found = import_document(read_document(raw), base_url, units_of(publisher.assets))
    found.endpoints = _checked(found.endpoints)
    return found


def units_of(assets: Sequence[Asset]) -> Units:
    """Return what prices are in that hold for every accepted asset: dollars too where all of them are dollars."""
    symbols = frozenset(asset.symbol for asset in assets)
    names = symbols if len(symbols) == 1 else frozenset[str]()
    if names == frozenset({"USDC"}):
        names |= {"USD"}
    return Units(names, min((asset.decimals for asset in assets), default=0))


def _checked(endpoints: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return endpoints as a request would have stored them. What they are made of was checked, so this is the fence."""
    try:
        read = _ENDPOINTS.validate_python(endpoints)
    except ValidationError as error:
        fault = error.errors(include_input=False)[0]
        place = ".".join(str(part) for part in fault["loc"])
        raise DocumentRefused(
            f"makes an endpoint that cannot be stored: {fault['msg']}", f"endpoints.{place}"
        ) from None
    return _ENDPOINTS.dump_python(read, mode="json", exclude_unset=True)
