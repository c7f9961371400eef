"""Networks and assets: the reference data that prices and wallets are denominated in.

They come from config/networks.toml (gateway/networks.py) and are written to the database at migration; identifiers are
derived from network and symbol, so every installation has the same ones.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from uuid import UUID

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


def asset_id(network: str, symbol: str) -> UUID:
    """Return the stable identifier of an asset."""
    return uuid.uuid5(NAMESPACE, f"{network}/{symbol}")


async def store_assets(connection: Connection, networks: Networks | None = None) -> None:
    """Write networks and assets (default: those of the shipped file) into the catalog."""
    declared = networks or load_networks()
    for network in declared.networks:
        await PUT_NETWORK.run(connection, network.id, network.name)
    rows = [(network.id, asset) for network in declared.networks for asset in network.assets]
    # The default first: assets of the same peg refer to it as their ledger asset.
    rows.sort(key=lambda row: f"{row[0]}/{row[1].symbol}" != declared.default_asset)
    for network_id, asset in rows:
        name = f"{network_id}/{asset.symbol}"
        await PUT_ASSET.run(
            connection, asset_id(network_id, asset.symbol), network_id, asset.symbol, asset.name, asset.decimals,
            asset.contract, asset.native, asset.stablecoin, asset_id(*(asset.prepaid_as or name).rsplit("/", 1)),
            name == declared.default_asset,
        )  # fmt: skip
