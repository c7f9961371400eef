"""Plans as config/plans.toml declares them: read once at start, checked as a whole.

Everything here is data: what a plan costs and allows. What does not live here: which organization has which plan
(identity/organization_plans.py), what counts as a call (billing/quotas.py), and what a month comes to
(billing/plan_fees.py). A wrong value stops the start with a line that names the file, the plan, the field, the value
and the fix.
"""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, cast
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from gateway.settings import SettingsError
from pricing.money import parse_amount

log = logging.getLogger(__name__)
DECIMALS = 6
"""Money of plans is in atomic units of the default asset: micro-dollars."""
MOST_CALLS = 2**53 - 1
Some = Annotated[int, Field(ge=1, le=1_000_000)] | None


class PlansError(SettingsError):
    """plans.toml is wrong. The message has one line per fault and is safe to print."""


def _dollars(value: str) -> str:
    if parse_amount(value, DECIMALS) > 10**15:
        raise ValueError("is above a billion dollars")
    return value


Dollars = Annotated[str, AfterValidator(_dollars)]


class Plan(BaseModel):
    """One plan. None of a limit is no limit; without an overage price, calls beyond the included ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: UUID
    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")
    display_name: str = Field(min_length=1, max_length=64)
    description: str | None = Field(default=None, max_length=500)
    price_monthly: Dollars
    sort_order: int = Field(ge=0, le=1_000)
    is_active: bool = True
    self_service: bool
    included_calls: int | None = Field(default=None, ge=0, le=MOST_CALLS)
    overage_price: Dollars | None = None
    calls_per_minute: int | None = Field(default=None, ge=1, le=10_000_000)
    max_publishers: Some = None
    max_api_keys: Some = None
    max_members: Some = None
    max_projects: Some = None
    support_level: str = Field(min_length=1, max_length=64)
    created_at: datetime
    updated_at: datetime

    @model_validator(mode="after")
    def _whole(self) -> Plan:
        if self.overage_price is not None and self.included_calls is None:
            raise ValueError("overage_price: nothing is beyond unlimited calls; say included_calls, or leave it out")
        if None in (self.created_at.tzinfo, self.updated_at.tzinfo):
            raise ValueError("created_at and updated_at: need a time zone, such as 2026-11-30T00:00:00Z")
        return self

    @cached_property
    def price(self) -> int:
        """Return the price of a month in atomic units."""
        return parse_amount(self.price_monthly, DECIMALS)

    @cached_property
    def overage(self) -> int | None:
        """Return the price of 1,000 calls beyond the included ones in atomic units."""
        return None if self.overage_price is None else parse_amount(self.overage_price, DECIMALS)


class Plans(BaseModel):
    """The whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    default: str
    plans: tuple[Plan, ...] = Field(alias="plan")

    @field_validator("plans", mode="before")
    @classmethod
    def _by_name(cls, value: object) -> object:
        tables = _tables(value)
        if not tables:
            raise ValueError("needs at least one table such as [plan.free]")
        return tuple({**table, "name": name} for name, table in tables)

    @model_validator(mode="after")
    def _whole(self) -> Plans:
        if len({plan.id for plan in self.plans}) != len(self.plans):
            raise ValueError("id: two plans have one id")
        found = self.named(self.default)
        if found is None:
            raise ValueError(f"default={self.default!r}: no such plan in this file")
        if found.price or found.overage_price is not None or not found.self_service or not found.is_active:
            raise ValueError(
                f"default={self.default!r}: who has chosen nothing has no way to pay: it costs nothing, has no overage"
                " price, and is active and self_service"
            )
        return self

    @property
    def free(self) -> Plan:
        """Return the plan of who has chosen none."""
        return next(plan for plan in self.plans if plan.name == self.default)

    @property
    def listed(self) -> list[Plan]:
        """Return those that can be chosen or asked for, in order."""
        return sorted((plan for plan in self.plans if plan.is_active), key=lambda plan: (plan.sort_order, plan.name))

    def named(self, name: str) -> Plan | None:
        """Return the plan of a short name."""
        return next((plan for plan in self.plans if plan.name == name), None)

    def find(self, plan_id: UUID) -> Plan | None:
        """Return the plan of an id, also one that is not active any more."""
        return next((plan for plan in self.plans if plan.id == plan_id), None)

    def by_terms(self, plan_id: UUID | None, terms: Mapping[str, Any] | None) -> Plan:
        """Return a plan as an organization has it, by the terms that it keeps; the default one for none.

        One that is not in the file, which may be an older worker's, keeps its terms and has the default's other limits.
        """
        if plan_id is None:
            return self.free
        found = self.find(plan_id)
        if found is None:
            log.warning("an organization has the plan %s, which is not in the file of plans", plan_id)
            found = self.free.model_copy(update={"id": plan_id})
        return Plan.model_validate({**found.model_dump(), **(terms or {})})


def plans_file() -> Path:
    """Return config/plans.toml: of the checkout, or the copy inside the installed package."""
    checkout = Path(__file__).resolve().parents[1] / "config" / "plans.toml"
    return checkout if checkout.is_file() else Path(str(files("gateway") / "_config" / "plans.toml"))


def load_plans(file: str = "") -> Plans:
    """Read a file of plans, the shipped one by default. Raises PlansError."""
    place = Path(file) if file else plans_file()
    try:
        tree: dict[str, Any] = tomllib.loads(place.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlansError(f"{place}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PlansError(f"{place}: not valid TOML: {error}") from None
    try:
        return Plans.model_validate(tree)
    except ValidationError as error:
        raise PlansError("\n".join(_explain(place, tree, fault) for fault in error.errors())) from None


def _tables(value: object) -> list[tuple[str, dict[str, Any]]]:
    entries = cast("dict[str, object]", value) if isinstance(value, dict) else {}
    return [(name, cast("dict[str, Any]", table)) for name, table in entries.items() if isinstance(table, dict)]


def _explain(place: Path, tree: Mapping[str, Any], fault: Any) -> str:
    path = list(fault["loc"])
    if path[:1] == ["plan"] and len(path) > 1:
        path[1] = _tables(tree["plan"])[path[1]][0]
    field, value = ".".join(map(str, path)), fault["input"]
    shown = "" if isinstance(value, dict | list | tuple | BaseModel) else f"={value!r}"
    words = "no such field" if fault["type"] == "extra_forbidden" else fault["msg"].removeprefix("Value error, ")
    return ": ".join(part for part in (str(place), field + shown, words) if part)
