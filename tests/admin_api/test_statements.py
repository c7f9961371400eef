"""Statements over the API: both formats say the same, nothing in them is a formula, and they are nobody else's."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from starlette.types import ASGIApp, Message

from admin_api.app import build
from admin_api.resources.statements import MOST_AT_ONCE
from gateway.billing import credits
from gateway.database.pool import Connection
from gateway.ledger.wallets import grant, open_wallet
from gateway.settings import ProxySettings
from tests.admin_api.conftest import Api, Clerk, Member, close_api, open_api, settings_for
from tests.admin_api.test_analytics import Shop, ago
from tests.support.world import ETHER, SEPOLIA_USDC, USDC, Agent, World

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
              "from=2020-01-01&to=2026-01-01", "from=9999-12-31&to=9999-12-31", f"asset_id={UUID(int=7)}"]
)  # fmt: skip
async def test_bad_windows_are_refused(api: Api, clerk: Clerk, query: str) -> None:
    member = await clerk.agent()
    await api.call("GET", f"/wallet/statement?{query}", member.key, expect=400)


async def test_what_others_wrote_is_never_a_formula(api: Api, clerk: Clerk, connection: Connection) -> None:
    member = await clerk.agent()
    wallet = await credits.wallet_of(connection, member.id, USDC)
    texts = [f"{sign}1+1" for sign in ("=", "+", "-", "@", "\t=", "\r=", "\n=", "\uff1d", "\uff0b", "\uff0d", "\uff20")]
    for text in [*texts, "1=1"]:
        await grant(connection, wallet.id, source="promo", reference=text, amount=1, description=text)
    answer = await api.call("GET", "/wallet/statement?format=csv", member.key, expect=200)
    seen = [row["description"] for row in csv.DictReader(io.StringIO(answer.text, newline=""))][1:-1]
    assert seen == [*(f"'{text}" for text in texts), "1=1"]


async def test_money_in_another_asset_has_a_statement_of_its_own(
    api: Api, clerk: Clerk, connection: Connection
) -> None:
    owner, member = await clerk.agent(), await clerk.agent()
    shop = Shop(api, connection, owner, await clerk.publisher(owner))
    wallet = await open_wallet(connection, member.id, ETHER, f"agent:{member.id}/ether")
    ether = Agent(member.id, member.organization_id, member.key, wallet.id)
    await grant(connection, wallet.id, source="promo", reference="t", amount=50 * 10**18)
    await shop.call(await customer(connection, member, 1_000), 0, 300)
    await shop.call(ether, 0, 40 * 10**18, fee=10**18, asset=ETHER)
    lines = await statement(api, f"/wallet/statement?asset_id={ETHER}", member.key)
    assert [(line["kind"], line["amount_atomic"], line["balance"]) for line in lines] == [
        ("opening", None, "0.00"), ("grant", 50 * 10**18, "50.00"), ("charge", -40 * 10**18, "10.00"),
        ("closing", None, "10.00"),
    ]  # fmt: skip
    theirs = await statement(api, f"{shop.path}/statement?asset_id={ETHER}", owner.key)
    assert [line["balance_atomic"] for line in theirs] == [0, 39 * 10**18, 39 * 10**18]
    for query in ("", f"?asset_id={USDC}", f"?asset_id={SEPOLIA_USDC}"):  # one peg is one wallet
        assert (await statement(api, f"/wallet/statement{query}", member.key))[-1]["balance_atomic"] == 700
        assert (await statement(api, f"{shop.path}/statement{query}", owner.key))[-1]["balance_atomic"] == 300
    assert [line["balance"] for line in await statement(api, f"/wallet/statement?asset_id={ETHER}", owner.key)] == [
        "0.00", "0.00"
    ]  # fmt: skip


async def test_what_a_deleted_publisher_has_earned_is_still_told(
    api: Api, clerk: Clerk, connection: Connection
) -> None:
    owner, member = await clerk.agent(), await clerk.agent()
    shop = Shop(api, connection, owner, await clerk.publisher(owner))
    await shop.call(await customer(connection, member, 1_000), 0, 300)
    paths = [f"{shop.path}/{name}" for name in ("statement", "statement?format=csv", "analytics/revenue")]
    before = [(await api.call("GET", path, owner.key, expect=200)).text for path in paths]
    await api.call("DELETE", shop.path, owner.key, expect=200)
    assert [(await api.call("GET", path, owner.key, expect=200)).text for path in paths] == before


async def test_who_takes_nothing_is_cut_off_and_holds_no_connection(
    database_url: str, clerk: Clerk, connection: Connection
) -> None:
    """Four callers who never read would else keep everybody else's statements away, for as long as they like."""
    member = await clerk.agent()
    await customer(connection, member, 5)
    impatient = ProxySettings(client_timeout=0.2)
    slow, services = await open_api(settings_for(database_url, proxy=impatient))
    try:
        application = build(services)
        for _ in range(MOST_AT_ONCE + 1):
            assert await stalled(application, "/wallet/statement", member.key) == 200
        answer = await slow.call("GET", "/wallet/statement", member.key, expect=200)
        assert "closing" in answer.text
    finally:
        await close_api(slow)
    open_ones = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in trans%'"
    )
    async with asyncio.timeout(30):
        while await connection.fetchval(open_ones):
            await asyncio.sleep(0.05)


async def stalled(application: ASGIApp, path: str, key: str) -> int:
    """Ask for a file over ASGI, take its head and never its body; return the status when the gateway has given up."""
    status = asyncio.get_running_loop().create_future()
    left: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        if not left:
            await asyncio.Event().wait()
        return left.pop()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            status.set_result(message["status"])
        else:
            await asyncio.Event().wait()

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": [(b"host", b"tollway.test"), (b"authorization", f"Bearer {key}".encode())],
        "client": ("203.0.113.7", 0), "server": ("tollway.test", 80),
    }  # fmt: skip
    async with asyncio.timeout(30):
        await application(scope, receive, send)
    return await status


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
    assert empty["gateway"] == {"calls": 0, "spend": [], "by_publisher": [], "by_endpoint": [], "by_day": []}
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
    for days in ("start_date=x", "start_date=2026-02-01&end_date=2026-01-01", "start_date=9999-12-31"):
        await api.call("GET", f"/billing/usage/{member.organization_id}?{days}", member.key, expect=400)
    await api.call("GET", path, owner.key, expect=403)
