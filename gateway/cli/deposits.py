"""`tollway deposits`: deposits by card, and giving one back to its card."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import get_args
from uuid import UUID

import click

from gateway.billing.card_deposits import Cards
from gateway.billing.card_refunds import CardRefunds, RefundOrder
from gateway.billing.card_rows import FIND, FIND_LAST, SINCE, Became, Deposit, State
from gateway.cli.approvals import waiting
from gateway.cli.context import on_database, operator_name
from gateway.database.pool import Database
from gateway.errors import Problem, Unavailable
from gateway.operators.approvals import Approval, FourEyes
from gateway.operators.deposit_refunds import dollars, refund_deposit
from gateway.payments.stripe.client import StripeDoor, StripeRefused
from gateway.settings import Settings


@click.group()
def deposits() -> None:
    """Look at deposits by card, and give them back."""


@deposits.command("list")
@click.option("--state", type=click.Choice(get_args(State)), help="Only these.")
@click.option("--failed-later", is_flag=True, help="Only those whose payment failed after it was credited.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True)
def list_command(state: str | None, failed_later: bool, limit: int) -> None:
    """List deposits, newest first. `suspense` is money that is not what was asked for: give it back."""

    async def work(database: Database, _settings: Settings) -> list[Deposit]:
        async with database.acquire() as connection:
            return await FIND_LAST.all(connection, state, failed_later, limit)

    for deposit in on_database(work):
        click.echo(_line(deposit))


@deposits.command("show")
@click.argument("deposit_id", type=click.UUID)
def show_command(deposit_id: UUID) -> int:
    """Show one deposit, and what became of it since. Exit status 1 when there is none."""

    async def work(database: Database, _settings: Settings) -> tuple[Deposit | None, list[Became]]:
        async with database.acquire() as connection:
            return await FIND.first(connection, deposit_id), await SINCE.all(connection, deposit_id)

    found, since = on_database(work)
    if found is None:
        click.echo("No deposit has this id.", err=True)
        return 1
    click.echo(_line(found))
    if found.receipt_url:
        click.echo(f"  receipt  {found.receipt_url}")
    cent = found.amount // found.cents
    for one in since:
        owed = f", {dollars(one.owed // cent)} of it spent before" if one.owed else ""
        amount = dollars(one.amount // cent)
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

    cents = None if amount is None else _cents(amount)

    async def work(database: Database, settings: Settings, door: StripeDoor) -> str:
        cards = Cards(database, door, settings)
        with contextlib.suppress(StripeRefused):  # Stripe refuses the refund too, and says why
            await cards.check(deposit_id)  # a dispute may have begun of which no event has arrived
        rule = FourEyes.of(settings.money)
        ordered = await refund_deposit(
            database, deposit_id, cents, spent_too=spent_too, operator=operator_name(), rule=rule
        )
        if isinstance(ordered, Approval):
            return waiting(ordered)
        return await _send(CardRefunds(database, door, cards), cards, ordered)

    click.echo(_at_stripe(work))


async def _send(refunds: CardRefunds, cards: Cards, ordered: RefundOrder) -> str:
    """Send what is ordered, and return what to tell the operator."""
    amount = dollars(ordered.cents)
    try:
        refund = await refunds.send(ordered)
    except StripeRefused as error:
        raise click.ClickException(f"Stripe refuses: {error.reason}; nothing was given back") from None
    except Unavailable as problem:
        return f"{amount} of {ordered.deposit_id} will go back to its card: {problem.detail} The gateway sends it then."
    with contextlib.suppress(Problem, StripeRefused):  # its event, or the gateway's job, books it then
        await cards.check(ordered.deposit_id)
    return f"gave {amount} of {ordered.deposit_id} back to its card: {refund}"


def _line(deposit: Deposit) -> str:
    back = f", {dollars(deposit.refunded_cents)} given back" if deposit.refunded_cents else ""
    reason = f": {deposit.reason}" if deposit.reason else ""
    paid = "" if deposit.paid_cents is None else f", paid {dollars(deposit.paid_cents)}"
    if deposit.failed_at is not None:
        back = f", failed after it was credited ({deposit.failed_at:%Y-%m-%d %H:%M})"
    elif deposit.dispute is not None:
        back += ", dispute lost" if deposit.dispute == "lost" else ", in dispute"
    return (
        f"{deposit.id}  {deposit.created_at:%Y-%m-%d %H:%M}  {deposit.wallet_address}  {dollars(deposit.cents)}"
        f"{paid}{back}  {deposit.state}{reason}  {deposit.intent_id or deposit.session_id or ''}"
    )


def _cents(text: str) -> int:
    try:
        value = Decimal(text.removeprefix("$")) * 100
    except ArithmeticError:
        raise click.BadParameter("must be dollars, such as 12.50", param_hint="--amount") from None
    if value != value.to_integral_value() or not 0 < value < 10**10:
        raise click.BadParameter("must be dollars and cents above 0", param_hint="--amount")
    return int(value)


def _at_stripe(work: Callable[[Database, Settings, StripeDoor], Awaitable[str]]) -> str:
    async def with_door(database: Database, settings: Settings) -> str:
        door = StripeDoor(settings.stripe)
        try:
            return await work(database, settings, door)
        except Problem as problem:
            raise click.ClickException(problem.detail) from None
        finally:
            await door.aclose()

    return on_database(with_door)
