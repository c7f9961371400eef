"""What the gateway says itself on a publisher call (402, problems, repeated answers), on every server."""

from __future__ import annotations

import json
from email.utils import parsedate_to_datetime

import pytest

from gateway.database.pool import Connection
from pricing.money import MAX_ATOMIC
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.upstream import RecordingUpstream
from tests.support.world import ETHER, Agent, World


async def ask(gateway: RunningGateway, path: str, agent: Agent | None, **headers: str) -> tuple[int, dict, dict]:
    """Return status, fields and body of a call of ours."""
    answer = await gateway.client.get(path, headers={**(agent.headers if agent else {}), **headers})
    return answer.status_code, dict(answer.headers), answer.json()


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("price", [25 * 10**18, MAX_ATOMIC])
async def test_a_402_is_exact_where_an_amount_has_more_than_64_bits(
    wired: RunningGateway, world: World, upstream: RecordingUpstream, price: int, known: bool
) -> None:
    agent, shop = await world.agent(), await world.publisher(price, asset=ETHER)
    status, _, body = await ask(wired, f"/publishers/{shop.slug}/x", agent if known else None)
    assert status == 402
    (offer,) = body["accepts"]
    assert (offer["amount"], offer["extra"]["deficitAtomic"]) == (str(price), price)
    assert upstream.calls == 0


async def test_a_repeated_answer_says_when_it_was_repeated(wired: RunningGateway, world: World) -> None:
    agent, shop = await world.agent(1_000_000), await world.publisher(10_000)
    path, key = f"/publishers/{shop.slug}/x", {**agent.headers, "Idempotency-Key": "once"}
    first = await wired.client.get(path, headers=key)
    again = await wired.client.get(path, headers=key)
    assert again.headers["idempotency-replayed"] == "true"
    (date,) = again.headers.get_list("date")
    assert parsedate_to_datetime(date) >= parsedate_to_datetime(first.headers["date"])


async def test_a_fault_of_ours_is_logged_under_the_id_that_the_caller_reads(
    services: Services, database_url: str, world: World
) -> None:
    agent, shop = await world.agent(1_000_000), await world.publisher(10_000)
    failing = await start_gateway(services, database_url, FAULT="authorize.after:error")
    try:
        status, fields, body = await ask(failing, f"/publishers/{shop.slug}/x", agent)
    finally:
        await failing.stop()
    assert (status, body["type"], body["instance"]) == (500, "/problems/internal-error", fields["x-request-id"])
    (line,) = [json.loads(line) for line in failing.output().splitlines() if '"exception"' in line]
    assert line["request_id"] == fields["x-request-id"]
    assert await world.balance(agent) == 1_000_000


async def test_a_publishers_own_limit_is_its_own_and_holds_without_a_key(
    gateway: RunningGateway, world: World, connection: Connection
) -> None:
    shops = [await world.publisher(None, max_queries_per_minute=1) for _ in range(2)]
    for number, shop in enumerate(shops):  # two slugs as long as they may be that differ at their end only
        shop.slug = f"{'long-' * 12}xyz{number}"
        await connection.execute("UPDATE catalog.publisher SET slug = $2 WHERE id = $1", shop.id, shop.slug)
    await world.told()
    agent = await world.agent()
    for headers in (agent.headers, {}):
        paths = [f"/publishers/{shop.slug}/x" for shop in (*shops, *shops)]
        answers = [await gateway.client.get(path, headers=headers) for path in paths]
        assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
        assert answers[2].headers["ratelimit-policy"] != answers[3].headers["ratelimit-policy"]


async def test_refusals_say_once_where_the_limit_stands(wired: RunningGateway, world: World) -> None:
    poor, rich = await world.agent(), await world.agent(1_000_000)
    dear, limited = await world.publisher(10_000), await world.publisher(None, max_queries_per_minute=1)
    away = await world.publisher(10_000, api_url="http://127.0.0.1:1")
    await wired.client.get(f"/publishers/{limited.slug}/x", headers=rich.headers)
    for agent, shop, status in ((poor, dear, 402), (rich, away, 502), (rich, limited, 429)):
        answer = await wired.client.get(f"/publishers/{shop.slug}/x", headers=agent.headers)
        assert answer.status_code == status
        assert len(answer.headers.get_list("ratelimit")) == len(answer.headers.get_list("ratelimit-policy")) == 1
