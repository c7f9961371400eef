"""Accounts: registering an agent whole, and reading one.

Registration is one transaction: account, personal organization, owner membership, the API key named `agent` and the
wallet. A half-registered agent (a key without a wallet) can therefore not exist. The wallet's money is ledger/'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from gateway.audit.entries import record
from gateway.audit.origin import origin
from gateway.database.pool import Connection, Database, UniqueViolation
from gateway.database.statement import Command, Statement
from gateway.errors import Conflict
from gateway.identity import budgets, codes, names
from gateway.identity.budgets import KeyBudget
from gateway.identity.clients import Network
from gateway.identity.principals import NewKey, new_key
from gateway.ids import uuid7
from gateway.ledger.wallets import open_wallet

AGENT_KEY_NAME = "agent"
TRIES = 8
"""Invented names and codes are drawn again when taken; eight failures in a row mean a fault, not bad luck."""


@dataclass(frozen=True, slots=True)
class Account:
    """A registered account; nothing secret."""

    id: UUID
    kind: str
    name: str
    email: str | None
    avatar_url: str | None
    status: str
    referral_code: str
    referred_by: UUID | None
    has_recovery: bool
    recovery_email: str | None
    created_at: datetime

    @property
    def contact_email(self) -> str:
        """Return the e-mail address that the contract demands; an agent has no mailbox, so its is undeliverable."""
        return self.email or f"{self.id}@agents.invalid"


@dataclass(frozen=True, slots=True)
class Registered:
    """A new or recovered agent with its fresh key, which is shown once."""

    account: Account
    organization_id: UUID
    key: NewKey


INSERT_ACCOUNT = Command("INSERT INTO identity.account (id, kind, name, referral_code) VALUES ($1, $2, $3, $4)")
INSERT_ORGANIZATION = Command(
    "INSERT INTO identity.organization (id, name, slug, is_personal, created_by) VALUES ($1, $2, $3, $4, $5)"
)
INSERT_MEMBERSHIP = Command("INSERT INTO identity.membership (organization_id, account_id, role) VALUES ($1, $2, $3)")
INSERT_KEY = Command(
    """
    INSERT INTO identity.api_key (id, key_id, secret_hash, name, organization_id, account_id, expires_at, budget_scope,
                                  budget_asset, budget_per_call, budget_per_day, budget_per_month, scopes, addresses)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::text::numeric, $11::text::numeric, $12::text::numeric, $13,
            $14)
    """
)
FIND_ACCOUNT = Statement(
    """
    SELECT id, kind, name, email, avatar_url, status, referral_code, referred_by,
           recovery_hash IS NOT NULL AS has_recovery, recovery_email, created_at
      FROM identity.account WHERE id = $1
    """,
    Account,
)
FIND_AGENT = Statement(
    "SELECT id::text FROM identity.account WHERE kind = 'agent' AND lower(name) = lower($1)", UUID, scalar=True
)
SLUG_TAKEN = Statement("SELECT EXISTS (SELECT FROM identity.organization WHERE slug = $1)", bool, scalar=True)


async def register_agent(database: Database, asset_id: UUID, name: str | None = None) -> Registered:
    """Create an agent with everything it needs to pay at once.

    `name` is in the form of names.check; without one a name is invented. Raises Conflict when another agent has it.
    """
    for _ in range(TRIES):
        try:
            async with database.transaction() as connection:
                return await _register(connection, asset_id, name or names.invent())
        except UniqueViolation as error:
            taken = getattr(error, "constraint_name", "")
            if name is not None and taken == "account_agent_name":
                raise Conflict("Another agent has this name. Choose another one, or send none.", field="name") from None
    raise RuntimeError("no unique name and codes were found for a new agent")


async def load(connection: Connection, account_id: UUID) -> Account:
    """Return an account that is known to exist. Raises LookupError."""
    return await FIND_ACCOUNT.one(connection, account_id)


async def add_key(
    connection: Connection,
    *,
    name: str,
    organization_id: UUID,
    account_id: UUID,
    expires_at: datetime | None = None,
    budget: KeyBudget | None = None,
    scopes: Sequence[str] | None = None,
    addresses: Sequence[Network] | None = None,
) -> tuple[UUID, NewKey]:
    """Store a fresh key and return its id with the key; the text of the key is kept nowhere."""
    key, key_row = new_key(), uuid7()
    await INSERT_KEY.run(
        connection, key_row, key.key_id, key.secret_hash, name, organization_id, account_id, expires_at,
        *budgets.written(budget), scopes, addresses,
    )  # fmt: skip
    return key_row, key


def wallet_address(account_id: UUID) -> str:
    """Return the name of a prepaid wallet. Deliberately no chain address: nobody may send money to it."""
    return f"agent:{account_id}"


async def _register(connection: Connection, asset_id: UUID, name: str) -> Registered:
    account_id, organization_id = uuid7(), uuid7()
    await INSERT_ACCOUNT.run(connection, account_id, "agent", name, codes.new_referral_code())
    slug = await free_slug(connection, name)
    await INSERT_ORGANIZATION.run(connection, organization_id, name, slug, True, account_id)
    await INSERT_MEMBERSHIP.run(connection, organization_id, account_id, "owner")
    _, key = await add_key(connection, name=AGENT_KEY_NAME, organization_id=organization_id, account_id=account_id)
    await open_wallet(connection, account_id, asset_id, wallet_address(account_id))
    origin().actor_type, origin().actor_id = "agent", account_id
    details = {"name": name, "key_id": key.key_id}
    await record(connection, "account.register", organization_id, account_id, details=details)
    return Registered(await load(connection, account_id), organization_id, key)


async def free_slug(connection: Connection, name: str) -> str:
    """Return a slug for an organization that is named like its owner; taken meanwhile, the insert fails."""
    slug = names.slug_of(name)
    if slug and not await SLUG_TAKEN.one(connection, slug):
        return slug
    return f"{slug[:55] or 'agent'}-{uuid7().hex[-8:]}"
