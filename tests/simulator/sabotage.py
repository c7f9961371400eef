"""Bugs that the simulator must find: each breaks one rule of the ledger, in the database or in the gateway's code.

Several are defects that this code once had. Each names the theme (plan.py) in which it shows within a few seeds.

A bug may stop to bite when the code moves: another guard then does the work of the one that is broken here. Ask then
which rule the broken guard still keeps by itself, and let the judges (checks.py) look at that. So a fence is judged by
what moved after it, not by a loss that follows; a claim by two calls that ran at once; and what a call cost by what its
publisher did, never by the header in which the gateway says what it took.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gateway.proxy.allowance
import gateway.proxy.purses.charge
import gateway.proxy.tiers
from gateway.billing import prepaid_credits
from gateway.database.pool import Connection
from gateway.errors import Unavailable
from gateway.jobs.reconcile import Reconciler
from gateway.ledger.group_commit import GroupCommit
from gateway.ledger.holds import Holds
from gateway.proxy.purses.charge import ChargePurse
from gateway.proxy.purses.keyed import KeyedPurse
from tests.simulator.town import Town

Sabotage = Callable[[Town], contextlib.AbstractContextManager[None]]


@dataclass(frozen=True)
class Bug:
    """What breaks, and the theme of the plans that find it."""

    sabotage: Sabotage
    theme: str = ""


class Missing(BaseException):
    """A bug cannot be planted any more: the code has moved. Nothing of a run may take that for a finding."""


def in_database(function: str, before: str, after: str) -> Sabotage:
    """Return a bug in a function of the ledger schema: a piece of its text replaced."""

    async def change(connection: Connection) -> None:
        text = await connection.fetchval("SELECT pg_get_functiondef(to_regproc($1))", f"ledger.{function}")
        if before not in text:
            raise Missing(f"ledger.{function} has no {before!r} any more")
        await connection.execute(text.replace(before, after))

    @contextlib.contextmanager
    def apply(town: Town) -> Iterator[None]:
        town.conductor.observer.look(change)
        yield

    return apply


def all_of(*bugs: Sabotage) -> Sabotage:
    """Return one bug that stands in several places: a rule that several functions keep."""

    @contextlib.contextmanager
    def apply(town: Town) -> Iterator[None]:
        with contextlib.ExitStack() as planted:
            for bug in bugs:
                planted.enter_context(bug(town))
            yield

    return apply


def in_code(owner: Any, name: str, make: Callable[[Any], Any]) -> Sabotage:
    """Return a bug in Python: an attribute replaced by what `make` makes of it."""

    @contextlib.contextmanager
    def apply(_town: Town) -> Iterator[None]:
        before = getattr(owner, name)
        setattr(owner, name, make(before))
        try:
            yield
        finally:
            setattr(owner, name, before)

    return apply


@contextlib.contextmanager
def edited_balance(town: Town) -> Iterator[None]:
    """Somebody edits a balance by hand."""
    statement = "UPDATE ledger.account SET balance = balance + 1 WHERE id = (SELECT min(id) FROM ledger.account WHERE granted > 0)"
    town.conductor.observer.look(lambda connection: connection.execute(statement))
    yield


async def _nothing(*_arguments: Any, **_options: Any) -> int:
    return 0


def _forgetful_keep(keep: Any) -> Any:
    async def keep_or_not(*arguments: Any) -> None:
        with contextlib.suppress(Unavailable):
            await keep(*arguments)

    return keep_or_not


def _keyless_end(end: Any) -> Any:
    """Charge for what a call with a key delivered in part, although its key is given back."""

    async def end_as_without_key(purse: Any, exchange: Any, ending: Any) -> bool:
        keyed, exchange.keyed = exchange.keyed, None
        try:
            return await end(purse, exchange, ending)
        finally:
            exchange.keyed = keyed

    return end_as_without_key


def _unbounded(counter: Any) -> Any:
    return lambda *arguments: counter(*arguments[:5])


def _first_counter(decide: Any) -> Any:
    def decide_by_day(*arguments: Any) -> Any:
        allowed = decide(*arguments)
        return allowed[:1] if isinstance(allowed, tuple) else allowed

    return decide_by_day


BUGS: dict[str, Bug] = {
    "a balance is edited": Bug(edited_balance),
    "a refund is applied twice": Bug(in_database("return_to_lot", "balance + p_amount", "balance + 2 * p_amount")),
    "a refund takes no notice of the end": Bug(
        in_database("refund", "IF p_only_open THEN", "IF false THEN"), "hang-ups"
    ),
    "lots are drawn in the order of their age": Bug(
        all_of(
            *(
                in_database(function, "ORDER BY a.purpose, a.expires_at NULLS LAST, a.id", "ORDER BY a.id")
                for function in ("draw", "post_charge", "post_charges_unfenced")
            )
        )
    ),
    "a batch draws on deposits for other publishers": Bug(
        in_database("post_charges_unfenced", "AND l.purpose <> 'deposit'", "")
    ),
    "a batch spends expired money": Bug(
        in_database("post_charges_unfenced", "AND (a.expires_at IS NULL OR a.expires_at > now())", ""), "expiry"
    ),
    "a charge that is sent again is charged again": Bug(
        in_database("post_charge", "t.cause_id = p_exchange AND t.kind = 'charge'", "false"), "losses"
    ),
    "fees are rounded up": Bug(
        in_database(
            "draw", "div(p_fee * (p_amount - left_over), p_amount)", "ceil(p_fee * (p_amount - left_over) / p_amount)"
        ),
        "crumbs",
    ),
    "a hold is released to the lot drawn first": Bug(
        in_database("end_hold", "ORDER BY t.leg DESC", "ORDER BY t.leg"), "crumbs"
    ),
    "a hold that could not be placed for certain stays": Bug(
        in_code(Holds, "_owe_release", lambda _owe: lambda *_: None), "outages"
    ),
    "concurrent sums overwrite each other": Bug(
        in_database("add_to_shard", "s.credits + EXCLUDED.credits", "EXCLUDED.credits")
    ),
    "an expired lot keeps what is in it": Bug(
        in_database("return_to_lot", "PERFORM ledger.expire_lot(lot.id, ledger.new_id())", "NULL"), "expiry"
    ),
    "a running key is given to whoever asks": Bug(
        in_database("claim_answer", "IF dead OR found_row", "IF found_row.status IS NULL OR found_row"), "hang-ups"
    ),
    "a dead worker's key stays its own": Bug(
        in_database("claim_answer", "IF dead OR found_row", "IF found_row"), "deaths"
    ),
    "a key is written over that another call has": Bug(
        in_database("store_answer", "AND a.exchange_id = p_exchange FOR UPDATE", "FOR UPDATE"), "standstills"
    ),
    "an answer is kept although its charge was given back": Bug(
        in_database("store_answer", "AND s.outcome = 'settled'", ""), "standstills"
    ),
    "a worker taken for dead goes on charging": Bug(
        in_database("is_fenced", "IF p_worker IS NULL", "IF true"), "standstills"
    ),
    "ends that ride with a batch are lost": Bug(
        in_database("post_charges", "IF cardinality(p_ended) > 0 THEN", "IF false THEN"), "expiry"
    ),
    "the reconciler does nothing": Bug(in_code(Reconciler, "_end", lambda _end: _nothing), "deaths"),
    "what is owed is forgotten": Bug(in_code(GroupCommit, "owe", lambda _owe: lambda *_: None), "outages"),
    "an answer is delivered though it could not be stored": Bug(in_code(KeyedPurse, "keep", _forgetful_keep), "stores"),
    "a key is given back though its call was charged": Bug(in_code(ChargePurse, "end", _keyless_end), "hang-ups"),
    "a batch sells more places than a step has": Bug(
        in_database("count_together", "OR c.value + u.amount > u.most", ""), "tiers"
    ),
    "calls that cannot be counted together are not held to their bounds": Bug(
        in_database("count_exchange", "OR c.value + u.amount > u.most", ""), "tiers"
    ),
    "a place is sold by the price of a later one": Bug(
        in_database("count_together", "c.value < u.least OR", ""), "tiers"
    ),
    "what is given back keeps its place": Bug(
        in_database("recount", "WHEN p_taken > 0 THEN one.amount ELSE 0", "ELSE one.amount"), "tiers"
    ),
    "a free place that nobody ended is kept": Bug(
        in_database("refund", "IF payer IS NULL AND NOT EXISTS", "IF payer IS NULL OR NOT EXISTS"), "tiers"
    ),
    "a call that is not paid keeps its place": Bug(
        in_database("uncount", "PERFORM ledger.recount(p_exchange, 0)", "NULL"), "crumbs"
    ),
    "a gateway believes what it last heard of a month": Bug(
        in_code(gateway.proxy.tiers, "Counter", _unbounded), "tiers"
    ),
    "a budget looks at days alone": Bug(in_code(gateway.proxy.allowance, "decide", _first_counter), "budgets"),
    "a budget is not asked about the price of a call": Bug(
        in_code(gateway.proxy.purses.charge, "allowance_of", lambda _: lambda *_: None), "budgets"
    ),
    "a captured hold counts whole": Bug(
        in_database("recount", "WHEN one.money THEN p_taken", "WHEN one.money AND p_taken = 0 THEN 0"), "budgets"
    ),
    "a payout takes calls in flight": Bug(in_database("unended_of", "t.kind = 'charge'", "false"), "farming"),
    "free credit is paid out": Bug(
        in_database("is_promotional", "p_source IS DISTINCT FROM 'admin_grant'", "false"), "farming"
    ),
    "the bonus of a deposit is paid out": Bug(
        in_database("is_promotional", "p_source IS NOT DISTINCT FROM 'tier_bonus'", "false"), "farming"
    ),
    "a capture forgets what paid its hold": Bug(in_database("promotional_capture", "k.taken > 0", "false"), "farming"),
    "expired credit lives on with each refund": Bug(
        in_database("return_to_lot", "coalesce(lapsed_at, expires_at) + p_grace", "now() + p_grace"), "expiry"
    ),
    "a failed call is charged": Bug(
        in_code(prepaid_credits, "gives_back", lambda _gives_back: lambda *_: None), "failures"
    ),
}
