"""Every act of an operator is named here: one that moves money counts against the bound of four eyes, or says why not.

tests/operators/test_four_eyes.py proves by HTTP and command that those which count are bounded, together.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from typing import get_args

import click
from fastapi.routing import APIRoute

from admin_api.app import OPERATOR_ROUTERS, ROUTERS
from admin_api.resources.operator import operator
from gateway.cli.main import COMMANDS
from gateway.operators.approvals import Kind
from tests.house.source import ROOT

# An act, by its command or operation, and the kind as which it counts.
COUNTED = {
    "wallet grant": "grant",
    "wallet correct": "correction",
    "correct_wallet": "correction",
    "exchanges refund": "refund",
    "refund_call": "refund",
    "exchanges resolve": "resolution",
    "resolve_exchange": "resolution",
    "deposits refund": "deposit_refund",
}
# Acts that move money and do not count, with what bounds them instead: docs/operators.md says so too.
UNCOUNTED = {
    "payouts cancel": "back into the earnings that it came from",
    "purchases fund": "books what a transaction on the chain has done",
    "purchases withdraw": "books what a transaction on the chain has done",
    "invoices issue": "books what was bought, at prices that were agreed",
    "invoices void": "takes an unpaid invoice back",
    "issue_invoice": "as invoices issue",
    "void_invoice": "as invoices void",
    "approvals approve": "another operator's word, which is the second pair of eyes",
    "approve_request": "as approvals approve",
}
MOVES_NOTHING = set(
    """
    dev | serve | migrate | config check | config show | wallet show | approvals list | approvals decline | plan list
    | plan show | plan set | find accounts | find keys | find publishers | find call | suspend | restore | suspensions
    | publisher list | publisher show | publisher create | publisher activate | publisher deactivate | publisher verify
    | publisher first-party | publisher test | publisher import-openapi | publisher sandbox-sql | project ip-allow show
    | project ip-allow clear | oauth list | oauth share | oauth remove | exchanges list | exchanges debts
    | deposits list | deposits show | payments list | payments show | payouts list | payouts retry | purchases list
    | purchases forgive | purchases balance | receipt verify | secrets new-key | secrets rotate | secrets check | fault-points
    | ledger verify | ledger archive | analytics verify | analytics rebuild | invoices generate | invoices list
    | audit list | audit verify | audit head | generate_invoices | decline_request
    """.replace("|", "\n").split("\n")
)  # fmt: skip


def commands(name: str, command: click.Command) -> Iterator[str]:
    if not isinstance(command, click.Group):
        yield name
        return
    for part, inner in command.commands.items():
        yield from commands(f"{name} {part}", inner)


def all_commands() -> set[str]:
    found: set[str] = set()
    for name, (target, _) in COMMANDS.items():
        module, _, attribute = target.partition(":")
        found |= set(commands(name, getattr(importlib.import_module(module), attribute)))
    return found


def operations() -> set[str]:
    """Return the operations that change something and need an operator's token."""
    routes = [route for router in (*ROUTERS, *OPERATOR_ROUTERS) for route in router.routes]
    return {
        str(route.operation_id)
        for route in routes
        if isinstance(route, APIRoute)
        and route.methods != {"GET"}
        and any(needed.call is operator for needed in route.dependant.dependencies)
    }


def test_every_act_of_an_operator_is_judged() -> None:
    silent = {act.strip() for act in MOVES_NOTHING if act.strip()}
    assert COUNTED.keys() | UNCOUNTED.keys() | silent == all_commands() | operations()
    assert not (COUNTED.keys() & UNCOUNTED.keys() | silent & (COUNTED.keys() | UNCOUNTED.keys()))


def test_what_counts_is_counted_in_one_way() -> None:
    """Each kind is asked for in gateway/operators, and by a file that brings it to the one door."""
    by_file = {
        path.name: set(re.findall(r'Wanted\(\s*"(\w+)"', path.read_text()))
        for path in (ROOT / "gateway" / "operators").glob("*.py")
        if "await alone_or_asked(" in path.read_text()
    }
    assert set().union(*by_file.values()) == set(COUNTED.values()) == set(get_args(Kind))


def test_what_does_not_count_is_documented() -> None:
    page = " ".join((ROOT / "docs" / "operators.md").read_text().split())
    for act in UNCOUNTED:
        if " " in act and not act.startswith("approvals"):
            assert f"`tollway {act}`" in page, act
