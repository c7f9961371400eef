"""Queries through the public door: rows, what they cost, what is refused, and that the money always has its end."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import io
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import nanoarrow as na
import pytest
import pytest_asyncio
from nanoarrow import ipc

from gateway.database.pool import Connection
from tests.journeys.test_paid_call import settled
from tests.support.gateway import RunningGateway
from tests.support.market import Market, create_publisher, sell
from tests.support.world import Agent, Shop, World

pytestmark = pytest.mark.usefixtures("sound_books")
DOLLAR = 1_000_000


@pytest_asyncio.fixture(scope="module")
async def shop(gateway: RunningGateway, world: World, market: Market) -> Shop:
    """A publisher that sells the market for a dollar per 1,000 rows, 0.001 dollars at least."""
    return await sell(gateway.client, await world.agent(), market.config(sample=False), pricing={"min_charge": "0.001"})


@pytest_asyncio.fixture
async def agent(world: World) -> AsyncIterator[Agent]:
    """An agent with a hundred dollars."""
    yield await world.agent(100 * DOLLAR)


@contextlib.asynccontextmanager
async def narrow_role(market: Market, *more: str) -> AsyncIterator[dict[str, Any]]:
    """A role that reads one table and one column of another, and what `more` grants to "narrow"."""
    role = "narrow"
    run = market.owner.execute
    await run(f"CREATE ROLE {role} LOGIN NOINHERIT PASSWORD 'narrow-secret'; GRANT {role} TO CURRENT_USER")
    await run(f"GRANT USAGE ON SCHEMA demo TO {role}; GRANT SELECT ON demo.sectors TO {role}")
    await run(f"GRANT SELECT (name) ON demo.companies TO {role}")
    for grant in more:
        await run(grant)
    try:
        yield market.config() | {
            "connection_string": market.connection_string.replace("reader:reader-", "narrow:narrow-")
        }
    finally:
        await run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'")
        await run(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def ask(
    gateway: RunningGateway, shop: Shop, agent: Agent, query: str, params: list[Any] | None = None, **headers: str
) -> httpx.Response:
    body = {"query": query} if params is None else {"query": query, "params": params}
    return await gateway.client.post(f"/publishers/{shop.slug}", json=body, headers={**agent.headers, **headers})


async def test_a_query_is_answered_paid_and_booked(
    gateway: RunningGateway, world: World, shop: Shop, agent: Agent, connection: Connection
) -> None:
    answer = await ask(gateway, shop, agent, "SELECT company_id, ticker FROM companies ORDER BY company_id LIMIT 2")
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert document.pop("execution_time_ms") >= 0
    assert document == {
        "rows": [{"company_id": 1, "ticker": "BA01"}, {"company_id": 2, "ticker": "CA02"}],
        "row_count": 2,
        "cost": "0.002",
        "cost_atomic": 2_000,
        "asset_symbol": "USDC",
        "payment_source": "prepaid_balance",
        "metered_rows": 2,
        "truncated": None,
    }
    assert (answer.headers["x-cost"], answer.headers["x-cost-asset"], answer.headers["x-balance"]) == (
        "0.002", "USDC", "99.998",
    )  # fmt: skip
    await settled(connection)
    assert await world.balance(agent) == 100 * DOLLAR - 2_000


async def test_an_answer_is_metered_by_what_it_carries(gateway: RunningGateway, shop: Shop, agent: Agent) -> None:
    for query, metered, cost in (
        ("SELECT count(*) FROM companies", 1, "0.001"),
        ("SELECT ticker FROM companies WHERE ticker = 'none'", 1, "0.001"),
        ("SELECT ticker FROM companies", 1_200, "1.2"),
        ("SELECT json_agg(ticker) FROM companies", 1_200, "1.2"),
        ("SELECT repeat('x', 10000) AS x", 79, "0.079"),
    ):
        answer = (await ask(gateway, shop, agent, query)).json()
        assert (answer["metered_rows"], answer["cost"], answer["truncated"]) == (metered, cost, None), query


@pytest.mark.parametrize(
    ("query", "rows", "metered"),
    [
        ("SELECT repeat('x', 300) AS x FROM companies LIMIT 50", 50, 121),
        ("SELECT rpad(ticker, 400) || lpad('', 200) AS x FROM companies LIMIT 40", 40, 190),
    ],
)
async def test_what_the_text_makes_long_is_not_cut_where_there_is_money(
    gateway: RunningGateway, shop: Shop, agent: Agent, query: str, rows: int, metered: int
) -> None:
    answer = (await ask(gateway, shop, agent, query)).json()
    assert (answer["row_count"], answer["metered_rows"], answer["truncated"]) == (rows, metered, None)


async def test_a_predicate_is_not_charged_for_what_it_looks_up(
    gateway: RunningGateway, shop: Shop, agent: Agent
) -> None:
    query = "SELECT count(*) AS n FROM filings WHERE company_id NOT IN (SELECT company_id FROM companies WHERE country = 'DE')"
    answer = (await ask(gateway, shop, agent, query)).json()
    assert (answer["row_count"], answer["metered_rows"]) == (1, 1)


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("SELECT unnest(array_agg(sector_id)) AS x FROM sectors", "SELECT count(*) FROM demo.sectors"),
        (
            "SELECT sum(sector_id) FILTER (WHERE sector_id > 1) OVER (ORDER BY sector_id) AS x FROM sectors",
            "SELECT count(*) FROM demo.sectors",
        ),
        (
            "SELECT ticker FROM companies ORDER BY country FETCH FIRST 3 ROWS WITH TIES",
            "SELECT count(*) FROM demo.companies WHERE country = (SELECT min(country) FROM demo.companies)",
        ),
    ],
)
async def test_an_answer_is_whole_where_its_text_only_seems_to_bound_it(
    gateway: RunningGateway, market: Market, shop: Shop, agent: Agent, query: str, rows: str
) -> None:
    answer = await ask(gateway, shop, agent, query)
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert document["truncated"] is None
    assert document["row_count"] == len(document["rows"]) == await market.owner.fetchval(rows) > 4


async def test_what_is_not_sold_costs_nothing(gateway: RunningGateway, world: World, shop: Shop, agent: Agent) -> None:
    for query, code in (
        ("DELETE FROM companies", "not_a_query"),
        ("SELECT * FROM internal_costs", "unknown_relation"),
        ("SELECT pg_sleep(9)", "unknown_function"),
        ("SELECT 1; SELECT 2", "several_statements"),
    ):
        answer = await ask(gateway, shop, agent, query)
        assert (answer.status_code, answer.json()["type"], answer.json()["code"]) == (
            400, "/problems/query-not-sold", code,
        ), answer.text  # fmt: skip
    answer = await ask(gateway, shop, agent, "SELECT ticker + 1 FROM companies")
    assert (answer.status_code, answer.json()["sqlstate"], answer.headers["x-cost"]) == (422, "42883", "0")
    assert await world.balance(agent) == 100 * DOLLAR


async def test_a_query_that_broke_off_costs_the_minimum_and_tells_no_data(
    gateway: RunningGateway, world: World, shop: Shop, agent: Agent, connection: Connection
) -> None:
    for query, state in (
        ("SELECT 1 / (company_id - 5) FROM companies", "22012"),
        ("SELECT CAST(string_agg(name, ',') AS int) FROM companies", "22P02"),
    ):
        answer = await ask(gateway, shop, agent, query)
        assert (answer.status_code, answer.json()["type"]) == (422, "/problems/query-failed"), answer.text
        assert (answer.json()["sqlstate"], answer.json()["cost"], answer.headers["x-cost"]) == (state, "0.001", "0.001")
        assert "Works" not in answer.text
    await settled(connection)
    assert await world.balance(agent) == 100 * DOLLAR - 2_000


async def test_looking_and_failing_are_not_free_where_a_publisher_sets_no_minimum(
    gateway: RunningGateway, world: World, market: Market, connection: Connection
) -> None:
    shop = await sell(gateway.client, await world.agent(), market.config(sample=False))
    agent = await world.agent(DOLLAR)
    asked = [
        "SELECT 1 / (SELECT count(*) FROM companies WHERE country = 'XX')",
        "SELECT ticker FROM companies WHERE name = 'none'",
        "SELECT ticker FROM companies LIMIT 0",
    ]
    answers = [await ask(gateway, shop, agent, query) for query in asked]
    assert [answer.status_code for answer in answers] == [422, 200, 200]
    assert [answer.headers["x-cost"] for answer in answers] == ["0.001"] * 3, "the price of one row"
    await settled(connection)
    assert await world.balance(agent) == DOLLAR - 3_000


async def test_parameters_are_typed_and_counted(gateway: RunningGateway, shop: Shop, agent: Agent) -> None:
    query = "SELECT $1::int + 1 AS n, $2::numeric AS d, $3::jsonb AS j"
    answer = await gateway.client.post(
        f"/publishers/{shop.slug}",
        content=b'{"query": "%s", "params": [41, 12345678901234567890.1234567890, {"a": [1.5, null]}]}'
        % query.encode(),
        headers={**agent.headers, "Content-Type": "application/json"},
    )
    assert b'{"n":42,"d":12345678901234567890.1234567890,"j":{"a": [1.5, null]}}' in answer.content
    for params in ([], [1, 2], ["x", 2, 3], [[1], 2, 3]):
        refused = await ask(gateway, shop, agent, query, params)
        assert refused.status_code in (400, 422), refused.text
        assert refused.headers["x-cost"] in ("0", "0.001")


BODIES = {
    b"": 400,
    b"[]": 400,
    b'{"query": 1}': 400,
    b'{"query": "SELECT 1", "query": "SELECT 2"}': 400,
    b'{"query": "SELECT 1", "params": {}}': 400,
    b'{"query": "SELECT 1", "param": []}': 400,
    b'{"query": "SELECT 1", "params": [NaN]}': 400,
    b'{"query": "SELECT \xff"}': 400,
    b'{"query": "SELECT 1", "database": "other"}': 400,
    b'{"query": "SELECT 1", "params": [' + b"[" * 30_000 + b"]" * 30_000 + b"]}": 400,
    b'{"query": "' + b" " * 70_000 + b'"}': 413,
}


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body[:40].decode("latin-1"))
async def test_a_body_is_read_strictly(gateway: RunningGateway, shop: Shop, agent: Agent, body: bytes) -> None:
    headers = {**agent.headers, "Content-Type": "application/json"}
    answer = await gateway.client.post(f"/publishers/{shop.slug}", content=body, headers=headers)
    assert answer.status_code == BODIES[body], answer.text


async def test_queries_go_to_the_root_by_post(gateway: RunningGateway, shop: Shop, agent: Agent) -> None:
    path, body = f"/publishers/{shop.slug}", {"query": "SELECT 1"}
    assert (await gateway.client.put(path, json=body, headers=agent.headers)).status_code == 405
    assert (await gateway.client.post(f"{path}/x", json=body, headers=agent.headers)).status_code == 404
    assert (await gateway.client.post(path, data=body, headers=agent.headers)).status_code == 415


async def test_a_long_answer_is_streamed_with_its_cost_at_the_end(
    gateway: RunningGateway, world: World, shop: Shop, agent: Agent, connection: Connection
) -> None:
    query = "SELECT company_id, day, close, volume, open FROM prices"
    answer = await ask(gateway, shop, agent, query)
    document = answer.json()
    assert (document["row_count"], len(document["rows"]), document["truncated"]) == (10_000, 10_000, "rows")
    assert "x-cost" not in answer.headers
    assert float(answer.headers["x-cost-max"]) >= float(document["cost"]) >= 10
    await settled(connection)
    assert await world.balance(agent) == 100 * DOLLAR - document["cost_atomic"]
    lines = (await ask(gateway, shop, agent, query, Accept="application/x-ndjson")).text.splitlines()
    assert [json.loads(line) for line in lines[:-1]] == document["rows"]
    assert json.loads(lines[-1])["$summary"]["cost"] == document["cost"]


async def test_rows_come_as_csv_and_lines(gateway: RunningGateway, shop: Shop, agent: Agent) -> None:
    query = "SELECT 1.50 AS a, 'x,\"y\"' AS b, NULL::text AS c, '' AS d, ARRAY[1, 2] AS e, true AS f"
    answer = await ask(gateway, shop, agent, query, Accept="text/csv")
    assert answer.text == 'a,b,c,d,e,f\r\n1.50,"x,""y""",,"","[1,2]",true\r\n'
    assert (answer.headers["x-cost"], answer.headers["x-row-count"]) == ("0.001", "1")
    empty = await ask(gateway, shop, agent, "SELECT ticker, name FROM companies WHERE false", Accept="text/csv")
    assert empty.text == "ticker,name\r\n"
    lines = (await ask(gateway, shop, agent, query, Accept="application/jsonl")).text.splitlines()
    assert json.loads(lines[0]) == {"a": 1.5, "b": 'x,"y"', "c": None, "d": "", "e": [1, 2], "f": True}
    assert json.loads(lines[1])["$summary"]["row_count"] == 1


async def test_rows_come_as_an_arrow_stream(gateway: RunningGateway, shop: Shop, agent: Agent) -> None:
    kind = "application/vnd.apache.arrow.stream"
    query = "SELECT company_id, day, close FROM prices ORDER BY company_id, day LIMIT 3000"
    answer = await ask(gateway, shop, agent, query, Accept=f"{kind}, application/json;q=0.5")
    assert (answer.headers["content-type"], answer.headers["x-row-count"]) == (kind, "3000")
    table = na.ArrayStream(ipc.InputStream.from_readable(io.BytesIO(answer.content))).read_all()
    assert [field.name for field in table.schema.fields] == ["company_id", "day", "close"]
    assert [field.type.name for field in table.schema.fields] == ["INT32", "DATE32", "STRING"]
    assert len(table) == 3_000
    document = (await ask(gateway, shop, agent, query)).json()
    assert [row["company_id"] for row in document["rows"]] == na.Array(table).child(0).to_pylist()


@pytest.mark.parametrize(
    ("query", "columns"),
    [
        ("SELECT * FROM ROWS FROM (generate_series(1, 2), unnest(ARRAY['x'])) AS t (n, w)", [[1, 2], ["x", None]]),
        ("""SELECT json ' {"a": 1}' AS j, 1 AS n""", [['{"a": 1}'], [1]]),
        ("SELECT 0x1F AS a, 'b' AS b LIMIT 1", [[31], ["b"]]),
    ],
)
async def test_any_form_of_query_comes_as_an_arrow_stream(
    gateway: RunningGateway, shop: Shop, agent: Agent, query: str, columns: list[list[Any]]
) -> None:
    answer = await ask(gateway, shop, agent, query, Accept="application/vnd.apache.arrow.stream")
    assert answer.status_code == 200, answer.text
    table = na.Array(na.ArrayStream(ipc.InputStream.from_readable(io.BytesIO(answer.content))).read_all())
    assert [table.child(place).to_pylist() for place in range(table.n_children)] == columns


async def test_no_key_and_no_funds_are_told_the_price(gateway: RunningGateway, world: World, shop: Shop) -> None:
    body = {"query": "SELECT ticker FROM companies LIMIT 500"}
    answer = await gateway.client.post(f"/publishers/{shop.slug}", json=body)
    assert (answer.status_code, answer.json()["accepts"][0]["extra"]["requiredAmount"]) == (402, "0.5")
    poor = await world.agent(10_000)
    answer = await ask(gateway, shop, poor, body["query"])
    extra = answer.json()["accepts"][0]["extra"]
    assert (answer.status_code, extra["requiredAmount"], extra["availableBalance"]) == (402, "0.5", "0.01")
    assert await world.balance(poor) == 10_000


async def test_a_balance_below_the_most_is_spent_and_no_more(
    gateway: RunningGateway, world: World, shop: Shop, connection: Connection
) -> None:
    agent = await world.agent(120_000)
    answer = (await ask(gateway, shop, agent, "SELECT company_id FROM companies WHERE company_id < 100")).json()
    assert (answer["row_count"], answer["cost"], answer["truncated"]) == (99, "0.099", None)
    underestimated = "SELECT company_id FROM companies WHERE abs(company_id) = company_id"
    answer = (await ask(gateway, shop, agent, underestimated)).json()
    assert (answer["row_count"], answer["cost"], answer["truncated"]) == (21, "0.021", "budget")
    await settled(connection)
    assert await world.balance(agent) == 0


async def test_funds_for_seven_queries_buy_exactly_seven(
    gateway: RunningGateway, world: World, market: Market, connection: Connection
) -> None:
    prices = {"min_charge": "0.01", "max_charge": "0.01"}
    shop = await sell(gateway.client, await world.agent(), market.config(sample=False), pricing=prices)
    agent = await world.agent(70_000)
    await asyncio.sleep(0.3)
    answers = await asyncio.gather(*(ask(gateway, shop, agent, "SELECT count(*) FROM prices") for _ in range(50)))
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses[200] == 7
    assert set(statuses) <= {200, 402, 503}
    await settled(connection)
    assert await world.balance(agent) == 0


async def test_a_key_buys_one_answer(
    gateway: RunningGateway, world: World, shop: Shop, agent: Agent, connection: Connection
) -> None:
    key = {"Idempotency-Key": f"k-{agent.id}"}
    query = "SELECT ticker FROM companies WHERE company_id <= 3"
    first = await ask(gateway, shop, agent, query, **key)
    again = await ask(gateway, shop, agent, query, **key)
    assert (again.content, again.headers["idempotency-replayed"], again.headers["x-cost"]) == (
        first.content, "true", "0",
    )  # fmt: skip
    assert (await ask(gateway, shop, agent, "SELECT 1", **key)).status_code == 422
    failing = {"Idempotency-Key": f"f-{agent.id}"}
    broken = [await ask(gateway, shop, agent, "SELECT 1 / (company_id - 5) FROM companies", **failing) for _ in "ab"]
    assert [answer.json()["sqlstate"] for answer in broken] == ["22012", "22012"]
    assert [answer.headers["x-cost"] for answer in broken] == ["0.001", "0"]
    await settled(connection)
    assert await world.balance(agent) == 100 * DOLLAR - 3_000 - 1_000
    receipt = await gateway.client.get(f"/receipts/{first.headers['x-request-id']}", headers=agent.headers)
    assert receipt.status_code == 200, receipt.text
    claims = json.loads(base64.urlsafe_b64decode(str(receipt.json()["data"]["receipt"]).split(".")[1] + "=="))
    assert claims["price"]["charged"] == "0.003"
    assert claims["delivered"]["body_sha256"] == hashlib.sha256(first.content).hexdigest()


async def test_an_estimate_is_free_and_rounded(gateway: RunningGateway, world: World, shop: Shop, agent: Agent) -> None:
    async def estimate(query: str, **more: Any) -> httpx.Response:
        body = {"publisher_id": str(shop.id), "query": query, **more}
        return await gateway.client.post(f"/publishers/{shop.slug}/estimate", json=body)

    for query, rows, cost in (
        ("SELECT ticker FROM companies", 2_000, "2.00"),
        ("SELECT ticker FROM companies LIMIT 3", 3, "0.003"),
        ("SELECT count(*) FROM companies", 1, "0.001"),
        ("SELECT ticker FROM companies WHERE name = 'none'", 10, "0.01"),
    ):
        answer = await estimate(query)
        assert answer.status_code == 200, answer.text
        assert (answer.json()["estimated_rows"], answer.json()["estimated_cost"]) == (rows, cost), query
    assert (await estimate("SELECT * FROM internal_costs")).status_code == 400
    assert (await estimate("SELECT 1", publisher_id=str(agent.id))).status_code == 400
    assert (await estimate("SELECT $1::int", params=[1])).status_code == 200


async def test_the_store_shows_what_is_on_sale(gateway: RunningGateway, world: World, market: Market) -> None:
    async with narrow_role(market) as config:
        shop = await sell(gateway.client, await world.agent(), config)
    shown = (await gateway.client.get(f"/publishers/{shop.slug}")).json()["data"]
    assert shown["database_config"] is None
    assert market.address.password not in json.dumps(shown)
    tables = {table["name"]: table for table in shown["database_schema"]["tables"]}
    assert set(tables) == {"companies", "sectors"}
    assert tables["companies"]["columns"] == [{"name": "name", "type": "text", "nullable": False}]
    assert tables["sectors"]["rows"] == 16
    assert len(tables["sectors"]["sample"]) == 3


async def test_a_role_that_may_do_too_much_is_refused_with_the_fixes(
    gateway: RunningGateway, world: World, market: Market
) -> None:
    async with narrow_role(market, "GRANT INSERT ON demo.sectors TO narrow") as config:
        answer = await create_publisher(gateway.client, await world.agent(), config | {"columns": ["sectors.name"]})
    errors = answer.json()["errors"]
    assert answer.status_code == 400
    assert {"message": "The role has INSERT on demo.sectors.", "field": "database_config"}.items() <= errors[0].items()
    assert errors[0]["fix"] == 'REVOKE INSERT ON demo.sectors FROM "narrow", PUBLIC;'
    assert any("columns of demo.sectors that are not on sale" in error["message"] for error in errors)


CONFIGS = {
    "postgresql://u:SECRET@127.0.0.1:1/x": "cannot be reached",
    "postgresql://u:SECRET@192.168.1.1/x": "is refused",
    "postgresql://u:SECRET@127.0.0.1/x?host=/tmp": "only sslmode is accepted",
    "mysql://u:SECRET@127.0.0.1/x": "must look like",
    "postgresql://u@127.0.0.1/x": "must name a user, a password",
}


@pytest.mark.parametrize("text", CONFIGS)
async def test_a_database_that_cannot_be_used_is_told_without_its_password(
    gateway: RunningGateway, world: World, text: str
) -> None:
    config = {"connection_string": text, "tls": "disable" if "127.0.0.1" in text else "require"}
    answer = await create_publisher(gateway.client, await world.agent(), config)
    assert answer.status_code == 400, answer.text
    assert CONFIGS[text] in answer.text
    assert "SECRET" not in answer.text
