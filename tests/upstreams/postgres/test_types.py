"""Every common type of PostgreSQL, from a real server into each form of an answer, without a loss."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

import asyncpg
import nanoarrow as na
import pytest
from nanoarrow import ipc

from gateway.proxy.query_answer import Summary, Writer
from gateway.proxy.query_request import Form
from gateway.upstreams.postgres import queries
from gateway.upstreams.postgres.pool import DatabasePool
from gateway.upstreams.postgres.queries import Bounds, Rows
from pricing.sql.policy import CheckedQuery
from tests.support.market import Market

BOUNDS = Bounds()
SUMMARY = Summary(1, "0", 0, "USDC", 1, 1, None)
# expression -> the value as JSON text; its CSV is that without quotes, its Arrow value the same text unless ARROW says so
TYPES = {
    "(-32768)::smallint": "-32768",
    "2147483647::int": "2147483647",
    "9223372036854775807::bigint": "9223372036854775807",
    "12345678901234567890.1234567890::numeric(40,10)": "12345678901234567890.1234567890",
    "1.50::numeric": "1.50",
    "0.00000001::numeric": "0.00000001",
    "1000000000000000000000000000000.0000000001": "1000000000000000000000000000000.0000000001",
    "'NaN'::numeric": '"NaN"',
    "'-Infinity'::numeric": '"-Infinity"',
    "0.1::float8": "0.1",
    "1e300::float8": "1e+300",
    "'NaN'::float8": '"NaN"',
    "'-Infinity'::float8": '"-Infinity"',
    "1.25::real": "1.25",
    "true": "true",
    "false": "false",
    "'a\"b\\c,d'::text": '"a\\"b\\\\c,d"',
    "'Zoë 🦉'": '"Zoë 🦉"',
    "'ab'::char(4)": '"ab  "',
    "''::varchar": '""',
    "'\\x00ff10'::bytea": '"\\\\x00ff10"',
    "DATE '2024-02-29'": '"2024-02-29"',
    "DATE '1600-03-01'": '"1600-03-01"',
    "DATE '0044-03-15 BC'": '"0044-03-15 BC"',
    "DATE '20240-12-31'": '"20240-12-31"',
    "'infinity'::date": '"infinity"',
    "TIME '12:30:00.5'": '"12:30:00.5"',
    "'12:30+02'::timetz": '"12:30:00+02"',
    "TIMESTAMP '2024-02-29 12:30:00.123456'": '"2024-02-29T12:30:00.123456"',
    "TIMESTAMP '1969-12-31 23:59:59.999999'": '"1969-12-31T23:59:59.999999"',
    "'-infinity'::timestamp": '"-infinity"',
    "TIMESTAMPTZ '2024-02-29 12:30:00+02'": '"2024-02-29T10:30:00+00:00"',
    "INTERVAL '1 month 2 days 3 seconds'": '"P1M2DT3S"',
    "INTERVAL '-1 year 25 hours'": '"P-1YT25H"',
    "'0e37df36-f698-11e6-8dd4-cb9ced3df976'::uuid": '"0e37df36-f698-11e6-8dd4-cb9ced3df976"',
    '\'{"b": [1, 2.50], "a": null}\'::json': '{"b": [1, 2.50], "a": null}',
    '\'{"b": [1, 2.50], "a": null}\'::jsonb': '{"a": null, "b": [1, 2.50]}',
    "'\"text\"'::jsonb": '"text"',
    "'10.0.0.1'::inet": '"10.0.0.1"',
    "'10.0.0.0/8'::cidr": '"10.0.0.0/8"',
    "ARRAY[1, NULL, 3]": "[1,null,3]",
    "ARRAY['a', 'b,c', NULL, '']": '["a","b,c",null,""]',
    "ARRAY[ARRAY[1, 2], ARRAY[3, 4]]": "[[1,2],[3,4]]",
    "ARRAY[DATE '2024-01-01']": '["2024-01-01"]',
    "ARRAY[]::int[]": "[]",
    "daterange('2024-01-01', '2024-02-01')": '"[2024-01-01,2024-02-01)"',
    "numrange(1.5, NULL, '(]')": '"(1.5,)"',
    "int4range(5, 5)": '"empty"',
    "to_tsvector('simple', 'b a b')": "\"'a':2 'b':1,3\"",
    "to_tsquery('simple', 'a & !b')": "\"'a' & !'b'\"",
    "point(1.5, 2)": '"(1.5,2)"',
    "B'101'": '"101"',
    "NULL::int": "null",
    "NULL::text": "null",
    "NULL::timestamptz": "null",
}
DAY = 86_400
ARROW: dict[str, Any] = {
    "true": True, "false": False, "0.1::float8": 0.1, "1e300::float8": 1e300, "1.25::real": 1.25,
    "'NaN'::float8": math.nan, "'-Infinity'::float8": -math.inf,
    "(-32768)::smallint": -32768, "2147483647::int": 2147483647, "9223372036854775807::bigint": 9223372036854775807,
    "'\\x00ff10'::bytea": b"\x00\xff\x10",
    "DATE '2024-02-29'": 19_782, "DATE '1600-03-01'": -135_080, "DATE '0044-03-15 BC'": -735_160,
    "DATE '20240-12-31'": 6_673_345, "'infinity'::date": 2**31 - 1,
    "TIMESTAMP '2024-02-29 12:30:00.123456'": (19_782 * DAY + 45_000) * 10**6 + 123_456,
    "TIMESTAMP '1969-12-31 23:59:59.999999'": -1, "'-infinity'::timestamp": -(2**63),
    "TIMESTAMPTZ '2024-02-29 12:30:00+02'": (19_782 * DAY + 37_800) * 10**6,
}  # fmt: skip


async def forms(session: asyncpg.Connection, query: str) -> tuple[list[bytes], dict[Form, bytes]]:
    """Run a query in the sandbox and return its rows, and the answer in each form."""
    read, rows = Rows(), list[bytes]()
    checked = CheckedQuery(query, (), 0, None, one_row=False, collecting=False)
    described = await queries.describe(session, checked, BOUNDS)
    async for lot in queries.rows(session, described, [], BOUNDS, read):
        rows += lot
    found: dict[Form, bytes] = {}
    for form in ("json", "ndjson", "csv", "arrow"):
        writer = Writer(form)
        writer.name(described.columns, described.types)
        found[form] = (writer.rows(rows) if rows else b"") + writer.end(SUMMARY)
    return rows, found


def stored(body: bytes) -> list[list[Any]]:
    """Return the columns of an Arrow stream as they are stored: days and microseconds as numbers."""
    whole = na.Array(na.ArrayStream(ipc.InputStream.from_readable(io.BytesIO(body))).read_all())
    return [_plain(whole.child(place)) for place in range(whole.n_children)]


def _plain(column: na.Array) -> list[Any]:
    kind = column.schema.type
    if kind not in (na.Type.DATE32, na.Type.TIMESTAMP):
        return column.to_pylist()
    if len(column) == 0:
        return []
    valid, data = column.buffers[0], list(column.buffers[1])
    bits = list(valid.elements()) if valid is not None and valid.size_bytes else [True] * len(data)
    return [value if bit else None for value, bit in zip(data, bits, strict=False)][: len(column)]


@pytest.mark.parametrize("expression", TYPES)
async def test_a_value_arrives_whole_in_every_form(pool: DatabasePool, expression: str) -> None:
    async with pool.lease() as session, queries.sandbox(session, (), BOUNDS):
        rows, found = await forms(session, f"SELECT {expression} AS v")
    text = TYPES[expression]
    assert rows == [b'{"v":' + text.encode() + b"}"]
    assert found["json"].startswith(b'{"rows":[{"v":' + text.encode() + b'}],"row_count":1')
    assert found["ndjson"].startswith(b'{"v":' + text.encode() + b"}\n{")
    plain = json.loads(text) if text.startswith('"') else None if text == "null" else text
    read = list(csv.reader(io.StringIO(found["csv"].decode(), newline="")))
    assert found["csv"].endswith(b"\r\n")
    assert read == [["v"], [plain] if plain else [""] if plain == "" else []] or read == [["v"], [plain or ""]]
    (column,) = stored(found["arrow"])
    expected = ARROW.get(expression, plain)
    assert column == [expected] or (expected != expected and math.isnan(column[0]))


ODD = """
    CREATE TYPE demo.mood AS ENUM ('sad', 'glad');
    CREATE DOMAIN demo.positive AS int CHECK (VALUE > 0);
    CREATE TYPE demo.pair AS (a int, b text);
    CREATE TABLE demo.odd (m demo.mood, p demo.positive, c demo.pair, n money, r int4multirange, x bit varying(5), o oid,
                           g numeric[], t timestamptz[], w interval[], k demo.mood[]);
    INSERT INTO demo.odd VALUES ('glad', 5, (1, 'x'), 12.5, '{[1,3),[7,9)}', B'1010', 42, '{1.50,NaN}',
                                 '{2024-01-01 00:00+00}', '{1 day}', '{sad,glad}');
    INSERT INTO demo.odd DEFAULT VALUES;
"""
ODD_JSON = (
    '{"m":"glad","p":5,"c":{"a":1,"b":"x"},"n":"$12.50","r":"{[1,3),[7,9)}","x":"1010","o":"42","g":[1.50,"NaN"],'
    '"t":["2024-01-01T00:00:00+00:00"],"w":["P1D"],"k":["sad","glad"]}'
)


async def test_types_of_the_publishers_own_arrive_too(market: Market) -> None:
    transaction = market.owner.transaction()
    await transaction.start()
    try:
        await market.owner.execute(ODD)
        await market.owner.execute(
            "SET LOCAL intervalstyle = 'iso_8601'; SET LOCAL timezone = 'UTC'; SET LOCAL lc_monetary = 'C'"
        )
        rows, found = await forms(market.owner, "SELECT * FROM demo.odd ORDER BY m NULLS LAST")
    finally:
        await transaction.rollback()
    document = json.loads(rows[0])
    assert document | {"o": "42"} == json.loads(ODD_JSON)
    columns = stored(found["arrow"])
    assert [len(column) for column in columns] == [2] * len(columns)
    assert columns[0] == ["glad", None]
    assert columns[2][0] == '{"a":1,"b":"x"}'
    assert columns[7][0] == '[1.50,"NaN"]'
    assert all(column[1] is None for column in columns)
    assert '"{""a"":1,""b"":""x""}"' in found["csv"].decode()


async def test_many_rows_and_none_are_streams_that_can_be_read(pool: DatabasePool) -> None:
    async with pool.lease() as session, queries.sandbox(session, ("demo",), BOUNDS):
        rows, found = await forms(session, "SELECT company_id, name, founded FROM companies ORDER BY company_id")
        none, empty = await forms(session, "SELECT company_id, name FROM companies WHERE false")
    numbers, names, founded = stored(found["arrow"])
    assert (len(rows), numbers) == (1_200, list(range(1, 1_201)))
    assert names == [json.loads(row)["name"] for row in rows]
    assert sum(day is None for day in founded) == 100
    assert (none, stored(empty["arrow"]), empty["csv"]) == ([], [[], []], b"company_id,name\r\n")


async def test_a_number_of_thousands_of_digits_arrives(pool: DatabasePool) -> None:
    async with pool.lease() as session, queries.sandbox(session, (), BOUNDS):
        _, found = await forms(session, "SELECT repeat('9', 6000)::numeric AS v")
    assert found["csv"] == b"v\r\n" + b"9" * 6_000 + b"\r\n"
    assert stored(found["arrow"]) == [["9" * 6_000]]


WRITTEN = {
    # A value of type json as its owner wrote it -> its text in CSV and Arrow.
    "' {\"a\": 1} '": '{"a": 1}',
    "E' \\n[1,\\r\\n 2]\\t'": "[1,\r\n 2]",
    "' \"x\" '": "x",
    "' 12.50 '": "12.50",
    "'\"\\ud800\"'": '"\\ud800"',
    "repeat('[', 4000) || repeat(']', 4000)": "[" * 4_000 + "]" * 4_000,
    "repeat('{\"]\": ', 3000) || '1' || repeat('}', 3000)": '{"]": ' * 3_000 + "1" + "}" * 3_000,
}


@pytest.mark.parametrize("written", WRITTEN)
async def test_json_arrives_in_every_form_however_it_is_written(pool: DatabasePool, written: str) -> None:
    async with pool.lease() as session, queries.sandbox(session, (), BOUNDS):
        rows, found = await forms(session, f"SELECT 1 AS a, ({written})::json AS b, 2 AS c, NULL::json AS d")
    assert [len(row) > 30 for row in rows] == [True]
    assert list(csv.reader(io.StringIO(found["csv"].decode(), newline="")))[1] == ["1", WRITTEN[written], "2", ""]
    assert stored(found["arrow"]) == [[1], [WRITTEN[written]], [2], [None]]
    lines = found["ndjson"].decode().split("\n")
    assert (len(lines), lines[0].startswith('{"a":1,"b":'), "\r" in lines[0]) == (3, True, False)
