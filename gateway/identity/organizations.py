"""Organizations: those of an account with its default one, which `default` in a URL stands for, and shared ones.

A personal organization comes with its account and lives as long. Shared ones are made, renamed and deleted here; who
belongs to them is in members.py. What was deleted keeps its slug, so that nobody takes the place of who was there.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from gateway.audit.entries import record
from gateway.database.pool import Connection
from gateway.database.statement import Command, Statement
from gateway.errors import Conflict
from gateway.identity import names
from gateway.identity.permissions import Member, Permission, locked
from gateway.ids import uuid7

MAX_OWNED = 100
"""Shared organizations that one account may have made: above honest use."""


@dataclass(frozen=True, slots=True)
class Organization:
    """One tenant."""

    id: UUID
    name: str
    slug: str
    is_personal: bool
    created_by: UUID
    stripe_customer_id: str | None
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    suspension: dict[str, str] | None
    """What its members are told while an operator has suspended it."""


# The first organization is the default: the personal one, else the one joined first.
LIST_ORGANIZATIONS = Statement(
    """
    SELECT o.id, o.name, o.slug, o.is_personal, o.created_by, o.stripe_customer_id, o.created_at, o.updated_at,
           o.deleted_at, identity.suspension_of(NULL, NULL, o.id) AS suspension
      FROM identity.membership m JOIN identity.organization o ON o.id = m.organization_id
     WHERE m.account_id = $1 AND o.deleted_at IS NULL
     ORDER BY o.is_personal DESC, m.created_at, o.id
    """,
    Organization,
)


async def of_account(connection: Connection, account_id: UUID) -> list[Organization]:
    """Return the organizations that an account belongs to, its default one first."""
    return await LIST_ORGANIZATIONS.all(connection, account_id)


async def default_of(connection: Connection, account_id: UUID) -> Organization | None:
    """Return an account's default organization, if it has any."""
    return await LIST_ORGANIZATIONS.first(connection, account_id)


FIND_ORGANIZATION = Statement(
    """
    SELECT id, name, slug, is_personal, created_by, stripe_customer_id, created_at, updated_at, deleted_at,
           identity.suspension_of(NULL, NULL, id) AS suspension
      FROM identity.organization WHERE id = $1
    """,
    Organization,
)
# The account is locked: of two that are made at once the second counts the first.
LOCK_FOUNDER = Command("SELECT FROM identity.account WHERE id = $1 FOR NO KEY UPDATE")
COUNT_MADE = Statement(
    "SELECT count(*) FROM identity.organization WHERE created_by = $1 AND deleted_at IS NULL AND NOT is_personal",
    int,
    scalar=True,
)
INSERT_SHARED = Command(
    """
    INSERT INTO identity.organization (id, name, slug, created_by) VALUES ($1, $2, $3, $4)
    ON CONFLICT (slug) DO NOTHING
    """
)
INSERT_OWNER = Command("INSERT INTO identity.membership (organization_id, account_id, role) VALUES ($1, $2, 'owner')")
RENAME = Command("UPDATE identity.organization SET name = $2, updated_at = now() WHERE id = $1")
# Whoever adds a publisher or a project at this moment is waited for.
LOCK_WHOLE = Command("SELECT FROM identity.organization WHERE id = $1 FOR UPDATE")
HAS_PUBLISHERS = Statement(
    "SELECT EXISTS (SELECT FROM catalog.publisher WHERE organization_id = $1 AND deleted_at IS NULL)", bool, scalar=True
)
HAS_PROJECTS = Statement(
    "SELECT EXISTS (SELECT FROM project.project WHERE organization_id = $1 AND deleted_at IS NULL)", bool, scalar=True
)
HAS_PAYOUTS = Statement(
    "SELECT EXISTS (SELECT FROM chain.payout WHERE organization_id = $1 AND state IN ('queued', 'processing'))",
    bool,
    scalar=True,
)
DELETE_ORGANIZATION = Command(
    "UPDATE identity.organization SET deleted_at = now(), updated_at = now() WHERE id = $1 AND deleted_at IS NULL"
)


async def load_organization(connection: Connection, organization_id: UUID) -> Organization:
    """Return an organization that is known to exist. Raises LookupError."""
    return await FIND_ORGANIZATION.one(connection, organization_id)


async def create_organization(connection: Connection, account_id: UUID, name: str) -> Organization:
    """Make a shared organization that the account owns. Raises Conflict when it has made very many."""
    await LOCK_FOUNDER.run(connection, account_id)
    if await COUNT_MADE.one(connection, account_id) >= MAX_OWNED:
        raise Conflict(f"This account has made {MAX_OWNED} organizations; delete some first.")
    organization_id = uuid7()
    slug = names.slug_of(name)
    if not slug or not await INSERT_SHARED.run(connection, organization_id, name, slug, account_id):
        unique = f"{slug[:50] or 'organization'}-{organization_id.hex[-12:]}"
        await INSERT_SHARED.run(connection, organization_id, name, unique, account_id)
    await INSERT_OWNER.run(connection, organization_id, account_id)
    made = await load_organization(connection, organization_id)
    await record(connection, "organization.create", organization_id, organization_id, after=made)
    return made


async def rename_organization(connection: Connection, member: Member, name: str) -> Organization:
    """Give an organization another name; its slug stays. Raises Forbidden."""
    actor = await locked(connection, member, Permission.ORG_UPDATE)
    before = await load_organization(connection, actor.organization_id)
    await RENAME.run(connection, before.id, name)
    after = await load_organization(connection, before.id)
    await record(connection, "organization.update", before.id, before.id, before=before, after=after)
    return after


async def delete_organization(connection: Connection, member: Member) -> None:
    """Delete a shared organization that has nothing; keys and invitations die. Raises Conflict, Forbidden."""
    actor = await locked(connection, member, Permission.ORG_DELETE)
    before = await load_organization(connection, actor.organization_id)
    if before.is_personal:
        raise Conflict("A personal organization lives as long as its account.")
    await LOCK_WHOLE.run(connection, before.id)
    if await HAS_PUBLISHERS.one(connection, before.id):
        raise Conflict("This organization still has publishers; delete them first.")
    if await HAS_PROJECTS.one(connection, before.id):
        raise Conflict("This organization still has projects; delete them first.")
    if await HAS_PAYOUTS.one(connection, before.id):
        raise Conflict("This organization has payouts that have not ended; wait for them, or cancel them first.")
    await DELETE_ORGANIZATION.run(connection, before.id)
    await record(connection, "organization.delete", before.id, before.id, before=before)
