"""The benchmark of estimates asks what it says: families of one shape each, all of them sold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.estimates.families import Family, read_families
from pricing.sql.catalogue import OnSale, Relation
from pricing.sql.policy import check

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = {"wholesale": "benchmarks/estimates/wholesale.sql", "market": "gateway/devservices/demo_market.sql"}
FAMILIES = {name: read_families(name) for name in SCRIPTS}


def on_sale(name: str) -> OnSale:
    """Return the tables that a script makes; a view's columns are those that the families use."""
    script = (ROOT / SCRIPTS[name]).read_text()
    schema = re.findall(r"CREATE SCHEMA (\w+)", script)[0]
    relations = [Relation(schema, "latest_price", ("company_id", "day", "close"))]
    for table, body in re.findall(r"CREATE TABLE (?:\w+\.)?(\w+) \((.*?)\);", script, re.S):
        columns = re.findall(
            r"(?:^|,)\s*([a-z_]+)\s+(?:int|bigint|text|numeric|date|char|daterange|jsonb|timestamptz)", body
        )
        relations.append(Relation(schema, table, tuple(columns)))
    return OnSale.of(relations)


@pytest.mark.parametrize(
    ("name", "family"), [(name, family) for name in FAMILIES for family in FAMILIES[name]], ids=lambda value: getattr(value, "name", value)
)  # fmt: skip
def test_a_family_is_sold_and_has_one_shape(name: str, family: Family) -> None:
    checked = [check(query, on_sale(name)) for query in family.queries]
    assert len({one.shape for one in checked}) == 1
    assert len(set(family.queries)) > 1, "the constants differ"


def test_all_patterns_are_there() -> None:
    assert [int(family.name.split()[0]) for family in FAMILIES["wholesale"]] == list(range(1, 23))
    assert len(FAMILIES["market"]) >= 30
    assert {len(family.constants) for families in FAMILIES.values() for family in families} == {6}
