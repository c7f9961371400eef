"""Creating, changing and deleting publishers: one transaction each, validated whole before anything is written.

The order is always: merge the request into what is there, check the whole, ask where the URLs lead, write the row, its
accepted assets and the prices in each of them. Deleting is soft: the slug stays taken, because callers have it in their
code, and the earnings stay where they are. What does not live here: permissions, and reading for pages (records.py).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol
from uuid import UUID

import orjson
from pydantic import BaseModel

from gateway.catalog.assets import Asset
from gateway.catalog.delivery import check_bounds
from gateway.catalog.drafts import URL_FIELDS, Draft, check_whole
from gateway.catalog.endpoint_list import Change
from gateway.catalog.history import facts, note
from gateway.catalog.metering import check_metering
from gateway.catalog.not_offered import check_offered
from gateway.catalog.openapi.merging import Merged, merge
from gateway.catalog.prices import DELETE_PRICING, Pricing, check_endpoint_price, list_pricing, put_pricing
from gateway.catalog.projects import check_project
from gateway.catalog.records import (
    ADD_ASSET,
    COUNT_EVER,
    DELETE_PUBLISHER,
    FIND_IN_ORGANIZATION,
    INSERT_PUBLISHER,
    LOCK_IN_ORGANIZATION,
    NETWORK_EXISTS,
    REMOVE_ASSETS,
    TOUCH_PUBLISHER,
    UPDATE_PUBLISHER,
    Publisher,
    Record,
    all_assets,
    assemble,
)
from gateway.catalog.refusals import refused
from gateway.catalog.requests import (
    PRICE_FIELDS,
    CreatePublisherRequest,
    TierFields,
    TokenExchange,
    UpdatePricingRequest,
    UpdatePublisherRequest,
)
from gateway.catalog.sales import DELETE_SALE, PUT_SALE, Inspection, Inspector, is_postgres, read_config
from gateway.catalog.settlement import check_exposure
from gateway.catalog.tiers import check_model, check_tiers
from gateway.catalog.urls import UrlPolicy
from gateway.catalog.user_oauth import check_host, put_provider
from gateway.database.pool import Connection, Database, UniqueViolation
from gateway.errors import Conflict, NotFound
from gateway.ids import uuid7
from gateway.settings import Settings
from gateway.suspensions import demand_none_in

Room = Callable[[Connection], Awaitable[None]]
"""Raises where an organization may have no more."""


class Box(Protocol):
    """The credential box, as far as it is needed here (it belongs to an upper step)."""

    def seal(self, plaintext: bytes, context: bytes) -> bytes:
        """Encrypt, bound to a context."""
        ...

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """Decrypt what was sealed in the same context."""
        ...


@dataclass(frozen=True, slots=True)
class PublisherDesk:
    """Where publishers are written. Cheap to make: it holds nothing of its own."""

    database: Database
    box: Box
    urls: UrlPolicy
    settings: Settings
    inspect: Inspector

    async def create(
        self, organization_id: UUID, account_id: UUID, request: CreatePublisherRequest, room: Room | None = None
    ) -> Publisher:
        """Store a new publisher. Raises InvalidRequest naming the field, or Conflict for a taken slug.

        `room` is asked in the transaction whether there may be one more, and raises if not.
        """
        changes = wire_values(request)
        check_offered(changes)
        draft = Draft({}, {}, {})
        draft.columns = {"publisher_category": request.publisher_category.value, "is_active": True, "description": None}
        draft.columns |= {"wallet_address": request.wallet_address, "wallet_network_id": request.wallet_network_id}
        draft.apply(changes)
        publisher_id = uuid7()
        check_bounds(changes, self.settings.proxy)
        await self._check_urls(changes)
        found = await self._inspected(draft.columns["publisher_category"], changes)
        try:
            async with self.database.transaction() as connection:
                await demand_none_in(connection, organization_id)
                if room is not None:
                    await room(connection)
                # Deleted ones count: they keep their slugs, and slugs must not be hoarded.
                most = self.settings.limits.publishers
                if await COUNT_EVER.one(connection, organization_id) >= most:
                    raise Conflict(f"An organization may create at most {most} publishers.", limit=most)
                await put_provider(connection, organization_id, draft.document, changes)
                await check_project(connection, organization_id, changes)
                assets = await _accepted(connection, request)
                await self._check(connection, draft, assets)
                await self._insert(
                    connection, publisher_id, organization_id, account_id, request.slug, draft, assets[0]
                )
                await _put_sale(connection, publisher_id, found)
                for asset in assets:
                    await ADD_ASSET.run(connection, publisher_id, asset.id)
                    row = Pricing(publisher_id, asset.id, pricing_model=_pricing_model(draft))
                    await put_pricing(connection, row.changed(asset, _price_changes(changes)))
                made = await _whole(connection, organization_id, publisher_id)
                after = facts(draft, await list_pricing(connection, [publisher_id]))
                await note(connection, "publisher.create", organization_id, made.record, after=after)
                return made
        except UniqueViolation:
            raise Conflict("This slug is taken; slugs of deleted publishers stay reserved.", field="slug") from None

    async def update(self, organization_id: UUID, publisher_id: UUID, request: UpdatePublisherRequest) -> Publisher:
        """Change what the request names. Raises NotFound, InvalidRequest; Suspended for who would activate it."""
        changes = wire_values(request)
        check_offered(changes)
        check_bounds(changes, self.settings.proxy)
        await self._check_urls(changes)
        async with self.database.acquire() as connection:
            category = (await _whole(connection, organization_id, publisher_id)).record.category
        found = await self._inspected(changes.get("publisher_category") or category, changes)
        async with self.database.transaction() as connection:
            record = await _locked(connection, organization_id, publisher_id)
            if changes.get("is_active"):
                record.demand_not_suspended()
            draft = self.draft_of(record)
            before = facts(draft, await list_pricing(connection, [publisher_id]))
            draft.apply(changes)
            await put_provider(connection, organization_id, draft.document, changes)
            await check_project(connection, organization_id, changes)
            if "database_config" in changes:
                await DELETE_SALE.run(connection, publisher_id)
                await _put_sale(connection, publisher_id, found)
            known = await all_assets(connection)
            accepted = _changed_assets(record, known, request)
            await self._check(connection, draft, accepted)
            await self._write(connection, record, draft, accepted[0])
            await self._write_assets(connection, record, known, accepted, changes)
            made = await _whole(connection, organization_id, publisher_id)
            after = facts(draft, await list_pricing(connection, [publisher_id]))
            await note(connection, "publisher.update", organization_id, made.record, before=before, after=after)
            return made

    async def describe(
        self, organization_id: UUID, publisher_id: UUID, imported: Sequence[Mapping[str, Any]], *, replace: bool
    ) -> tuple[Publisher, Merged]:
        """Put imported endpoints beside those that are there (openapi/merging.py). Raises NotFound, InvalidRequest.

        They are read and written under one lock, so that nobody's change in between is lost.
        """
        async with self.database.transaction() as connection:
            record = await _locked(connection, organization_id, publisher_id)
            draft = self.draft_of(record)
            before = facts(draft, ())
            merged = merge(draft.document.get("endpoints") or [], imported, replace=replace)
            draft.apply({"endpoints": merged.endpoints})
            known = await all_assets(connection)
            await self._check(connection, draft, [known[asset_id] for asset_id in record.asset_ids])
            await self._write(connection, record, draft, None)
            made = await _whole(connection, organization_id, publisher_id)
            await note(
                connection, "publisher.import_openapi", organization_id, record, before=before, after=facts(draft, ()),
                added=merged.added, removed=merged.removed,
            )  # fmt: skip
            return made, merged

    async def change_endpoints(
        self, organization_id: UUID, publisher_id: UUID, action: str, change: Change
    ) -> Publisher:
        """Change the list of endpoints (endpoint_list.py). Raises NotFound, InvalidRequest, and what the change does.

        The list is read and written under one lock, so that nobody's change in between is lost.
        """
        async with self.database.transaction() as connection:
            record = await _locked(connection, organization_id, publisher_id)
            draft = self.draft_of(record)
            before = facts(draft, ())
            draft.apply({"endpoints": change(draft.document.get("endpoints") or [])})
            known = await all_assets(connection)
            await self._check(connection, draft, [known[asset_id] for asset_id in record.asset_ids])
            await self._write(connection, record, draft, None)
            made = await _whole(connection, organization_id, publisher_id)
            await note(connection, action, organization_id, record, before=before, after=facts(draft, ()))
            return made

    async def update_pricing(
        self, organization_id: UUID, publisher_id: UUID, request: UpdatePricingRequest
    ) -> tuple[Pricing, Asset]:
        """Change the prices in one accepted asset. Raises NotFound, InvalidRequest."""
        changes = wire_values(request)
        check_offered(changes)
        del changes["asset_id"]
        of_publisher = (*TokenExchange.model_fields, *TierFields.model_fields)
        along = {name: changes.pop(name) for name in of_publisher if name in changes}
        await self._check_urls(along)
        async with self.database.transaction() as connection:
            record = await _locked(connection, organization_id, publisher_id)
            if request.asset_id not in record.asset_ids:
                raise refused("asset_id", "is not an asset that this publisher accepts")
            known = await all_assets(connection)
            rows = {row.asset_id: row for row in await list_pricing(connection, [publisher_id])}
            draft = self.draft_of(record)
            before = facts(draft, rows.values())
            if along:
                draft.apply(along)
                check_tiers(draft.document, record.category, [known[asset_id] for asset_id in record.asset_ids])
                await self._write(connection, record, draft, None)
            if along.get("price_tiers"):  # in every asset
                changes.setdefault("pricing_model", "tiered")
                for other in rows.values():
                    await put_pricing(connection, replace(other, pricing_model="tiered"))
            asset = known[request.asset_id]
            row = rows.get(asset.id, Pricing(publisher_id, asset.id)).changed(asset, changes)
            check_model(draft.document, row.pricing_model)
            await put_pricing(connection, row)
            await TOUCH_PUBLISHER.run(connection, publisher_id)
            after = facts(draft, await list_pricing(connection, [publisher_id]))
            await note(connection, "publisher.update_pricing", organization_id, record, before=before, after=after)
            return row, asset

    async def delete(self, organization_id: UUID, publisher_id: UUID) -> None:
        """Take a publisher out of the store and destroy its credentials. Raises NotFound, or Suspended: it is kept."""
        async with self.database.transaction() as connection:
            record = await _locked(connection, organization_id, publisher_id)
            record.demand_not_suspended()
            await DELETE_PUBLISHER.run(connection, publisher_id)
            await note(connection, "publisher.delete", organization_id, record)

    async def get(self, connection: Connection, organization_id: UUID, publisher_id: UUID) -> Publisher:
        """Return a publisher of an organization. Raises NotFound."""
        return await _whole(connection, organization_id, publisher_id)

    def draft_of(self, record: Record) -> Draft:
        """Return a stored publisher as a draft, its secrets opened: not for answers."""
        columns = {
            "name": record.name,
            "description": record.description,
            "publisher_category": record.category,
            "wallet_address": record.wallet_address,
            "wallet_network_id": record.wallet_network_id,
            "is_active": record.is_active,
        }
        secrets: dict[str, Any] = {}
        if record.credentials is not None:
            secrets = orjson.loads(self.box.open(record.credentials, record.id.bytes))
        return Draft(columns, dict(record.document), secrets)

    def _sealed(self, publisher_id: UUID, secrets: Mapping[str, Any]) -> bytes | None:
        return self.box.seal(orjson.dumps(secrets), publisher_id.bytes) if secrets else None

    async def _check_urls(self, changes: Mapping[str, Any]) -> None:
        """Ask before any lock is taken: names are resolved here."""
        for name in URL_FIELDS:
            url = changes.get(name)
            if url is not None:
                try:
                    await self.urls.check(url)
                except ValueError as error:
                    raise refused(name, str(error)) from None

    async def _inspected(self, category: str, changes: Mapping[str, Any]) -> Inspection | None:
        """Look into a PostgreSQL that is to be sold from, before any lock is taken. Raises InvalidRequest."""
        config = changes.get("database_config")
        return await self.inspect(read_config(config)) if is_postgres(category, config) else None

    async def _check(self, connection: Connection, draft: Draft, assets: Sequence[Asset]) -> None:
        if not await NETWORK_EXISTS.one(connection, draft.columns["wallet_network_id"]):
            raise refused("wallet_network_id", "is not a network that this gateway knows (CAIP-2, such as eip155:8453)")
        check_whole(draft)
        await check_host(connection, draft.document)
        check_exposure(draft.document.get("x402_exposure"), assets)
        check_metering(draft.document, assets)
        check_tiers(draft.document, draft.columns["publisher_category"], assets)
        for position, endpoint in enumerate(draft.document.get("endpoints") or []):
            if endpoint.get("price") is not None:
                check_endpoint_price(endpoint["price"], assets, f"endpoints.{position}.price")

    async def _insert(
        self,
        connection: Connection,
        publisher_id: UUID,
        organization_id: UUID,
        account_id: UUID,
        slug: str,
        draft: Draft,
        primary: Asset,
    ) -> None:
        columns = draft.columns
        await INSERT_PUBLISHER.run(
            connection, publisher_id, organization_id, account_id, slug, columns["name"], columns["description"],
            columns["publisher_category"], columns["wallet_address"], columns["wallet_network_id"], draft.document,
            self._sealed(publisher_id, draft.secrets), primary.id,
        )  # fmt: skip

    async def _write(self, connection: Connection, record: Record, draft: Draft, primary: Asset | None) -> None:
        columns = draft.columns
        await UPDATE_PUBLISHER.run(
            connection, record.id, columns["name"], columns["description"], columns["publisher_category"],
            columns["wallet_address"], columns["wallet_network_id"], columns["is_active"], draft.document,
            self._sealed(record.id, draft.secrets), record.primary_asset_id if primary is None else primary.id,
        )  # fmt: skip

    async def _write_assets(
        self,
        connection: Connection,
        record: Record,
        known: Mapping[UUID, Asset],
        accepted: Sequence[Asset],
        changes: Mapping[str, Any],
    ) -> None:
        """Bring accepted assets and prices up to date. A new asset starts with the prices of the primary one."""
        gone = [asset_id for asset_id in record.asset_ids if asset_id not in {asset.id for asset in accepted}]
        rows = {row.asset_id: row for row in await list_pricing(connection, [record.id])}
        model = rows.get(record.primary_asset_id, Pricing(record.id, record.primary_asset_id))
        carried = model.texts(
            known[record.primary_asset_id], (*PRICE_FIELDS, "pricing_model", "min_charge", "max_charge")
        )
        prices = _price_changes(changes)
        await DELETE_PRICING.run(connection, record.id, gone)
        await REMOVE_ASSETS.run(connection, record.id, gone)
        for asset in accepted:
            row = rows.get(asset.id)
            if row is None:
                await ADD_ASSET.run(connection, record.id, asset.id)
                await put_pricing(connection, Pricing(record.id, asset.id).changed(asset, {**carried, **prices}))
            elif prices:
                await put_pricing(connection, row.changed(asset, prices))


async def _put_sale(connection: Connection, publisher_id: UUID, found: Inspection | None) -> None:
    if found is not None:
        await PUT_SALE.run(connection, publisher_id, found.tables, found.samples, found.findings)


def wire_values(request: BaseModel) -> dict[str, Any]:
    """Return the fields that the request names, as JSON-ready values; null where it says null."""
    return request.model_dump(mode="json", exclude_unset=True)


def _price_changes(changes: Mapping[str, Any]) -> dict[str, Any]:
    prices = {name: value for name, value in changes.items() if name in PRICE_FIELDS}
    return {**prices, "pricing_model": "tiered"} if changes.get("price_tiers") else prices


def _pricing_model(draft: Draft) -> str:
    if draft.columns["publisher_category"] == "database":
        return "per_row"
    if draft.value("price_tiers"):
        return "tiered"
    if draft.value("billing_model") in ("x402_passthrough", "pay_per_use"):
        return "passthrough"
    # A price of bytes that nobody charges would give the bytes away.
    by_byte = draft.value("price_per_mib") and draft.value("integration_type") != "mcp"
    return "per_byte" if by_byte else "per_request"


async def _whole(connection: Connection, organization_id: UUID, publisher_id: UUID) -> Publisher:
    record = await FIND_IN_ORGANIZATION.first(connection, organization_id, publisher_id)
    if record is None:
        raise NotFound("This organization has no publisher with this id.")
    return (await assemble(connection, [record]))[0]


async def _locked(connection: Connection, organization_id: UUID, publisher_id: UUID) -> Record:
    record = await LOCK_IN_ORGANIZATION.first(connection, organization_id, publisher_id)
    if record is None:
        raise NotFound("This organization has no publisher with this id.")
    return record


async def _accepted(connection: Connection, request: CreatePublisherRequest) -> list[Asset]:
    """Return the assets that a new publisher takes: those named, else USDC of its own network, else the default."""
    known = await all_assets(connection)
    if request.accepted_asset_ids is not None:
        chosen = [
            _known(known, asset_id, "accepted_asset_ids") for asset_id in dict.fromkeys(request.accepted_asset_ids)
        ]
        if not chosen:
            raise refused("accepted_asset_ids", "must name at least one asset, or be left out")
        return chosen
    own = [a for a in known.values() if a.network_id == request.wallet_network_id and a.symbol == "USDC"]
    return own[:1] or [asset for asset in known.values() if asset.is_default]


def _changed_assets(record: Record, known: Mapping[UUID, Asset], request: UpdatePublisherRequest) -> list[Asset]:
    """Return the accepted assets after an update; the first of them is the primary one."""
    added = [_known(known, asset_id, "add_asset_ids").id for asset_id in request.add_asset_ids or []]
    removed = {_known(known, asset_id, "remove_asset_ids").id for asset_id in request.remove_asset_ids or []}
    kept = [asset_id for asset_id in dict.fromkeys([*record.asset_ids, *added]) if asset_id not in removed]
    if not kept:
        raise refused("remove_asset_ids", "must leave at least one accepted asset")
    return [known[asset_id] for asset_id in kept]


def _known(known: Mapping[UUID, Asset], asset_id: UUID, field: str) -> Asset:
    if asset_id not in known:
        raise refused(field, "names an asset that this gateway does not know")
    return known[asset_id]
