"""`tollway deposits`: deposits by card, and giving one back to its card."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import TypeVar, get_args
from uuid import UUID

import click

from gateway.audit.entries import record
from gateway.billing.card_deposits import Cards, demand_refundable
from gateway.billing.card_rows import FIND, FIND_LAST, REFUNDABLE, SINCE, Became, Deposit, State
from gateway.cli.context import on_database
from gateway.database.pool import Database
from gateway.errors import Problem
from gateway.payments.stripe.client import StripeDoor, StripeRefused
from gateway.settings import Settings

Result = TypeVar("Result")


@click.group()
def deposits() -> None:
    """Look at deposits by card, and give them back."""


@deposits.command("list")
@click.option("--state", type=click.Choice(get_args(State)), help="Only these.")
@click.option("--failed-later", is_flag=True, help="Only those whose payment failed after it was credited.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True)
def list_command(state: str | None, failed_later: bool, limit: int) -> None:
    """List deposits, newest first. `suspense` is money that is not what was asked for: give it back."""

    async def work(database: Database, _cards: Cards) -> list[Deposit]:
        async with database.acquire() as connection:
            return await FIND_LAST.all(connection, state, failed_later, limit)

    for deposit in _run(work):
        click.echo(_line(deposit))


@deposits.command("show")
@click.argument("deposit_id", type=click.UUID)
def show_command(deposit_id: UUID) -> int:
    """Show one deposit, and what became of it since. Exit status 1 when there is none."""

    async def work(database: Database, _cards: Cards) -> tuple[Deposit | None, list[Became]]:
        async with database.acquire() as connection:
            return await FIND.first(connection, deposit_id), await SINCE.all(connection, deposit_id)

    found, since = _run(work)
    if found is None:
        click.echo("No deposit has this id.", err=True)
        return 1
    click.echo(_line(found))
    if found.receipt_url:
        click.echo(f"  receipt  {found.receipt_url}")
    cent = found.amount // found.cents
    for one in since:
        owed = f", {_dollars(one.owed // cent)} of it spent before" if one.owed else ""
        amount = _dollars(one.amount // cent)
        click.echo(f"  {one.at:%Y-%m-%d %H:%M}  {one.what}  {one.id}  {amount}  {one.state}{owed}")
    return 0


@deposits.command("refund")
@click.argument("deposit_id", type=click.UUID)
@click.option("--amount", help="Dollars, such as 12.50; all that is unspent of it unless you say so.")
@click.option("--spent-too", is_flag=True, help="Also what its wallet has spent: its owner owes that then.")
def refund_command(deposit_id: UUID, amount: str | None, spent_too: bool) -> None:
    """Give a deposit, or a part of it, back to its card. Its bonus goes back with it.

    What its wallet has spent is not given back, and what it has spent of the bonus comes off, unless you say
    --spent-too. Nothing goes back while a dispute of it is open, nor after a dispute was lost or its payment failed.
    """

    async def work(database: Database, cards: Cards) -> str:
        with contextlib.suppress(StripeRefused):  # Stripe refuses the refund too, and says why
            await cards.check(deposit_id)  # a dispute may have begun of which no event has arrived
        async with database.acquire() as connection:
            deposit = await FIND.first(connection, deposit_id)
            if deposit is None or deposit.paid_cents is None:
                raise click.ClickException("no deposit that was paid has this id")
            demand_refundable(deposit)
            most = deposit.left_cents if spent_too else await REFUNDABLE.one(connection, deposit_id)
        cents = most if amount is None else _cents(amount)
        if not 0 < cents <= most:
            why = f" here ({deposit.reason}); look at Stripe" if deposit.reason else ""
            spent = " and leave nothing owed (--spent-too gives back more)" if most < deposit.left_cents else ""
            raise click.ClickException(f"{_dollars(most)} of it can be given back{spent}{why}")
        try:
            refund = await cards.give_back(deposit, cents)
        except StripeRefused as error:
            raise click.ClickException(f"Stripe refuses: {error.reason}; nothing was given back") from None
        async with database.transaction() as connection:
            details = {"refund": refund, "cents": cents}
            await record(connection, "deposit.give_back", deposit.organization_id, deposit_id, details=details)
        with contextlib.suppress(Problem, StripeRefused):  # its event, or the gateway's job, books it then
            await cards.check(deposit_id)
        return f"gave {_dollars(cents)} of {deposit_id} back to its card: {refund}"

    click.echo(_run(work))


def _line(deposit: Deposit) -> str:
    back = f", {_dollars(deposit.refunded_cents)} given back" if deposit.refunded_cents else ""
    reason = f": {deposit.reason}" if deposit.reason else ""
    paid = "" if deposit.paid_cents is None else f", paid {_dollars(deposit.paid_cents)}"
    if deposit.failed_at is not None:
        back = f", failed after it was credited ({deposit.failed_at:%Y-%m-%d %H:%M})"
    elif deposit.dispute is not None:
        back += ", dispute lost" if deposit.dispute == "lost" else ", in dispute"
    return (
        f"{deposit.id}  {deposit.created_at:%Y-%m-%d %H:%M}  {deposit.wallet_address}  {_dollars(deposit.cents)}"
        f"{paid}{back}  {deposit.state}{reason}  {deposit.intent_id or deposit.session_id or ''}"
    )


def _dollars(cents: int) -> str:
    return f"{'-' if cents < 0 else ''}${abs(cents) // 100}.{abs(cents) % 100:02}"


def _cents(text: str) -> int:
    try:
        value = Decimal(text.removeprefix("$")) * 100
    except ArithmeticError:
        raise click.BadParameter("must be dollars, such as 12.50", param_hint="--amount") from None
    if value != value.to_integral_value() or not 0 < value < 10**10:
        raise click.BadParameter("must be dollars and cents above 0", param_hint="--amount")
    return int(value)


def _run(work: Callable[[Database, Cards], Awaitable[Result]]) -> Result:
    async def with_cards(database: Database, settings: Settings) -> Result:
        door = StripeDoor(settings.stripe)
        try:
            return await work(database, Cards(database, door, settings))
        except Problem as problem:
            raise click.ClickException(problem.detail) from None
        finally:
            await door.aclose()

    return on_database(with_cards)
