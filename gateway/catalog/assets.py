"""Networks and assets: the reference data that prices and wallets are denominated in.

They come from config/networks.toml (gateway/networks.py). `tollway migrate` writes them to the database, and a gateway
starts only where they are there as its file declares them. Identifiers are derived from network and symbol, so every
installation has the same ones.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from gateway.database.migrate import MigrationError
from gateway.database.pool import Connection
from gateway.database.statement import Command, Statement
from gateway.networks import Networks, load_networks

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "tollway:asset")


@dataclass(frozen=True, slots=True)
class Asset:
    """One asset on one network. `ledger_asset_id` is the asset in which prepaid money for it is kept."""

    id: UUID
    network_id: str
    network_name: str
    symbol: str
    name: str
    decimals: int
    contract_address: str | None
    is_native: bool
    is_stablecoin: bool
    ledger_asset_id: UUID
    is_default: bool

    @property
    def path(self) -> str:
        """Network and symbol, as networks.toml names an asset."""
        return f"{self.network_id}/{self.symbol}"


LIST_ASSETS = Statement(
    """
    SELECT a.id, a.network_id, n.name AS network_name, a.symbol, a.name, a.decimals, a.contract_address, a.is_native,
           a.is_stablecoin, a.ledger_asset_id, a.is_default
      FROM catalog.asset a JOIN catalog.network n ON n.id = a.network_id
     ORDER BY a.is_default DESC, a.network_id, a.symbol
    """,
    Asset,
)
PUT_NETWORK = Command("INSERT INTO catalog.network (id, name) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET name = $2")
PUT_ASSET = Command(
    """
    INSERT INTO catalog.asset (id, network_id, symbol, name, decimals, contract_address, is_native, is_stablecoin,
                               ledger_asset_id, is_default)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (id) DO UPDATE SET name = $4
    """
)
# What money is counted in: it cannot change under balances and prices that exist.
FIXED = ("decimals", "contract_address", "is_native", "is_stablecoin", "ledger_asset_id")


def asset_id(network: str, symbol: str) -> UUID:
    """Return the stable identifier of an asset."""
    return uuid.uuid5(NAMESPACE, f"{network}/{symbol}")


def declared_assets(networks: Networks) -> list[Asset]:
    """Return the assets of networks.toml as the catalog keeps them, the default first: others may refer to it."""
    return sorted(
        (
            Asset(
                asset_id(network.id, asset.symbol),
                network.id,
                network.name,
                asset.symbol,
                asset.name,
                asset.decimals,
                asset.contract,
                asset.native,
                asset.stablecoin,
                asset_id(*(asset.prepaid_as or f"{network.id}/{asset.symbol}").rsplit("/", 1)),
                f"{network.id}/{asset.symbol}" == networks.default_asset,
            )
            for network in networks.networks
            for asset in network.assets
        ),
        key=lambda asset: not asset.is_default,
    )


async def store_assets(connection: Connection, networks: Networks | None = None) -> None:
    """Write networks and assets (default: those of the shipped file) into the catalog. Safe to repeat.

    Raises MigrationError, and changes nothing, where the catalog has one of the assets with other properties.
    """
    declared = networks or load_networks()
    async with connection.transaction():
        stored = {asset.id: asset for asset in await LIST_ASSETS.all(connection)}
        _require_unchanged(stored, declared)
        for network in declared.networks:
            await PUT_NETWORK.run(connection, network.id, network.name)
        for asset in declared_assets(declared):
            await PUT_ASSET.run(
                connection, asset.id, asset.network_id, asset.symbol, asset.name, asset.decimals,
                asset.contract_address, asset.is_native, asset.is_stablecoin, asset.ledger_asset_id, asset.is_default,
            )  # fmt: skip


async def require_assets(connection: Connection, networks: Networks) -> None:
    """Raise MigrationError unless the catalog has each declared asset with the declared properties."""
    stored = {asset.id: asset for asset in await LIST_ASSETS.all(connection)}
    _require_unchanged(stored, networks)
    lacking = [asset.path for asset in declared_assets(networks) if asset.id not in stored]
    if lacking:
        raise MigrationError(f"the database lacks {', '.join(lacking)} of networks.toml: run `tollway migrate`")


def _require_unchanged(stored: Mapping[UUID, Asset], networks: Networks) -> None:
    default = next((asset for asset in stored.values() if asset.is_default), None)
    if default is not None and default.path != networks.default_asset:
        raise MigrationError(
            f"networks.toml says default_asset = {networks.default_asset}, and this database was made with "
            f"{default.path}: balances are kept in it, so it cannot change"
        )
    for asset in declared_assets(networks):
        present = stored.get(asset.id)
        for field in FIXED if present is not None else ():
            if getattr(asset, field) != getattr(present, field):
                raise MigrationError(
                    f"networks.toml says {field} = {getattr(asset, field)} for {asset.path}, and the database has "
                    f"{getattr(present, field)}: it cannot change once money is counted in it"
                )
