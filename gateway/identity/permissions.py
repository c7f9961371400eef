"""The one place that answers "may this caller do X", in an organization and for its own account.

Roles are sets of permissions; a membership gives one role. What an API key may do is that, less what its scopes leave
out. An organization that the caller is not in is answered exactly like one that does not exist (403), so that ids
cannot be probed. What does not live here: which operation needs what (the routes declare it, admin_api/kit/needs.py),
and which object belongs to which organization; resources look objects up *inside* the organization, and answer 404 when
they are not there.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from gateway.audit.origin import origin
from gateway.database.pool import Connection
from gateway.database.statement import Statement
from gateway.errors import Forbidden
from gateway.identity.principals import Principal
from gateway.suspensions import Suspension


class Permission(StrEnum):
    """What can be done inside an organization, as `resource.action`; roles hold these."""

    ORG_READ = "org.read"
    ORG_UPDATE = "org.update"
    ORG_DELETE = "org.delete"
    ORG_CHANGE_OWNER = "org.change_owner"
    ORG_MANAGE_MEMBERS = "org.manage_members"
    ORG_MANAGE_ROLES = "org.manage_roles"
    API_KEYS_READ = "api_keys.read"
    API_KEYS_UPDATE = "api_keys.update"
    API_KEYS_CREATE = "api_keys.create"
    API_KEYS_MANAGE = "api_keys.manage"
    PUBLISHERS_READ = "publishers.read"
    PUBLISHERS_WRITE = "publishers.write"
    EARNINGS_READ = "earnings.read"
    PAYOUTS_CREATE = "payouts.create"
    AUDIT_READ = "audit.read"
    WEBHOOKS_READ = "webhooks.read"
    WEBHOOKS_MANAGE = "webhooks.manage"
    OAUTH_PROVIDERS_READ = "oauth_providers.read"
    OAUTH_PROVIDERS_MANAGE = "oauth_providers.manage"
    IP_ALLOW_READ = "ip_allow.read"
    IP_ALLOW_MANAGE = "ip_allow.manage"
    CHARGES_READ = "charges.read"
    CHARGES_CREATE = "charges.create"
    BILLING_READ = "billing.read"
    BILLING_MANAGE = "billing.manage"
    PROJECTS_READ = "projects.read"
    PROJECTS_WRITE = "projects.write"


DESCRIPTIONS = {
    Permission.ORG_READ: "See the organization and its members.",
    Permission.ORG_UPDATE: "Rename the organization.",
    Permission.ORG_DELETE: "Delete the organization.",
    Permission.ORG_CHANGE_OWNER: "Make owners, and change or remove an owner.",
    Permission.ORG_MANAGE_MEMBERS: "Invite and remove members, and give them roles.",
    Permission.ORG_MANAGE_ROLES: "Make, change and delete custom roles.",
    Permission.API_KEYS_READ: "List the organization's API keys.",
    Permission.API_KEYS_UPDATE: "Limit and revoke API keys of one's own account.",
    Permission.API_KEYS_CREATE: "Make API keys.",
    Permission.API_KEYS_MANAGE: "Limit and revoke API keys of other members.",
    Permission.PUBLISHERS_READ: "See publishers as their owner does.",
    Permission.PUBLISHERS_WRITE: "Create, change, test and delete publishers.",
    Permission.EARNINGS_READ: "See earnings, payouts and receipts of what was sold.",
    Permission.PAYOUTS_CREATE: "Request payouts.",
    Permission.AUDIT_READ: "Read the audit log.",
    Permission.WEBHOOKS_READ: "See webhooks and their deliveries.",
    Permission.WEBHOOKS_MANAGE: "Create, change, replay and delete webhooks.",
    Permission.OAUTH_PROVIDERS_READ: "See OAuth providers, without their secrets.",
    Permission.OAUTH_PROVIDERS_MANAGE: "Create, change and delete OAuth providers.",
    Permission.IP_ALLOW_READ: "See IP allow-lists.",
    Permission.IP_ALLOW_MANAGE: "Change IP allow-lists.",
    Permission.CHARGES_READ: "See charges, and the balances of agents before charging them.",
    Permission.CHARGES_CREATE: "Charge agents directly, refund and slash such charges.",
    Permission.BILLING_READ: "See plan, quota, usage, invoices, payment methods and statements.",
    Permission.BILLING_MANAGE: "Change the plan and payment methods, and pay invoices.",
    Permission.PROJECTS_READ: "See projects.",
    Permission.PROJECTS_WRITE: "Create, change and delete projects.",
}
"""What each permission is for, in the words of the catalogue (GET /permissions)."""


class AccountRight(StrEnum):
    """What everybody may do for the own account; only the scopes of an API key narrow it."""

    BUY = "buy"
    WALLET_READ = "wallet.read"
    ACCOUNT_MANAGE = "account.manage"


ACCOUNT_RIGHTS = {
    AccountRight.BUY: "Call publishers and use the facilitator.",
    AccountRight.WALLET_READ: "See the wallet, its budget, its deposits and receipts.",
    AccountRight.ACCOUNT_MANAGE: "Claim credit, deposit, set recovery, join and make organizations, end sessions.",
}

_VIEWER = frozenset(
    {
        Permission.ORG_READ,
        Permission.API_KEYS_READ,
        Permission.API_KEYS_UPDATE,
        Permission.PUBLISHERS_READ,
        Permission.EARNINGS_READ,
        Permission.AUDIT_READ,
        Permission.WEBHOOKS_READ,
        Permission.OAUTH_PROVIDERS_READ,
        Permission.IP_ALLOW_READ,
        Permission.CHARGES_READ,
        Permission.BILLING_READ,
        Permission.PROJECTS_READ,
    }
)
_EDITOR = _VIEWER | {
    Permission.API_KEYS_CREATE,
    Permission.PUBLISHERS_WRITE,
    Permission.WEBHOOKS_MANAGE,
    Permission.OAUTH_PROVIDERS_MANAGE,
    Permission.PROJECTS_WRITE,
}
_OWNER = frozenset(Permission)
_ADMIN = _OWNER - {Permission.ORG_DELETE, Permission.ORG_CHANGE_OWNER}

ROLES: dict[str, frozenset[Permission]] = {"owner": _OWNER, "admin": _ADMIN, "editor": _EDITOR, "viewer": _VIEWER}
"""DECISIONS: owner everything; admin all but deleting and owner changes; editor writes resources; viewer reads."""

# By value: `value in Permission` is an error before Python 3.12.
PERMISSION_NAMES = frozenset(permission.value for permission in Permission)
SCOPES = PERMISSION_NAMES | {right.value for right in AccountRight}
"""What the scopes of an API key can name."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What an account is in an organization. `custom` is the name of a role that the organization made itself."""

    role: str
    custom: str | None
    permissions: list[str] | None
    suspension: dict[str, str] | None

    @property
    def name(self) -> str:
        """Return the role's name."""
        return self.role if self.custom is None else self.custom

    @property
    def held(self) -> frozenset[Permission]:
        """Return what the role holds. A stored permission that no longer exists is none."""
        if self.permissions is None:
            return ROLES.get(self.role, frozenset())
        return frozenset(one for one in Permission if one.value in self.permissions)


STANDING = Statement(
    """
    SELECT m.role, r.name AS custom, r.permissions,
           identity.suspension_of(NULL, NULL, m.organization_id) AS suspension
      FROM identity.membership m
      JOIN identity.organization o ON o.id = m.organization_id
      LEFT JOIN identity.role r ON r.id = m.role_id
     WHERE m.organization_id = $1 AND m.account_id = $2 AND o.deleted_at IS NULL
    """,
    Standing,
)


@dataclass(frozen=True, slots=True)
class StandingIn(Standing):
    """The same, with the organization in which it is so."""

    organization_id: UUID


STANDINGS = Statement(
    """
    SELECT m.role, r.name AS custom, r.permissions, NULL::jsonb AS suspension, m.organization_id
      FROM identity.membership m
      JOIN identity.organization o ON o.id = m.organization_id
      LEFT JOIN identity.role r ON r.id = m.role_id
     WHERE m.account_id = $1 AND o.deleted_at IS NULL AND identity.suspension_of(NULL, NULL, o.id) IS NULL
    """,
    StandingIn,
)


LOCK_ORGANIZATION = Statement(
    "SELECT true FROM identity.organization WHERE id = $1 AND deleted_at IS NULL FOR NO KEY UPDATE", bool, scalar=True
)


@dataclass(frozen=True, slots=True)
class Member:
    """A caller in an organization that it is a member of: `role` by name, `permissions` as far as its key reaches."""

    caller: Principal
    organization_id: UUID
    role: str
    permissions: frozenset[Permission]

    def demand(self, permission: Permission) -> None:
        """Raise Forbidden without a permission: for what depends on the object, beyond what the route declares."""
        if permission in self.permissions:
            return
        origin().refused = self.organization_id, permission.value  # the audit log's to write
        scopes = self.caller.scopes
        if scopes is not None and permission.value not in scopes:
            raise out_of_scope(permission)
        raise Forbidden(f"Your role in this organization, {self.role}, lacks the permission {permission.value}.")


def out_of_scope(right: Permission | AccountRight) -> Forbidden:
    """Return the refusal of an API key whose scopes leave something out."""
    return Forbidden(f"The scopes of this API key do not have {right.value}. Use a key that has it.")


def demand_right(caller: Principal, right: AccountRight) -> None:
    """Raise Forbidden for an API key that may not do something for its account.

    A key of a shared organization does not manage the account that made it: it could become more than it is. Raises
    Suspended where money would be spent out of a suspended wallet.
    """
    if caller.frozen is not None and right is AccountRight.BUY:
        raise caller.frozen.refusal()
    if caller.scopes is not None and right.value not in caller.scopes:
        raise out_of_scope(right)
    if caller.confined and right is AccountRight.ACCOUNT_MANAGE:
        raise Forbidden("This API key belongs to a shared organization; use one of your own organization for this.")


def demand_scope(caller: Principal, permission: Permission) -> None:
    """Raise Forbidden for an API key that may do something in no organization at all."""
    if caller.scopes is not None and permission.value not in caller.scopes:
        raise out_of_scope(permission)


def granted_scopes(maker: Member, asked: Collection[str] | None, *, confined: bool) -> list[str] | None:
    """Return the scopes of a key that `maker` makes: what it asks for, else what its own key has; None is everything.

    Raises Forbidden for more than the maker has, and where a key that will be `confined` is to manage the account.
    """
    caller = maker.caller
    if asked is None:
        return None if caller.scopes is None else sorted(caller.scopes)
    for scope in sorted(set(asked)):
        if scope in PERMISSION_NAMES:
            maker.demand(Permission(scope))
        elif caller.scopes is not None and scope not in caller.scopes:
            raise out_of_scope(AccountRight(scope))
    if confined and AccountRight.ACCOUNT_MANAGE in asked:
        raise Forbidden("A key of a shared organization cannot have account.manage.")
    return sorted(set(asked))


async def membership(connection: Connection, caller: Principal, organization_id: UUID) -> Member:
    """Return the caller as a member of an organization. Raises Forbidden, also for an unknown organization.

    Raises Suspended for a suspended one: its members are told why it does nothing.
    """
    if caller.confined and caller.organization_id != organization_id:
        raise Forbidden("This API key belongs to another organization, and acts in no other one.")
    standing = await STANDING.first(connection, organization_id, caller.account_id)
    if standing is None:
        raise Forbidden("You are not a member of this organization.")
    suspension = Suspension.read(standing.suspension)
    if suspension is not None:
        raise suspension.refusal()
    held = standing.held
    if caller.scopes is not None:
        held = frozenset(one for one in held if one.value in caller.scopes)
    return Member(caller, organization_id, standing.name, held)


async def require(connection: Connection, caller: Principal, organization_id: UUID, permission: Permission) -> Member:
    """Return the caller as a member who holds a permission. Raises Forbidden, also for an unknown organization."""
    member = await membership(connection, caller, organization_id)
    member.demand(permission)
    return member


async def organizations_with(connection: Connection, caller: Principal, permission: Permission) -> list[UUID]:
    """Return the organizations in which the caller holds a permission."""
    if caller.scopes is not None and permission.value not in caller.scopes:
        return []
    every = await STANDINGS.all(connection, caller.account_id)
    return [
        one.organization_id
        for one in every
        if permission in one.held and (not caller.confined or one.organization_id == caller.organization_id)
    ]


async def locked(connection: Connection, member: Member, permission: Permission | None = None) -> Member:
    """Lock the organization until the transaction ends, and return what the member is in it by now. Raises Forbidden.

    Every change of its members, roles and invitations begins so: each sees what the one before it left.
    """
    await LOCK_ORGANIZATION.first(connection, member.organization_id)
    now = await membership(connection, member.caller, member.organization_id)
    if permission is not None:
        now.demand(permission)
    return now
