"""Suspensions: what an operator has stopped, and only an operator starts again.

A publisher is not called, a key, account or organization does nothing, a wallet buys nothing. The owner is told the
reason wherever it is refused; nobody else hears that there is a suspension. Nothing is revoked or deleted, so that
lifting it brings everything back as it was. Calls in flight end as they would have, and no money is moved.

Keys and sessions read their suspension when they are looked up (principals.py, sessions.py), publishers in the catalog
(catalog/snapshot.py). Addresses on chains are nobody's row, so each worker keeps those that are suspended in memory.
What does not live here: who may suspend (admin_api/resources, cli), and the triggers that tell workers (migration
0059).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from gateway.database.pool import Connection, Database
from gateway.database.statement import Statement
from gateway.errors import Suspended

Kind = Literal["publisher", "key", "account", "organization", "wallet"]
KINDS: tuple[Kind, ...] = ("publisher", "key", "account", "organization", "wallet")
_CALLED = {
    "publisher": "This publisher",
    "key": "This API key",
    "account": "Your account",
    "organization": "This organization",
    "wallet": "This wallet",
}


@dataclass(frozen=True, slots=True)
class Suspension:
    """What the owner is told of a suspension."""

    kind: str
    reason: str
    since: str

    @staticmethod
    def read(told: Mapping[str, str] | None) -> Suspension | None:
        """Return the suspension that the database told (identity.suspension_told), None for none."""
        return None if told is None else Suspension(told["kind"], told["reason"], told["since"])

    def refusal(self) -> Suspended:
        """Return the refusal for its owner."""
        return Suspended(
            f"{_CALLED[self.kind]} is suspended by the gateway's operator: {self.reason}",
            suspended=self.kind, reason=self.reason, since=self.since,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _SuspendedWallet:
    subject: str
    told: dict[str, str]


OF_ACCOUNT = Statement("SELECT identity.suspension_of(NULL, $1, $2)", Suspension.read, scalar=True)
OF_WALLET = Statement("SELECT identity.suspension_of_wallet($1)", Suspension.read, scalar=True)
OF_PUBLISHER = Statement(
    "SELECT identity.suspension_of_publisher(id, organization_id) FROM catalog.publisher WHERE id = $1",
    Suspension.read,
    scalar=True,
)
SUSPENDED_IN = Statement(
    """
    SELECT identity.suspension_of_publisher(id, organization_id) FROM catalog.publisher
     WHERE organization_id = $1 AND suspended ORDER BY id LIMIT 1
    """,
    Suspension.read,
    scalar=True,
)
SUSPENDED_PUBLISHERS = Statement(
    "SELECT id::text FROM catalog.publisher WHERE id = ANY ($1::uuid[]) AND suspended", UUID, scalar=True
)
SUSPENDED_WALLETS = Statement(
    """
    SELECT s.subject, identity.suspension_told(s) AS told FROM identity.suspension s
     WHERE s.kind = 'wallet' AND s.subject LIKE '0x%' AND s.lifted_at IS NULL
    """,
    _SuspendedWallet,
)


async def demand_account(connection: Connection, account_id: UUID, organization_id: UUID | None = None) -> None:
    """Raise Suspended for an account that is suspended, or whose organization is, where one is named."""
    found = await OF_ACCOUNT.first(connection, account_id, organization_id)
    if found is not None:
        raise found.refusal()


async def demand_publisher(connection: Connection, publisher_id: UUID) -> None:
    """Raise Suspended for a publisher that is suspended."""
    found = await OF_PUBLISHER.first(connection, publisher_id)
    if found is not None:
        raise found.refusal()


async def demand_none_in(connection: Connection, organization_id: UUID) -> None:
    """Raise Suspended where a publisher of the organization is suspended: another one must not take its place."""
    found = await SUSPENDED_IN.first(connection, organization_id)
    if found is not None:
        raise found.refusal()


class SuspendedWallets:
    """The suspended addresses on chains, in memory: a payment is compared with them and no query is made.

    One per worker. The listener loads it at start, when it hears of a change, and periodically while it cannot hear.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._found: dict[str, Suspension] = {}
        self.changes = 0

    async def load(self) -> None:
        """Read them all. Raises what the database raises."""
        rows = await self._database.read(SUSPENDED_WALLETS.all)
        found = {row.subject: Suspension.read(row.told) for row in rows}
        self._found = {subject: one for subject, one in found.items() if one is not None}
        self.changes += 1

    def find(self, address: bytes) -> Suspension | None:
        """Return the suspension of an address (20 bytes), on whatever chain."""
        return self._found.get("0x" + address.hex()) if self._found else None

    def demand(self, address: bytes) -> None:
        """Raise Suspended for a suspended address: its holder has proven to be that, by a signature."""
        found = self.find(address)
        if found is not None:
            raise found.refusal()
