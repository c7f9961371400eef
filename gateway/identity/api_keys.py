"""API keys of an organization: list, create, revoke, limit. Only hashes are stored; a key's text exists in one answer.

A key acts as the account that made it, and never may more than what made it: its scopes, its end and its addresses are
within those of its maker's key, and each use asks what the account's role holds then. Its owner may always revoke it;
keys of other members take the permission to manage them. Revoked keys stay listed.

A key must not loosen what it may spend. So one with a budget makes no keys, sets no budgets, revokes only itself and
makes no recovery code; and no key sets its own budget, so that one without any is left that can change the others. No
key says where it may be used from itself, or what it may do: both are another one's to set, within that one's own. And
only a key without any limit makes a recovery code, because that brings a key without any.

What does not live here: recognising a key (principals.py), and whether a call fits a budget (billing/budgets.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from gateway.audit.entries import record
from gateway.database.pool import Connection
from gateway.database.statement import Command, Statement
from gateway.errors import BudgetLocked, Conflict, Forbidden, NotFound
from gateway.identity import allowed_addresses, budgets
from gateway.identity.accounts import add_key
from gateway.identity.budgets import KeyBudget
from gateway.identity.clients import Network
from gateway.identity.permissions import Member, Permission, granted_scopes
from gateway.identity.principals import Principal, refused_key
from gateway.identity.sessions import demand_live

MAX_DAYS = 3_650
MAX_LIVE_KEYS = 1_000
"""Live keys of one organization: far above honest use, low enough that nobody fills the table."""
LOCKED = (
    "This API key has a budget: it makes no keys and no recovery code, sets no budgets and revokes only itself. "
    "Use a key without a budget."
)
OWN_ADDRESSES = "No API key says itself where it may be used from, so that nobody locks themselves out: use another."
OWN_SCOPES = "No API key says itself what it may do, so that nobody locks themselves out: use another."
FOREIGN_SCOPES = "What a key of another member may do can be narrowed, not widened: its owner makes another key."
BOUND = (
    "This API key has an end, scopes or an address list, and a recovery code would bring a key without them. "
    "Use a key without any."
)
OWN_BUDGET = "No API key sets its own budget, so that nobody locks themselves out: use another one that has none."


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of a key after its creation."""

    id: UUID
    key_id: str
    name: str
    organization_id: UUID
    account_id: UUID
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    scopes: list[str] | None
    budget: KeyBudget | None
    addresses: list[Network] | None
    suspension: dict[str, str] | None
    """What its owner is told while an operator has suspended this key."""

    @property
    def prefix(self) -> str:
        """Return the public part, by which people recognise their key."""
        return f"seren_{self.key_id}_"


@dataclass(frozen=True, slots=True)
class CreatedKey:
    """A new key with its text, which is shown once."""

    record: ApiKey
    text: str


@dataclass(frozen=True, slots=True)
class _Maker:
    """The key that makes another one."""

    limited: bool
    expires_at: datetime | None
    scopes: list[str] | None
    addresses: list[Network] | None


def _row(*, budget: list[str | None] | None, **columns: Any) -> ApiKey:
    return ApiKey(**columns, budget=budgets.read(budget))


LIST_KEYS = Statement(
    """
    SELECT id, key_id, name, organization_id, account_id, created_at, expires_at, revoked_at, last_used_at,
           scopes, budget, addresses, identity.suspension_of(id, NULL, NULL) AS suspension
      FROM identity.api_key WHERE organization_id = $1 ORDER BY created_at DESC, id DESC
    """,
    _row,
)
FIND_KEY_ROW = Statement(
    """
    SELECT id, key_id, name, organization_id, account_id, created_at, expires_at, revoked_at, last_used_at,
           scopes, budget, addresses, identity.suspension_of(id, NULL, NULL) AS suspension
      FROM identity.api_key WHERE organization_id = $1 AND id = $2
    """,
    _row,
)
COUNT_LIVE_KEYS = Statement(
    """
    SELECT count(*) FROM identity.api_key
     WHERE organization_id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
    """,
    int,
    scalar=True,
)
# Waits for a recovery or revocation that is under way, and then finds nothing: no key outlives the one that made it.
# The same for a budget that is being set: the answer is whether the maker has one.
LOCK_MAKER = Statement(
    """
    SELECT k.budget IS NOT NULL AS limited, k.expires_at, k.scopes, k.addresses
      FROM identity.account a JOIN identity.api_key k ON k.account_id = a.id
     WHERE k.id = $1 AND a.status = 'active' AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
       FOR SHARE OF a, k
    """,
    _Maker,
)
# Before the maker: who is removed from the organization waits, and then takes the new key along. The answer is whether
# the key will act in this organization only.
LOCK_MEMBERSHIP = Statement(
    """
    SELECT NOT (o.is_personal AND o.created_by = m.account_id)
      FROM identity.membership m JOIN identity.organization o ON o.id = m.organization_id
     WHERE m.organization_id = $1 AND m.account_id = $2 AND o.deleted_at IS NULL FOR SHARE OF m
    """,
    bool,
    scalar=True,
)
# A session has no key, and no limits.
IS_BOUND = Statement(
    "SELECT num_nonnulls(expires_at, scopes, addresses) > 0 FROM identity.api_key WHERE id = $1", bool, scalar=True
)
HAS_BUDGET = Statement("SELECT budget IS NOT NULL FROM identity.api_key WHERE id = $1", bool, scalar=True)
# As LOCK_MAKER and recoveries do it: the account before its keys.
LOCK_ACCOUNT = Command("SELECT FROM identity.account WHERE id = $1 FOR SHARE")
# Both, in id order: of two keys that limit each other at the same time one is left without a budget.
LOCK_BOTH = Command("SELECT FROM identity.api_key WHERE id = ANY ($1::uuid[]) ORDER BY id FOR NO KEY UPDATE")
# What was spent goes on counting while the asset stays the same, also while there is no limit for a time.
SET_BUDGET = Command(
    """
    UPDATE identity.api_key
       SET budget_scope = CASE WHEN budget_asset = $3 THEN budget_scope ELSE $2 END, budget_asset = $3,
           budget_per_call = $4::text::numeric, budget_per_day = $5::text::numeric, budget_per_month = $6::text::numeric
     WHERE id = $1
    """
)
SET_ADDRESSES = Command("UPDATE identity.api_key SET addresses = $2 WHERE id = $1")
SET_SCOPES = Command("UPDATE identity.api_key SET scopes = $2 WHERE id = $1")
REVOKE_KEY = Command("UPDATE identity.api_key SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL")


async def list_keys(connection: Connection, organization_id: UUID) -> list[ApiKey]:
    """Return every key of an organization, newest first, revoked ones included."""
    return await LIST_KEYS.all(connection, organization_id)


async def create_key(
    connection: Connection,
    maker: Member,
    name: str,
    expires_in_days: int | None,
    budget: KeyBudget | None = None,
    scopes: Collection[str] | None = None,
    addresses: Sequence[Network] | None = None,
) -> CreatedKey:
    """Make a key that acts as its maker. Raises Conflict when the organization has too many live ones.

    Raises Unauthenticated when the maker's own key has died since it was looked up, BudgetLocked when it has a budget,
    Forbidden when the key would have more than its maker.
    """
    organization_id, caller = maker.organization_id, maker.caller
    confined = await LOCK_MEMBERSHIP.first(connection, organization_id, caller.account_id)
    if confined is None:
        raise Forbidden("You are not a member of this organization.")
    ends = await _lock_maker(connection, caller)
    if await COUNT_LIVE_KEYS.one(connection, organization_id) >= MAX_LIVE_KEYS:
        raise Conflict(f"This organization has {MAX_LIVE_KEYS} live keys; revoke some first.")
    expires_at = ends if expires_in_days is None else datetime.now(UTC) + timedelta(days=expires_in_days)
    if ends is not None and expires_at is not None and expires_at > ends:
        raise Forbidden(
            "A key does not outlive the one that makes it: ask for fewer days, or leave expires_in_days out."
        )
    key_row, key = await add_key(
        connection,
        name=name,
        organization_id=organization_id,
        account_id=caller.account_id,
        expires_at=expires_at,
        budget=budget,
        scopes=granted_scopes(maker, scopes, confined=confined),
        addresses=_granted_addresses(caller, addresses),
    )
    made = await FIND_KEY_ROW.one(connection, organization_id, key_row)
    await _note(connection, "api_key.create", made, after=_set(made))
    return CreatedKey(made, key.text)


async def revoke_key(connection: Connection, member: Member, key_row: UUID) -> ApiKey:
    """Revoke a key of the organization; doing it again changes nothing. Raises NotFound, Forbidden or BudgetLocked."""
    found = await _theirs(connection, member, key_row)
    if found.id != member.caller.api_key_id:
        await demand_no_budget(connection, member.caller)
    if await REVOKE_KEY.run(connection, key_row):
        await _note(connection, "api_key.revoke", found)
    return found


async def set_budget(
    connection: Connection, member: Member, key_row: UUID, change: Callable[[KeyBudget | None], KeyBudget]
) -> ApiKey:
    """Set the budget of a key to what `change` makes of it, and return the key. Raises what revoke_key raises.

    Also raises Unauthenticated when the caller's own key has died since it was looked up.
    """
    found = await _to_limit(connection, member, key_row)
    if found.id == member.caller.api_key_id:
        raise BudgetLocked(OWN_BUDGET)
    await SET_BUDGET.run(connection, key_row, *budgets.written(change(found.budget)))
    return await _limited(connection, found)


async def set_addresses(
    connection: Connection, member: Member, key_row: UUID, addresses: Sequence[Network] | None
) -> ApiKey:
    """Set where a key may be used from, None for anywhere, and return the key. Raises what set_budget raises.

    Forbidden for the caller's own key, and for addresses that the caller's own key may not be used from.
    """
    found = await _to_limit(connection, member, key_row)
    if found.id == member.caller.api_key_id:
        raise Forbidden(OWN_ADDRESSES)
    await SET_ADDRESSES.run(connection, key_row, _granted_addresses(member.caller, addresses))
    return await _limited(connection, found)


async def set_scopes(connection: Connection, member: Member, key_row: UUID, scopes: Collection[str] | None) -> ApiKey:
    """Set what a key may do, None for all that its owner may, and return the key. Raises what set_budget raises.

    Forbidden for the caller's own key, for more than the caller has, and for widening a key of another member.
    """
    found = await _to_limit(connection, member, key_row)
    if found.id == member.caller.api_key_id:
        raise Forbidden(OWN_SCOPES)
    foreign = found.account_id != member.caller.account_id
    if foreign and found.scopes is not None and (scopes is None or not set(scopes) <= set(found.scopes)):
        raise Forbidden(FOREIGN_SCOPES)
    confined = await LOCK_MEMBERSHIP.first(connection, found.organization_id, found.account_id)
    await SET_SCOPES.run(connection, key_row, granted_scopes(member, scopes, confined=confined is not False))
    return await _limited(connection, found)


async def demand_unbound(connection: Connection, caller: Principal) -> None:
    """Raise BudgetLocked or Forbidden for a key that has any limit, as the database knows it."""
    await demand_no_budget(connection, caller)
    if await IS_BOUND.first(connection, caller.api_key_id):
        raise Forbidden(BOUND)


async def demand_no_budget(connection: Connection, caller: Principal) -> None:
    """Raise BudgetLocked for a key with a budget, as the database knows it."""
    if await HAS_BUDGET.first(connection, caller.api_key_id):
        raise BudgetLocked(LOCKED)


async def _to_limit(connection: Connection, member: Member, key_row: UUID) -> ApiKey:
    """Return a key that the member may limit, locked together with the member's own. Raises what set_budget raises."""
    await LOCK_ACCOUNT.run(connection, member.caller.account_id)
    await LOCK_BOTH.run(connection, [member.caller.api_key_id, key_row])
    found = await _theirs(connection, member, key_row)
    await _lock_maker(connection, member.caller)
    return found


async def _limited(connection: Connection, before: ApiKey) -> ApiKey:
    """Return a key as it is by now, and write its change into the audit log."""
    after = await FIND_KEY_ROW.one(connection, before.organization_id, before.id)
    await _note(connection, "api_key.update", after, before=_set(before), after=_set(after))
    return after


async def _lock_maker(connection: Connection, maker: Principal) -> datetime | None:
    """Keep the maker's own credential alive until the transaction ends, and return when its key ends."""
    if maker.session_id is not None:
        await LOCK_ACCOUNT.run(connection, maker.account_id)
        await demand_live(connection, maker)
        return None
    key = await LOCK_MAKER.first(connection, maker.api_key_id)
    if key is None:
        raise refused_key()
    if key.limited:
        raise BudgetLocked(LOCKED)
    if _unordered(key.scopes) != _unordered(maker.scopes) or _unordered(key.addresses) != _unordered(maker.addresses):
        raise Conflict("This API key was limited a moment ago, while it was making or changing another. Try again.")
    return key.expires_at


def _unordered(items: Collection[object] | None) -> frozenset[object] | None:
    return None if items is None else frozenset(items)


def _granted_addresses(caller: Principal, asked: Sequence[Network] | None) -> list[Network] | None:
    """Return where a key may be used from that `caller` makes or changes; None is anywhere, as far as the caller's own
    may. Raises Forbidden for more.
    """
    if caller.addresses is None:
        return None if asked is None else list(asked)
    if asked is None:
        return list(caller.addresses)
    if not allowed_addresses.within(asked, caller.addresses):
        raise Forbidden("A key may not be used from more addresses than the one that makes or changes it.")
    return list(asked)


async def _theirs(connection: Connection, member: Member, key_row: UUID) -> ApiKey:
    """Return a key that the member may change: one of its own account, or any by the permission. Raises."""
    found = await FIND_KEY_ROW.first(connection, member.organization_id, key_row)
    if found is None:
        raise NotFound("This organization has no API key with this id.")
    if found.account_id != member.caller.account_id:
        member.demand(Permission.API_KEYS_MANAGE)
    return found


def _set(key: ApiKey) -> dict[str, object]:
    """Return what people set of a key, for the audit log."""
    limits = None if key.budget is None else asdict(key.budget.limits)
    addresses = None if key.addresses is None else [str(one) for one in key.addresses]
    return {
        "name": key.name, "expires_at": key.expires_at, "scopes": key.scopes, "budget": limits,
        "ip_allow_list": addresses,
    }  # fmt: skip


async def _note(
    connection: Connection, action: str, key: ApiKey, *, before: object = None, after: object = None
) -> None:
    details = {"key_id": key.key_id, "name": key.name, "account_id": str(key.account_id)}
    await record(connection, action, key.organization_id, key.id, before=before, after=after, details=details)
