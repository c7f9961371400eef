"""One sold query inside the read-only sandbox of a real PostgreSQL: what arrives, where it stops, how it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest

from gateway.upstreams.postgres import queries
from gateway.upstreams.postgres.errors import DatabaseBusy, QueryFailed, QueryTimeout
from gateway.upstreams.postgres.parameters import BadParameter, texts
from gateway.upstreams.postgres.pool import DatabasePool
from gateway.upstreams.postgres.queries import Bounds, Planned, Rows
from pricing.sql.policy import CheckedQuery, check
from tests.pricing.sql.queries import SOLD
from tests.pricing.sql.tables import ON_SALE
from tests.support.market import Market

BOUNDS = Bounds()
VALUES: dict[int, list[Any]] = {0: [], 1: [5], 2: ["2022-01-03", [1, 2, 3]]}


async def run(
    pool: DatabasePool, query: str | CheckedQuery, values: Sequence[Any] = (), bounds: Bounds = BOUNDS
) -> tuple[list[bytes], Rows, Planned]:
    checked = check(query, ON_SALE) if isinstance(query, str) else query
    read = Rows()
    found: list[bytes] = []
    async with pool.lease() as session, queries.sandbox(session, ON_SALE.search_path, bounds):
        described = await queries.describe(session, checked, bounds)
        bound = texts(values, described.parameters)
        planned = await queries.plan(session, described, bound, bounds)
        async for lot in queries.rows(session, described, bound, bounds, read):
            found += lot
    return found, read, planned


async def value(pool: DatabasePool, expression: str) -> bytes:
    """Return one value as it arrives: the JSON after `{"v":` and before `}`."""
    (row,), _, _ = await run(pool, f"SELECT {expression} AS v")
    return row.removeprefix(b'{"v":').removesuffix(b"}")


@pytest.mark.parametrize("query", SOLD)
async def test_a_sold_query_gives_the_rows_that_the_original_gives(
    market: Market, pool: DatabasePool, query: str
) -> None:
    checked = check(query, ON_SALE)
    values = VALUES[checked.parameters]
    found, read, _ = await run(pool, checked, values)
    assert read.stopped is None
    assert read.count == len(found)
    assert read.size == sum(map(len, found))
    whole = "LIMIT" not in query and "FETCH" not in query
    if not values and whole and not any(name.endswith("_2") for name in _names(found)):
        async with market.owner.transaction(readonly=True):
            await market.owner.execute(
                "SET LOCAL search_path = demo; SET LOCAL timezone = 'UTC'; SET LOCAL intervalstyle = 'iso_8601'"
            )
            wanted = await market.owner.fetch(f"SELECT row_to_json(q.*)::text FROM ({query}) q")
        assert sorted(_values(row) for row in found) == sorted(_values(row[0]) for row in wanted)


def _names(rows: list[bytes]) -> list[str]:
    return [name for name, _ in orjson.loads(rows[0]).items()] if rows else []


def _values(row: str | bytes) -> str:
    """Return a row without its columns' names: the frame numbers those that occur twice."""
    return str(list(orjson.loads(row).values()))


TYPES = {
    "1::smallint": b"1",
    "9007199254740993::bigint": b"9007199254740993",
    "12345678901234567890.1234567890::numeric(40,10)": b"12345678901234567890.1234567890",
    "1.50::numeric": b"1.50",
    "'NaN'::numeric": b'"NaN"',
    "'Infinity'::float8": b'"Infinity"',
    "0.1::float8": b"0.1",
    "true": b"true",
    "NULL::text": b"null",
    "'a\"b\\c'": b'"a\\"b\\\\c"',
    "'Zoë'": '"Zoë"'.encode(),
    "DATE '2024-02-29'": b'"2024-02-29"',
    "'infinity'::timestamp": b'"infinity"',
    "TIMESTAMP '2024-02-29 12:30:00.123456'": b'"2024-02-29T12:30:00.123456"',
    "TIMESTAMPTZ '2024-02-29 12:30:00+02'": b'"2024-02-29T10:30:00+00:00"',
    "INTERVAL '1 month 2 days 3 seconds'": b'"P1M2DT3S"',
    "'\\x00ff'::bytea": b'"\\\\x00ff"',
    "ARRAY[1, NULL, 3]": b"[1,null,3]",
    "ARRAY[ARRAY[1, 2], ARRAY[3, 4]]": b"[[1,2],[3,4]]",
    "'{\"a\": [1, 2.50]}'::jsonb": b'{"a": [1, 2.50]}',
    "daterange('2024-01-01', '2024-02-01')": b'"[2024-01-01,2024-02-01)"',
    "'10.0.0.1'::inet": b'"10.0.0.1"',
    "'0e37df36-f698-11e6-8dd4-cb9ced3df976'::uuid": b'"0e37df36-f698-11e6-8dd4-cb9ced3df976"',
}


@pytest.mark.parametrize("expression", TYPES)
async def test_a_value_arrives_as_faithful_json(pool: DatabasePool, expression: str) -> None:
    assert await value(pool, expression) == TYPES[expression]


async def test_columns_of_the_same_name_are_numbered(pool: DatabasePool) -> None:
    (row,), _, _ = await run(pool, "SELECT 1 AS a, 2 AS a, 3 AS q, 4, 5")
    assert list(orjson.loads(row).items()) == [("a", 1), ("a_2", 2), ("q", 3), ("?column?", 4), ("?column?_2", 5)]


async def test_parameters_go_by_type_and_never_into_the_text(pool: DatabasePool) -> None:
    query = "SELECT ticker FROM companies WHERE name = $1"
    assert (await run(pool, query, ["' OR true --"]))[0] == []
    found, _, _ = await run(
        pool, "SELECT $1::int + 1 AS v, $2::jsonb AS w, $3::text[] AS x", [41, {"k": [1]}, ['a"b', None]]
    )
    assert orjson.loads(found[0]) == {"v": 42, "w": {"k": [1]}, "x": ['a"b', None]}
    assert len((await run(pool, "SELECT ticker FROM companies ORDER BY 1 LIMIT $1", [3]))[0]) == 3


@pytest.mark.parametrize(
    ("query", "values"),
    [
        ("SELECT $1::int", []),
        ("SELECT $1::int", [1, 2]),
        ("SELECT $1::int", [{"a": 1}]),
        ("SELECT $1::text", ["a\x00b"]),
        ("SELECT $1::text", ["x" * 70_000]),
        ("SELECT $1::int[]", [[[[[[[1]]]]]]]),
    ],
)
async def test_a_parameter_that_cannot_be_bound_is_refused(pool: DatabasePool, query: str, values: list[Any]) -> None:
    with pytest.raises(BadParameter):
        await run(pool, query, values)


async def test_a_query_stops_at_each_bound_and_says_at_which(pool: DatabasePool) -> None:
    found, read, _ = await run(pool, "SELECT * FROM prices", bounds=replace(BOUNDS, rows=1_234))
    assert (len(found), read.stopped) == (1_234, "rows")
    found, read, _ = await run(pool, "SELECT * FROM sectors", bounds=replace(BOUNDS, rows=16))
    assert (len(found), read.stopped) == (16, None)
    found, read, _ = await run(pool, "SELECT body FROM filings", bounds=replace(BOUNDS, size=50_000))
    assert read.stopped == "size"
    assert sum(map(len, found)) == read.size <= 50_000
    found, read, _ = await run(pool, "SELECT repeat('x', 10000) FROM prices", bounds=replace(BOUNDS, row_size=9_000))
    assert (found, read.stopped) == ([], "row_size")


async def test_a_fold_is_seen_in_the_plan(pool: DatabasePool) -> None:
    folds = {
        "SELECT string_agg(ticker, ',') FROM companies": 1_200,
        "SELECT ARRAY(SELECT ticker FROM companies)": 1_200,
        "SELECT jsonb_object_agg(ticker, name) FROM companies WHERE country = 'US'": 300,
        "SELECT country, array_agg(ticker) FROM companies GROUP BY country": 1_200,
        "SELECT array_agg(x) FROM (SELECT ticker FROM companies) x": 1_200,
    }
    for query, rows in folds.items():
        _, _, planned = await run(pool, query)
        assert planned.folded >= rows, query
    for query in ("SELECT count(*), max(close), sum(volume) FROM prices", "SELECT avg(employees) FROM companies"):
        assert (await run(pool, query))[2].folded == 0


async def test_time_is_bounded_though_rows_keep_coming(pool: DatabasePool) -> None:
    slow = "SELECT count(*) FROM prices a, prices b WHERE a.volume <> b.volume"
    with pytest.raises(QueryTimeout):
        await run(pool, slow, bounds=replace(BOUNDS, statement=0.2))
    with pytest.raises(QueryTimeout):
        await run(pool, slow, bounds=replace(BOUNDS, total=0.3, statement=60))
    assert await value(pool, "1") == b"1"


@pytest.mark.parametrize(
    ("query", "sqlstate"),
    [
        ("SELECT string_agg(ticker, '')::int FROM companies", "22P02"),
        ("SELECT (name || 'x')::date FROM companies", "22007"),
        ("SELECT 1 / (company_id - company_id) FROM companies", "22012"),
        ("SELECT company_id || 1 FROM companies", "42883"),
    ],
)
async def test_an_error_says_its_state_and_no_data(pool: DatabasePool, query: str, sqlstate: str) -> None:
    with pytest.raises(QueryFailed) as failure:
        await run(pool, query)
    assert failure.value.sqlstate == sqlstate
    assert "Works" not in str(failure.value)
    assert "AA" not in str(failure.value)


async def test_a_session_comes_back_clean(pool: DatabasePool) -> None:
    async with pool.lease() as session:
        await session.execute("SET work_mem = '99MB'; SELECT pg_advisory_lock(7); LISTEN x; BEGIN")
        first = session.get_server_pid()
    async with pool.lease() as session:
        assert session.get_server_pid() == first
        assert await session.fetchval("SHOW work_mem") != "99MB"
        assert await session.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0


async def test_a_full_pool_answers_instead_of_waiting_for_ever(
    pool: DatabasePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.upstreams.postgres.pool.WAIT_SECONDS", 0.1)
    release = asyncio.Event()

    async def hold() -> None:
        async with pool.lease():
            await release.wait()

    holders = [asyncio.create_task(hold()) for _ in range(4)]
    await asyncio.sleep(0.3)
    with pytest.raises(DatabaseBusy):
        await run(pool, "SELECT 1")
    release.set()
    await asyncio.gather(*holders)
    assert await value(pool, "1") == b"1"
