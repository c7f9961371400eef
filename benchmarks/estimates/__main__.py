"""`python -m benchmarks.estimates`: how far the rows that a query is estimated to give are from those that it gives.

Every query is checked, planned and run as a sold one. Its q-error says how many times the estimate is too high or too
low. Three estimates are held against each answer: the planner's alone, ours for a payer whose first query of this
shape it is, and ours for one who has asked such queries before, with other constants. Queries of which the text says
that they give one row are counted apart: they are never wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles

import asyncpg
import click
import orjson
import uvloop

from benchmarks.estimates.families import HERE, Family, read_families
from benchmarks.stack import ROOT, directory, services
from gateway.upstreams.postgres import queries
from gateway.upstreams.postgres.queries import Bounds, Planned
from pricing.sql.catalogue import OnSale, Relation
from pricing.sql.estimate import estimated_rows
from pricing.sql.learning import Experience, expected, learn
from pricing.sql.policy import CheckedQuery, check
from tests.pricing.sql.queries import SOLD

DEMO = ROOT / "gateway/devservices/demo_market.sql"
BOUNDS = Bounds(plan=30.0, statement=60.0, total=120.0)
CAP = 10_000_000
TABLES = """
    SELECT c.relname, c.reltuples::bigint, array_agg(a.attname ORDER BY a.attnum)
      FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
     WHERE c.relnamespace = $1::regnamespace AND c.relkind IN ('r', 'v', 'm') GROUP BY 1, 2
"""
WAYS = ("planner", "ours", "first time", "asked before")

HEAD = """`python -m benchmarks.estimates`: q-errors, by how many times an estimate of rows is too high or too low.
`planner` is EXPLAIN alone. `ours` is what a query is priced by, before it is rounded for showing: `first time` for a
payer whose first query of its shape it is, `asked before` for one who has asked such queries with other constants."""


@dataclass(slots=True)
class Errors:
    """Errors by WAYS, where "ours" are all that are not the planner's; `worst` names queries."""

    ways: Mapping[str, list[float]] = field(default_factory=lambda: {way: [] for way in WAYS})
    worst: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])
    certain: int = 0

    def add(self, way: str, estimate: int, actual: int, name: str) -> None:
        """Count one estimate."""
        ratio = max(estimate, 1) / max(actual, 1)
        error = max(ratio, 1 / ratio)
        self.ways[way].append(error)
        if way != "planner":
            self.ways["ours"].append(error)
            self.worst.append((error, f"{way}: {name} ({estimate} for {actual})"))


async def measure(session: asyncpg.Connection, on_sale: OnSale, families: Sequence[Family]) -> Errors:
    """Ask every variant of every family, in their order, as one payer."""
    errors = Errors()
    for family in families:
        known: Experience | None = None
        for number, query in enumerate(family.queries, 1):
            checked = check(query, on_sale)
            planned, actual = await _ran(session, on_sale, checked)
            if checked.one_row:
                errors.certain += 1
                continue
            errors.add("planner", planned.rows, actual, family.name)
            rows = expected(planned.source, known, [])
            estimate = estimated_rows(
                checked, rows if planned.rows == planned.source else min(rows, planned.rows), cap=CAP
            )
            errors.add("first time" if known is None else "asked before", estimate, actual, f"{family.name} {number}")
            limited = checked.limit if planned.rows == planned.source else planned.rows
            if limited is None or actual < limited:
                known = learn(known, planned.source, actual)
    return errors


async def once(session: asyncpg.Connection, on_sale: OnSale, asked: Sequence[str]) -> Errors:
    """Ask each query of a list once."""
    errors = Errors()
    for query in asked:
        checked = check(query, on_sale)
        if checked.parameters:
            continue
        planned, actual = await _ran(session, on_sale, checked)
        if checked.one_row:
            errors.certain += 1
            continue
        errors.add("planner", planned.rows, actual, query)
        errors.add("first time", estimated_rows(checked, planned.rows, cap=CAP), actual, " ".join(query.split())[:80])
    return errors


async def _ran(session: asyncpg.Connection, on_sale: OnSale, checked: CheckedQuery) -> tuple[Planned, int]:
    async with queries.sandbox(session, on_sale.search_path, BOUNDS):
        described = await queries.describe(session, checked, BOUNDS)
        planned = await queries.plan(session, described, [], BOUNDS)
        actual = len(await session.fetch(checked.text))
    await session.execute("ROLLBACK")
    return planned, actual


async def on_sale_in(session: asyncpg.Connection, schema: str) -> OnSale:
    """Return everything in a schema."""
    rows = await session.fetch(TABLES, schema)
    return OnSale.of(Relation(schema, name, tuple(columns), rows=count) for name, count, columns in rows)


def summary(errors: Errors) -> dict[str, dict[str, float]]:
    """Return median, 90th percentile and greatest of each way."""
    return {
        way: {"queries": len(found), "median": median(found), "p90": quantiles(found, n=100)[89], "max": max(found)}
        for way, found in errors.ways.items()
        if len(found) > 1
    }


def section(title: str, errors: Errors, worst: int) -> str:
    """Return a part of the report."""
    lines = [f"## {title}", "", f"Of {errors.certain} more queries the text says that they give one row.", ""]
    lines += ["| estimate | queries | median | p90 | max |", "| --- | --- | --- | --- | --- |"]
    for way, found in summary(errors).items():
        figures = [f"{found['queries']:.0f}", *(f"{found[name]:.2f}" for name in ("median", "p90", "max"))]
        lines.append(f"| {way} | {' | '.join(figures)} |")
    lines += ["", "Worst of ours:", ""]
    lines += [f"- {error:.1f}: {name}" for error, name in sorted(errors.worst, reverse=True)[:worst]]
    return "\n".join(lines)


async def everything(url: str) -> dict[str, Errors]:
    """Make both data sets and measure."""
    session = await asyncpg.connect(url)
    try:
        await session.execute(DEMO.read_text())
        await session.execute((HERE / "wholesale.sql").read_text())
        market, wholesale = await on_sale_in(session, "demo"), await on_sale_in(session, "wholesale")
        return {
            "Demo data, an analysts' list, each query once": await once(session, market, SOLD),
            "Demo data, families of queries": await measure(session, market, read_families("market")),
            "Wholesale data (like TPC-H, scale 0.05), its 22 patterns": await measure(
                session, wholesale, read_families("wholesale")
            ),
        }
    finally:
        await session.close()


@click.command()
@click.option("--worst", default=5, show_default=True, help="Name so many of the worst estimates of each data set.")
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), default=ROOT / "benchmarks" / "reports")
@click.option("--name", default="", help="Of the report's files; default the date and time.")
def main(worst: int, output: Path, name: str) -> None:
    """Measure the estimates of queries and write a report."""
    name = f"{name or datetime.now(UTC).strftime('%Y-%m-%d-%H%M%S')}-estimates"
    with directory() as path, services(Path(path)) as stores:
        found = uvloop.run(everything(stores.database_url))
    parts = [f"# Estimates {name}", HEAD, *(section(title, errors, worst) for title, errors in found.items())]
    click.echo("\n\n".join(parts))
    output.mkdir(parents=True, exist_ok=True)
    (output / f"{name}.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    document = {title: summary(errors) for title, errors in found.items()}
    (output / f"{name}.json").write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
    click.echo(f"\nreport: {name}.md in {output}")


if __name__ == "__main__":
    main()
