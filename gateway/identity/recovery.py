"""Recovery of an agent that lost its key: a code that is shown once, works once and then is another code.

Using it is one transaction that locks the account by the code's hash: of two concurrent uses one finds the hash gone.
What does not live here: how often somebody may guess (admin_api, limits).
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from gateway.audit.entries import record
from gateway.audit.origin import origin
from gateway.database.pool import Connection, Database
from gateway.database.statement import Command, Statement
from gateway.errors import Unauthenticated
from gateway.identity import budgets, codes
from gateway.identity.accounts import AGENT_KEY_NAME, Account, Registered, add_key, load
from gateway.identity.api_keys import demand_unbound
from gateway.identity.budgets import KeyBudget
from gateway.identity.organizations import default_of
from gateway.identity.principals import Principal
from gateway.suspensions import demand_account


@dataclass(frozen=True, slots=True)
class RecoverySet:
    """Recovery as it stands now. `code` is present only when it was made by this call."""

    code: str | None
    has_email: bool


@dataclass(frozen=True, slots=True)
class Recovered:
    """An agent with its new key and its new recovery code, both shown once."""

    agent: Registered
    code: str


LOCK_ACCOUNT = Command("SELECT FROM identity.account WHERE id = $1 FOR UPDATE")
SET_RECOVERY_CODE = Command("UPDATE identity.account SET recovery_hash = $2 WHERE id = $1")
SET_RECOVERY_EMAIL = Command("UPDATE identity.account SET recovery_email = $2 WHERE id = $1")
# The old hash is the key: the row that a concurrent use has rotated no longer matches when the lock is got.
USE_CODE = Statement(
    """
    UPDATE identity.account SET recovery_hash = $2 WHERE recovery_hash = $1 AND status = 'active' RETURNING id::text
    """,
    UUID,
    scalar=True,
)
REVOKE_ALL_KEYS = Command("UPDATE identity.api_key SET revoked_at = now() WHERE account_id = $1 AND revoked_at IS NULL")
# The new key may spend what the old ones could: without a limit if any that lived until now had none, else what the
# oldest of them may. Where none lived, the last one that died speaks for the account.
CARRIED_BUDGET = Statement(
    """
    SELECT budget FROM identity.api_key WHERE account_id = $1
     ORDER BY least(revoked_at, expires_at) DESC, budget IS NULL DESC, created_at, id LIMIT 1
    """,
    budgets.read,
    scalar=True,
)


async def set_up(database: Database, caller: Principal, email: str | None, *, change_email: bool) -> RecoverySet:
    """Make a recovery code if there is none, and store the contact e-mail when it is to change.

    Raises BudgetLocked or Forbidden for a key with a limit: a recovery would bring one without.
    """
    account_id = caller.account_id
    async with database.transaction() as connection:
        await LOCK_ACCOUNT.run(connection, account_id)  # whoever limits a key waits
        await demand_unbound(connection, caller)
        if change_email:
            await SET_RECOVERY_EMAIL.run(connection, account_id, email)
        account = await load(connection, account_id)
        code = None if account.has_recovery else codes.new_recovery_code()
        if code is not None:
            await SET_RECOVERY_CODE.run(connection, account_id, codes.recovery_hash(code))
        if code is not None or change_email:
            home = await default_of(connection, account_id)
            details = {"new_code": code is not None, "email": change_email}
            await record(connection, "account.set_recovery", home.id if home else None, account_id, details=details)
        return RecoverySet(code, account.recovery_email is not None)


async def recover(database: Database, code: str) -> Recovered:
    """Exchange a recovery code for a new key and a new code; every old key dies, and its budget lives on.

    Raises codes.CodeRefused for a text that cannot be a code, Unauthenticated for a wrong or used one, Suspended where
    the account or its organization is; then the code is as good as before.
    """
    digest, fresh = codes.recovery_hash(code), codes.new_recovery_code()
    async with database.transaction() as connection:
        account_id = await USE_CODE.first(connection, digest, codes.recovery_hash(fresh))
        if account_id is None:
            raise Unauthenticated("This recovery code is unknown or has been used.")
        home = await default_of(connection, account_id)
        await demand_account(connection, account_id, home.id if home else None)
        await REVOKE_ALL_KEYS.run(connection, account_id)
        budget = await CARRIED_BUDGET.first(connection, account_id)
        armed = await _rearm(connection, await load(connection, account_id), budget)
        # The code is what proves who asks.
        origin().actor_type, origin().actor_id = armed.account.kind, account_id
        details = {"key_id": armed.key.key_id}
        await record(connection, "account.recover", armed.organization_id, account_id, details=details)
        return Recovered(armed, fresh)


async def _rearm(connection: Connection, account: Account, budget: KeyBudget | None) -> Registered:
    organization = await default_of(connection, account.id)
    if organization is None:
        raise Unauthenticated("The account behind this recovery code belongs to no organization any more.")
    _, key = await add_key(
        connection, name=AGENT_KEY_NAME, organization_id=organization.id, account_id=account.id, budget=budget
    )
    return Registered(account, organization.id, key)
