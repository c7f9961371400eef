"""Wallets on a chain as accounts: whoever holds the key of an address may use what was deposited from it.

An account per network and address (a CAIP-10 account id), derived and not invented, because the same address may be
another owner's contract wallet on another chain. It has no API key and no organization: it proves itself by a signature
each time (gateway/billing/wallet_proofs.py), and can pay from its own deposits only, since it has nothing else.
"""

from __future__ import annotations

import uuid
from uuid import UUID

from gateway.database.pool import Connection
from gateway.database.statement import Command
from gateway.eip55 import checksum
from gateway.identity.principals import Principal

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "tollway:wallet")
KIND = "wallet"

# Its referral code is no code that anybody could enter.
OPEN_ACCOUNT = Command(
    """
    INSERT INTO identity.account (id, kind, name, referral_code) VALUES ($1, 'wallet', $2, $2)
    ON CONFLICT (id) DO NOTHING
    """
)


def caip10(network: str, address: bytes) -> str:
    """Return the account id of an address (20 bytes) on a network, such as eip155:8453:0x…, in EIP-55."""
    return f"{network}:{checksum('0x' + address.hex())}"


def account_of(network: str, address: bytes) -> UUID:
    """Return the id of a wallet's account, whether it exists or not."""
    return uuid.uuid5(NAMESPACE, caip10(network, address))


async def open_account(connection: Connection, network: str, address: bytes) -> UUID:
    """Return the id of a wallet's account, which exists afterwards."""
    account_id = account_of(network, address)
    await OPEN_ACCOUNT.run(connection, account_id, caip10(network, address))
    return account_id


def address_in(principal: Principal) -> bytes:
    """Return the address of a wallet that has proven itself."""
    return bytes.fromhex(principal.name.rpartition(":0x")[2])


def principal_of(network: str, address: bytes) -> Principal:
    """Return who has proven to hold a wallet. Limits count by its account id."""
    account_id, name = account_of(network, address), caip10(network, address)
    return Principal(account_id, account_id, account_id, name, name, KIND)
