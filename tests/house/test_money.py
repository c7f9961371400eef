"""No float near money: not in what computes it, not in what books it, not in the database."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from gateway.database.pool import Connection
from tests.house.source import Module, modules, scopes

MONEY = ("pricing", "gateway/ledger", "gateway/billing", "gateway/payments", "gateway/catalog", "admin_api/resources")
# Time may be a float. Its names say so.
TIME = re.compile(r"(?:seconds|timeout|duration|patience|deadline|wait|pause|last_chance|now|due|over)\)?$", re.I)
WIRE = "the contract sends these as JSON numbers, beside exact *_atomic integers"
# What else has nothing to do with an amount: beginning of "file name" -> reason.
ALLOWED = {
    "admin_api/resources/organization_publishers.py _earnings": WIRE,
    "admin_api/resources/publisher_models.py PublisherEarningsResponse.": WIRE,
    "admin_api/resources/payouts.py PublisherPayoutResponse.amount": WIRE,
    "admin_api/resources/payouts.py _shown": WIRE,
    "admin_api/resources/invoice_models.py ": WIRE,
    "gateway/billing/invoices/pdf.py ": "millimetres of a page",
    "admin_api/resources/publisher_models.py PublisherSuggestion.score": "how well a publisher fits a task",
    "admin_api/resources/consumption_models.py UsageSummary.": WIRE,
    "admin_api/resources/consumption_models.py UsageEventDebugRecord.quantity": WIRE,
    "admin_api/resources/plans.py Used.percent": "a share of a limit",
    "admin_api/resources/plans.py _used": "a share of a limit",
    "admin_api/resources/plans.py QuotaUsage": "the contract sends what is not offered here as JSON numbers",
    "admin_api/resources/projects.py Project.": "sizes of computes and seconds",
    "gateway/catalog/suggest.py ": "how well a publisher fits a task",
    "gateway/catalog/delivery.py ": "timeouts",
    "gateway/catalog/refund_rules.py compile_rules": "a time",
    "pricing/refund_rules.py ": "numbers of an answer, and bounds of a schema",
    "gateway/catalog/openapi/text.py ": "numbers of a document; prices are texts",
    "gateway/catalog/openapi/importing.py _Operation._query": "an example of a parameter",
    "gateway/catalog/openapi/schemas.py _is_number": "bounds of a schema",
    "gateway/payments/evm/rpc.py Rpc.__init__": "a timeout's default",
    "gateway/payments/evm/endpoints.py ": "timeouts, and how long a node is left alone",
    "gateway/payments/evm/relayer.py Relayer._round": "seconds until the next round",
    "gateway/ledger/group_commit.py GroupCommit.__init__.observe": "how long a batch took",
    "gateway/ledger/batches.py Batches.__init__.observe": "how long a batch took",
}


def floats(module: Module) -> Iterator[tuple[str, str]]:
    """Yield the place ("file name") and the text of everything that makes or takes a float."""
    for name, node in scopes(module):
        made = (
            (isinstance(node, ast.Constant) and isinstance(node.value, float))
            or (isinstance(node, ast.Name) and node.id == "float")
            or (isinstance(node, ast.Call) and ast.unparse(node.func) == "round")
            or (isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div))
        )
        if made and not TIME.search(name):
            yield f"{module.path} {name}", f"line {getattr(node, 'lineno', '?')}: {ast.unparse(node)}"


def found() -> list[tuple[str, str]]:
    return [one for module in modules(*MONEY) for one in floats(module)]


def test_no_float_near_money() -> None:
    assert [one for one in found() if not any(one[0].startswith(place) for place in ALLOWED)] == []


def test_every_exception_is_needed() -> None:
    places = [place for place, _ in found()]
    assert [one for one in ALLOWED if not any(place.startswith(one) for place in places)] == []


@pytest.mark.parametrize(
    "line",
    [
        "fee = amount * 0.01",
        "share = amount / 2",
        "amount /= 2",
        "price = float(text)",
        "def price(amount: float) -> int: ...",
        "async def price(text: str) -> float: ...",
        "cents = round(amount)",
        "class Price:\n    amount: float | None = None",
    ],
)
def test_a_float_would_be_found(line: str) -> None:
    assert len(list(floats(Module("pricing/x.py", line)))) == 1


def test_time_may_be_a_float() -> None:
    text = "FLUSH_SECONDS = 0.02\nclass A:\n    poll_seconds: float = 0.25\ndef f(seconds: float, timeout: float): ..."
    assert list(floats(Module("gateway/ledger/x.py", text))) == []


AMOUNTS = re.compile(
    r"(?:^|_)(?:amount|balance|price|cost|charge|fee|credits|debits|deposit|drawn|limit_atomic)(?:_|$)"
)
# Columns whose names sound like money and that are none.
NO_AMOUNT: dict[str, str] = {
    "ledger.penalty.charge_id": "the id of the charge that it was taken for",
    "card.refund.deposit_id": "whose it is",
    "card.dispute.deposit_id": "whose it is",
    "card.refund_order.deposit_id": "whose it is",
}


async def columns(connection: Connection) -> list[tuple[str, str, int | None]]:
    """Return every column of our tables as (schema.table.column, type, digits after the point)."""
    rows = await connection.fetch(
        "SELECT table_schema || '.' || table_name || '.' || column_name, data_type, numeric_scale"
        " FROM information_schema.columns WHERE table_schema NOT IN ('pg_catalog', 'information_schema')"
    )
    return [tuple(row) for row in rows]


async def test_no_column_is_a_float(connection: Connection) -> None:
    assert [name for name, kind, _ in await columns(connection) if kind in ("real", "double precision", "money")] == []


async def test_amounts_are_whole_numbers_of_the_smallest_unit(connection: Connection) -> None:
    amounts = [one for one in await columns(connection) if AMOUNTS.search(one[0].rpartition(".")[2])]
    assert len(amounts) > 15
    for name, kind, scale in amounts:
        if name not in NO_AMOUNT:
            assert (kind, scale) in (("numeric", 0), ("bigint", 0), ("ARRAY", None)), (name, kind, scale)
