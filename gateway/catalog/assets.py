"""Networks and assets: the reference data that prices and wallets are denominated in.

They come from config/networks.toml and are written to the database at migration; identifiers are derived from network
and contract, so every installation has the same ones.
"""

from __future__ import annotations

import tomllib
import uuid
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from uuid import UUID

from gateway.database.pool import Connection
from gateway.database.statement import Command, Statement

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


def networks_file() -> Path:
    """Return config/networks.toml: of the checkout, or the copy inside the installed package."""
    checkout = Path(__file__).resolve().parents[2] / "config" / "networks.toml"
    return checkout if checkout.is_file() else Path(str(files("gateway") / "_config" / "networks.toml"))


async def store_assets(connection: Connection, document: str | None = None) -> None:
    """Write networks and assets from the TOML text (default: the shipped file) into the catalog."""
    text = document if document is not None else networks_file().read_text(encoding="utf-8")
    tree = tomllib.loads(text)
    default = str(tree["default_asset"])
    for network, entry in tree["network"].items():
        await PUT_NETWORK.run(connection, network, entry["name"])
    rows = [(network, asset) for network, entry in tree["network"].items() for asset in entry.get("asset", [])]
    # The default first: assets of the same peg refer to it as their ledger asset.
    rows.sort(key=lambda row: f"{row[0]}/{row[1]['symbol']}" != default)
    for network, asset in rows:
        name = f"{network}/{asset['symbol']}"
        kept_in = str(asset.get("prepaid_as", name))
        await PUT_ASSET.run(
            connection, asset_id(network, asset["symbol"]), network, asset["symbol"], asset["name"], asset["decimals"],
            asset.get("contract"), asset.get("native", False), asset.get("stablecoin", False),
            asset_id(*kept_in.rsplit("/", 1)), name == default,
        )  # fmt: skip
