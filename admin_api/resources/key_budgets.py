"""Budgets of API keys, as they are sent and shown; and category `agent-wallet`: what the caller's own key may spend.

Keys and who may set their budgets are in auth.py and gateway/identity/api_keys.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter
from pydantic import Field, StrictStr

from admin_api.kit.access import ServicesDep
from admin_api.kit.body import StrictRoute
from admin_api.kit.envelope import Answer, Moment
from admin_api.kit.needs import WalletReader
from admin_api.kit.problems import refusals
from gateway.billing.budgets import DAY, MONTH, left, next_day, next_month
from gateway.billing.spending import Spent, spent_of
from gateway.catalog.assets import Asset
from gateway.catalog.refusals import refused
from gateway.identity.budgets import NO_LIMITS, KeyBudget
from gateway.ids import uuid7
from gateway.request_body import RequestBody
from pricing.money import MoneyError, format_amount, parse_amount

router = APIRouter(tags=["agent-wallet"], route_class=StrictRoute)

Amount = Annotated[StrictStr, Field(max_length=64)]
"""A decimal string of the gateway's default asset."""


class BudgetChange(RequestBody):
    """The most that a key may spend per call, per UTC day and per UTC month; null is no limit."""

    per_call: Amount | None = None
    per_day: Amount | None = None
    per_month: Amount | None = None


class KeyBudgetInfo(Answer):
    """A key's budget and what is left of it, as decimal strings; null where there is no limit, or nothing is counted.

    What is held for calls that are under way counts as spent.
    """

    asset_symbol: str
    per_call: str | None
    per_day: str | None
    per_month: str | None
    spent_today: str | None
    spent_this_month: str | None
    left_today: str | None
    left_this_month: str | None
    day_renews_at: Moment
    month_renews_at: Moment


class OwnBudget(Answer):
    """The key that asks and its budget, null for none."""

    key_id: str
    budget: KeyBudgetInfo | None


class OwnBudgetResponse(Answer):
    """Envelope."""

    data: OwnBudget


@router.get(
    "/wallet/budget", operation_id="get_key_budget", responses=refusals(401), openapi_extra={"x-extension": True}
)
async def get_key_budget(caller: WalletReader, services: ServicesDep) -> OwnBudgetResponse:
    """Return what the API key that asks may spend, and what is left of that today and this month."""
    budget, day = caller.budget, datetime.now(UTC).date()
    if budget is None:
        return OwnBudgetResponse(data=OwnBudget(key_id=caller.key_id, budget=None))
    async with services.database.acquire() as connection:
        spent = await spent_of(connection, [budget], day)
    info = shown(budget, services.catalog.assets, spent, day)
    return OwnBudgetResponse(data=OwnBudget(key_id=caller.key_id, budget=info))


def changed(before: KeyBudget | None, change: BudgetChange | None, asset: Asset) -> KeyBudget:
    """Return a budget after a change: what is left out stays, unless it was in another asset. Raises InvalidRequest."""
    kept = before.limits if before is not None and before.asset_id == asset.id else NO_LIMITS
    limits = NO_LIMITS if change is None else replace(kept, **_amounts(change, asset))
    return KeyBudget(uuid7(), asset.id, limits)


def shown(budget: KeyBudget | None, assets: Mapping[UUID, Asset], spent: Spent, day: date) -> KeyBudgetInfo | None:
    """Return what is told of a key's budget on a UTC day, of which `spent` is spent."""
    if budget is None:
        return None
    asset, limits = assets[budget.asset_id], budget.limits
    today, this_month = spent.get((budget.scope, DAY), 0), spent.get((budget.scope, MONTH), 0)

    def text(amount: int | None) -> str | None:
        return None if amount is None else format_amount(amount, asset.decimals)

    return KeyBudgetInfo(
        asset_symbol=asset.symbol,
        per_call=text(limits.per_call),
        per_day=text(limits.per_day),
        per_month=text(limits.per_month),
        spent_today=text(today if limits.counted else None),
        spent_this_month=text(this_month if limits.counted else None),
        left_today=text(left(limits.per_day, today)),
        left_this_month=text(left(limits.per_month, this_month)),
        day_renews_at=next_day(day),
        month_renews_at=next_month(day),
    )


def _amounts(change: BudgetChange, asset: Asset) -> dict[str, int | None]:
    """Return the limits that a change names, in atomic units. Raises InvalidRequest."""
    found: dict[str, int | None] = {}
    for name in change.model_fields_set:
        text = getattr(change, name)
        try:
            found[name] = None if text is None else parse_amount(text, asset.decimals)
        except MoneyError as error:
            raise refused(f"budget.{name}", str(error)) from None
    return found
