"""Statements over the API: both formats say the same, nothing in them is a formula, and they are nobody else's."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.billing import credits
from gateway.database.pool import Connection
from gateway.ledger.wallets import grant
from tests.admin_api.conftest import Api, Clerk, Member
from tests.admin_api.test_analytics import Shop, ago
from tests.support.world import USDC, Agent, World

FORMULA = '=HYPERLINK("http://x")'


async def statement(api: Api, path: str, key: str) -> list[dict[str, Any]]:
    """Return the lines, the same from both formats."""
    mark = "&" if "?" in path else "?"
    lines = [json.loads(line) for line in (await api.call("GET", path, key, expect=200)).text.splitlines()]
    answer = await api.call("GET", f"{path}{mark}format=csv", key, expect=200)
    assert answer.headers["content-type"].startswith("text/csv")
    table = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(row["balance"], row["amount_atomic"], row["kind"]) for row in table] == [
        (line["balance"], str(line["amount_atomic"] or ""), line["kind"]) for line in lines
    ]
    return lines


async def customer(connection: Connection, member: Member, amount: int) -> Agent:
    wallet = await credits.wallet_of(connection, member.id, USDC)
    await grant(connection, wallet.id, source="promo", reference="t", amount=amount, description=FORMULA)
    return Agent(member.id, member.organization_id, member.key, wallet.id)


async def test_both_sides_have_every_booking_with_the_balance_after_it(
    api: Api, clerk: Clerk, connection: Connection
) -> None:
    owner, member = await clerk.agent(), await clerk.agent()
    shop = Shop(api, connection, owner, await clerk.publisher(owner))
    agent = await customer(connection, member, 1_000_000)
    await shop.call(agent, 0, 300_000, fee=30_000)
    await shop.give_back(await shop.call(agent, 40, 200_000))
    lines = await statement(api, "/wallet/statement", member.key)
    assert [(line["kind"], line["amount"], line["balance"]) for line in lines] == [
        ("opening", None, "0.00"), ("grant", "1.00", "1.00"), ("charge", "-0.30", "0.70"),
        ("charge", "-0.20", "0.50"), ("refund", "0.20", "0.70"), ("closing", None, "0.70"),
    ]  # fmt: skip
    assert lines[1]["description"] == FORMULA
    assert {line["counterparty"] for line in lines[2:5]} == {lines[2]["counterparty"]}
    raw = (await api.call("GET", "/wallet/statement?format=csv", member.key, expect=200)).text
    assert "'=HYPERLINK" in raw
    assert ",=HYPERLINK" not in raw
    assert ',"=HYPERLINK' not in raw
    theirs = await statement(api, f"{shop.path}/statement", owner.key)
    assert [(line["kind"], line["amount_atomic"], line["balance_atomic"]) for line in theirs] == [
        ("opening", None, 0), ("charge", 270_000, 270_000), ("charge", 200_000, 470_000),
        ("refund", -200_000, 270_000), ("closing", None, 270_000),
    ]  # fmt: skip
    assert theirs[1]["counterparty"].startswith(f"agent:{member.id}")


async def test_a_window_of_other_days_opens_and_closes_with_the_same_balance(
    api: Api, clerk: Clerk, connection: Connection
) -> None:
    member = await clerk.agent()
    await customer(connection, member, 5)
    before = await statement(api, f"/wallet/statement?from={ago(9)}&to={ago(2)}", member.key)
    assert [line["balance_atomic"] for line in before] == [0, 0]
    assert [line["at"][:10] for line in before] == [ago(9), ago(1)]  # until the end of the last day
    later = f"{datetime.now(UTC).year + 1}-01-01"
    after = await statement(api, f"/wallet/statement?from={later}&to={later}", member.key)
    assert [line["balance_atomic"] for line in after] == [5, 5]


@pytest.mark.parametrize(
    "query", ["from=2026-13-01", "from=2026-1-1", "to=yesterday", "from=2026-02-01&to=2026-01-01", "format=pdf",
              "from=2020-01-01&to=2026-01-01"]
)  # fmt: skip
async def test_bad_windows_are_refused(api: Api, clerk: Clerk, query: str) -> None:
    member = await clerk.agent()
    await api.call("GET", f"/wallet/statement?{query}", member.key, expect=400)


async def test_a_statement_is_nobody_elses(api: Api, clerk: Clerk, connection: Connection) -> None:
    owner, other = await clerk.agent(), await clerk.agent()
    shop = Shop(api, connection, owner, await clerk.publisher(owner))
    await api.call("GET", "/wallet/statement", expect=401)
    await api.call("GET", f"{shop.path}/statement", other.key, expect=403)
    theirs = f"/organizations/{other.organization_id}/publishers/{shop.id}/statement"
    await api.call("GET", theirs, other.key, expect=404)


async def test_a_project_sees_what_was_used_of_its_publishers(
    api: Api, clerk: Clerk, connection: Connection, world: World
) -> None:
    owner = await clerk.agent()
    order = {"name": "Tides", "region": "local"}
    project = (await api.call("POST", "/projects", owner.key, json=order, expect=201)).json()["data"]["id"]
    mine = Shop(api, connection, owner, await clerk.publisher(owner, project_id=project))
    other = Shop(api, connection, owner, await clerk.publisher(owner))
    agent = await world.agent(1_000_000)
    await mine.call(agent, 0, 300, fee=7)
    await mine.call(agent, 1, 50)
    await mine.call(agent, 40, 1_000)
    await mine.give_back(await mine.call(agent, 0, 5_000))
    await other.call(agent, 0, 900)
    path = f"/projects/{project}/consumption"
    data = (await api.call("GET", f"{path}?start_date={ago(1)}", owner.key, expect=200)).json()["data"]
    spend = [{"asset_id": str(USDC), "symbol": "USDC", "spent": "0.00035", "spent_atomic": 350}]
    (only,) = data["gateway"]["by_publisher"]
    assert (data["project_id"], data["gateway"]["calls"], data["gateway"]["spend"]) == (project, 2, spend)
    assert (only["publisher_id"], only["calls"], only["spend"]) == (str(mine.id), 2, spend)
    assert (data["from"], data["to"][:10]) == (f"{ago(1)}T00:00:00.000000Z", ago(-1))
    assert set(data["current_month"].values()) == {0}
    empty = (await api.call("GET", f"{path}?start_date=2020-01-01&end_date=2020-02-01", owner.key)).json()["data"]
    assert empty["gateway"] == {"calls": 0, "spend": [], "by_publisher": []}
    assert [period["period_id"] for period in empty["periods"]] == ["2020-01", "2020-02"]
    for days in ("start_date=x", "start_date=2026-02-01&end_date=2026-01-01", "start_date=2020-01-01"):
        await api.call("GET", f"{path}?{days}", owner.key, expect=400)


async def test_an_organization_sees_what_its_wallets_used(
    api: Api, clerk: Clerk, connection: Connection, world: World
) -> None:
    owner, member = await clerk.agent(), await clerk.agent()
    shop = Shop(api, connection, owner, await clerk.publisher(owner))
    agent, stranger = await customer(connection, member, 1_000_000), await world.agent(1_000)
    today = datetime.now(UTC).date()
    await shop.call(agent, 0, 300, fee=7)
    await shop.call(agent, 1, 50)
    await shop.call(stranger, 0, 900)
    path = f"/organizations/{member.organization_id}/consumption?start_date={ago(1)}"
    data = (await api.call("GET", path, member.key, expect=200)).json()["data"]
    spend = {"asset_id": str(USDC), "symbol": "USDC", "spent": "0.00035", "spent_atomic": 350}
    assert data["gateway"]["spend"] == [spend]
    assert [(one["date"], one["calls"]) for one in data["gateway"]["by_day"]] == [(ago(1), 1), (ago(0), 1)]
    assert [(one["publisher_id"], one["calls"]) for one in data["gateway"]["by_publisher"]] == [(str(shop.id), 2)]
    assert (data["from"], data["to"][:10]) == (f"{ago(1)}T00:00:00.000000Z", ago(-1))
    assert data["current_month"]["compute_time_seconds"] == 0.0
    assert f"{today:%Y-%m}" in [period["period_id"] for period in data["periods"]]
    usage = (await api.call("GET", f"/billing/usage/{member.organization_id}", member.key, expect=200)).json()
    assert (usage["data"], usage["gateway"]["by_publisher"][0]["publisher_id"]) == ([], str(shop.id))
    made = {"name": "p", "organization_id": str(member.organization_id), "region": "local"}
    await api.call("POST", "/projects", member.key, json=made, expect=201)
    (row,) = (await api.call("GET", f"/billing/usage/{member.organization_id}", member.key, expect=200)).json()["data"]
    assert (row["project_name"], row["total_cost_usd"], row["period_end"]) == ("p", 0, ago(0))
    for days in ("start_date=x", "start_date=2026-02-01&end_date=2026-01-01"):
        await api.call("GET", f"/billing/usage/{member.organization_id}?{days}", member.key, expect=400)
    await api.call("GET", path, owner.key, expect=403)
