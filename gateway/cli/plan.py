"""`tollway plan`: the plans that there are, which one an organization has, and giving it one by contract."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import click
from pydantic import ValidationError

from gateway.billing.plan_changes import assign
from gateway.cli.context import on_connection, settings_for_cli
from gateway.database.pool import Connection
from gateway.identity.organization_plans import TERMS, Held, PlanBook
from gateway.identity.organizations import FIND_ORGANIZATION
from gateway.plans import Plan, load_plans

NONE = "none"
WHOLE = ("included_calls", "calls_per_minute", "max_publishers", "max_api_keys", "max_members", "max_projects")


@click.group()
def plan() -> None:
    """List plans, and show or set what an organization has."""


@plan.command("list")
def list_command() -> None:
    """List the plans of the file, also those that are no longer offered."""
    for one in sorted(_book().plans.plans, key=lambda plan: plan.sort_order):
        click.echo(f"{_line(one)}{'' if one.is_active else '  no longer offered'}")


@plan.command("show")
@click.argument("organization", type=click.UUID)
def show_command(organization: UUID) -> None:
    """Show which plan an organization has, by its own terms."""

    async def run(connection: Connection) -> str:
        await _demand_organization(connection, organization)
        return _held(await _book().held(connection, organization))

    click.echo(on_connection(run))


@plan.command("set")
@click.argument("organization", type=click.UUID)
@click.argument("name")
@click.option("--price-monthly", help="US dollars a month, such as 250 or 99.50.")
@click.option("--included-calls", help="Paid calls a month, or none for any number.")
@click.option("--overage-price", help="US dollars for 1,000 calls beyond these, or none to refuse them.")
@click.option("--calls-per-minute", help="Of all its API keys together, or none.")
@click.option("--max-publishers", help="A number, or none.")
@click.option("--max-api-keys", help="A number, or none.")
@click.option("--max-members", help="A number, or none.")
@click.option("--max-projects", help="A number, or none.")
def set_command(organization: UUID, name: str, **own: str | None) -> None:
    """Give an organization a plan from now on, with terms of its own where options say so.

    It needs no payment method, and what was chosen for later is forgotten. Setting the plan that it has renews its
    terms.
    """
    book = _book()
    target = book.plans.named(name)
    if target is None:
        raise click.BadParameter(f"there is no plan {name}; `tollway plan list` prints them", param_hint="NAME")
    terms = _terms(target, own)

    async def run(connection: Connection) -> str:
        await _demand_organization(connection, organization)
        return _held(await assign(connection, book, organization, target, terms))

    click.echo(on_connection(run))


def _terms(target: Plan, own: dict[str, str | None]) -> dict[str, Any]:
    """Return the terms that the options name. Raises BadParameter for what no plan can have."""
    terms: dict[str, Any] = {}
    for name, text in own.items():
        if text is not None:
            terms[name] = None if text == NONE else int(text) if name in WHOLE and text.isdecimal() else text
    try:
        Plan.model_validate({**target.model_dump(), **terms})
    except ValidationError as error:
        fault = error.errors()[0]
        field = str(fault["loc"][0]) if fault["loc"] else ""
        hint = f"--{field.replace('_', '-')}" if field else None
        raise click.BadParameter(fault["msg"].removeprefix("Value error, "), param_hint=hint) from None
    return terms


def _book() -> PlanBook:
    settings = settings_for_cli()
    return PlanBook(load_plans(settings.plans.file), enforced=settings.plans.enforced)


def _line(one: Plan) -> str:
    calls = "any number of calls" if one.included_calls is None else f"{one.included_calls:,} calls"
    beyond = "" if one.overage_price is None else f", then ${one.overage_price} per 1,000"
    return f"{one.id}  {one.name:<12} ${one.price_monthly} a month  {calls}{beyond}"


def _held(held: Held) -> str:
    lines = [_line(held.plan)]
    own = {name: value for name, value in held.period.terms.items() if name not in TERMS}
    lines += [f"  {name}: {'no limit' if value is None else value}" for name, value in sorted(own.items())]
    if held.next_plan is not None and held.period.ends_at is not None:
        lines.append(f"from {held.period.ends_at:%Y-%m-%d} on  {held.next_plan.name}")
    return "\n".join(lines)


async def _demand_organization(connection: Connection, organization: UUID) -> None:
    found = await FIND_ORGANIZATION.first(connection, organization)
    if found is None or found.deleted_at is not None:
        raise click.ClickException(f"there is no organization {organization}")
