"""The prepaid wallet that an operator names, by its address, its account's id or its agent's name, and its owner."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from gateway.billing.credits import wallet_of
from gateway.catalog.assets import Asset
from gateway.database.pool import Connection
from gateway.errors import NotFound
from gateway.identity.accounts import FIND_ACCOUNT, FIND_AGENT
from gateway.identity.organizations import default_of
from gateway.ledger.wallets import FIND_BY_ADDRESS, Wallet
from gateway.operators.subjects import ID, PREPAID
from gateway.operators.trail import write_down


async def find_wallet(connection: Connection, name: str, asset: Asset) -> Wallet:
    """Return a wallet; one of an account that has none yet is opened in this asset. Raises NotFound."""
    found = await FIND_BY_ADDRESS.first(connection, name)
    if found is not None:
        return found
    prepaid = PREPAID.fullmatch(name)
    named = prepaid[1] if prepaid else name
    account_id = UUID(named) if ID.fullmatch(named) else await FIND_AGENT.first(connection, named)
    if account_id is None or await FIND_ACCOUNT.first(connection, account_id) is None:
        raise NotFound(f"No wallet or agent is called {name}.")
    return await wallet_of(connection, account_id, asset.id)


async def tell_owner(
    connection: Connection,
    action: str,
    operator: str,
    wallet: Wallet,
    told: Mapping[str, object],
    *,
    approved_by: str | None,
) -> None:
    """Record what an operator did to a wallet, last in its transaction: for its owner and for the platform."""
    home = await default_of(connection, wallet.owner_id)
    owners = [home.id] if home else []
    await write_down(connection, action, operator, owners, wallet.owner_id, told, approved_by=approved_by)
