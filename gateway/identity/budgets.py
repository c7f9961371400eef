"""What an API key may spend: the limits that the owner of its account sets.

What does not live here: who may set them (api_keys.py), whether a call fits (billing/budgets.py), and what was spent
(the ledger counts it).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that a key may spend in one call, one UTC day and one UTC month; atomic units, None is no limit."""

    per_call: int | None = None
    per_day: int | None = None
    per_month: int | None = None

    @property
    def any(self) -> bool:
        """Return whether anything is limited."""
        return self != NO_LIMITS

    @property
    def counted(self) -> bool:
        """Return whether what is spent has to be counted: a limit of single calls needs no memory."""
        return self.per_day is not None or self.per_month is not None


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class KeyBudget:
    """Limits in one ledger asset. What is spent is counted under `scope`, which a recovered account's new key keeps."""

    scope: UUID
    asset_id: UUID
    limits: Limits


def read(column: Sequence[str | None] | None) -> KeyBudget | None:
    """Return what the column `budget` of identity.api_key says; None for a key without any limit."""
    if column is None:
        return None
    scope, asset_id, *limits = column
    return KeyBudget(UUID(scope), UUID(asset_id), Limits(*(None if one is None else int(one) for one in limits)))


def written(budget: KeyBudget | None) -> tuple[UUID | None, UUID | None, str | None, str | None, str | None]:
    """Return the values of the columns budget_scope, _asset, _per_call, _per_day and _per_month; amounts as text."""
    if budget is None:
        return None, None, None, None, None
    limits = budget.limits
    call, day, month = (
        None if one is None else str(one) for one in (limits.per_call, limits.per_day, limits.per_month)
    )
    return budget.scope, budget.asset_id, call, day, month
