"""The paid call through the public door: what it costs, what it says, what reaches the upstream, what is booked."""

import asyncio
from collections import Counter

import httpx
import pytest

from gateway.database.pool import Connection
from gateway.ledger import proof
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.upstream import RecordingUpstream
from tests.support.world import ETHER, World

pytestmark = pytest.mark.usefixtures("sound_books")


async def settled(connection: Connection) -> None:
    """Wait until every exchange has its recorded end."""
    for _ in range(1200):
        report = await proof.verify(connection)
        if not report.open_exchanges:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{report.open_exchanges} exchanges stayed open")


async def call_together(client: httpx.AsyncClient, path: str, headers: dict[str, str], times: int) -> Counter[int]:
    answers = await asyncio.gather(*(client.get(path, headers=headers) for _ in range(times)))
    return Counter(answer.status_code for answer in answers)


async def test_a_call_is_paid_forwarded_and_booked(
    gateway: RunningGateway, world: World, upstream: RecordingUpstream, connection: Connection
) -> None:
    agent, shop = await world.agent(1_000_000), await world.publisher(10_000, gateway_fee_percent="2.5")
    upstream.forget()
    answer = await gateway.client.get(f"/publishers/{shop.slug}/v1/search?q=a+b&&x", headers=agent.headers)
    assert answer.status_code == 200
    assert answer.json() == {"target": "/v1/search?q=a+b&&x", "ok": True}
    assert answer.headers["x-cost"] == "0.01"
    assert answer.headers["x-cost-asset"] == "USDC"
    assert answer.headers["x-balance"] == "0.99"
    assert answer.headers["x-cost-drawn"] == "promotional=0.01"
    assert answer.headers["x-request-id"]
    assert "ratelimit" in answer.headers
    await settled(connection)
    assert (await world.balance(agent), await world.earned(shop)) == (990_000, 9_750)
    assert upstream.calls == 1


async def test_funds_for_37_calls_buy_exactly_37(
    gateway: RunningGateway, world: World, upstream: RecordingUpstream, connection: Connection
) -> None:
    agent, shop = await world.agent(37 * 10_000), await world.publisher(10_000)
    upstream.forget()
    assert await call_together(gateway.client, f"/publishers/{shop.slug}/quote", agent.headers, 200) == {
        200: 37,
        402: 163,
    }
    assert (await world.balance(agent), upstream.calls) == (0, 37)
    await settled(connection)
    assert await world.earned(shop) == 37 * 10_000


async def test_funds_for_37_calls_buy_exactly_37_from_several_workers_and_agents(
    services: Services, database_url: str, world: World, upstream: RecordingUpstream, connection: Connection
) -> None:
    running = await start_gateway(services, database_url, WORKERS="2")
    try:
        agents = [await world.agent(37 * 100) for _ in range(3)]
        shop = await world.publisher(100)
        upstream.forget()
        counts = await asyncio.gather(
            *(call_together(running.client, f"/publishers/{shop.slug}/q", agent.headers, 100) for agent in agents)
        )
        assert counts == [{200: 37, 402: 63}] * 3
        assert upstream.calls == 111
        await settled(connection)
        assert await world.earned(shop) == 11_100
        text = (await running.client.get("/metrics")).text
        line = next(row for row in text.splitlines() if f'publisher="{shop.slug}"' in row and "revenue" in row)
        assert line.endswith(" 11100.0"), "the workers' numbers add up"
    finally:
        await running.stop()


async def test_without_funds_the_402_says_what_is_missing_and_the_upstream_is_not_touched(
    gateway: RunningGateway, world: World, upstream: RecordingUpstream
) -> None:
    agent, shop = await world.agent(4_000), await world.publisher(10_000)
    upstream.forget()
    answer = await gateway.client.post(f"/publishers/{shop.slug}/x", headers=agent.headers, content=b"{}")
    body = answer.json()
    assert answer.status_code == 402
    assert body["x402Version"] == 2
    offer = body["accepts"][0]
    assert (offer["scheme"], offer["amount"]) == ("prepaid", "10000")
    extra = offer["extra"]
    assert (extra["requiredAmount"], extra["availableBalance"], extra["deficit"]) == ("0.01", "0.004", "0.006")
    assert extra["topUp"] == {
        "balanceEndpoint": f"{gateway.url}/wallet/balance", "depositEndpoint": f"{gateway.url}/wallet/deposit"
    }  # fmt: skip
    assert body["availableBalanceAtomic"] == 4_000
    assert body["seren"]["publisher_id"] == str(shop.id)
    assert answer.headers["cache-control"] == "no-store"
    assert (upstream.calls, await world.balance(agent)) == (0, 4_000)


async def test_balance_of_one_and_a_half_prices_serves_one_of_two(gateway: RunningGateway, world: World) -> None:
    agent, shop = await world.agent(15_000), await world.publisher(10_000)
    assert await call_together(gateway.client, f"/publishers/{shop.slug}/x", agent.headers, 2) == {200: 1, 402: 1}
    assert await world.balance(agent) == 5_000


async def test_no_key_on_a_priced_call_is_402_and_on_a_free_one_served(gateway: RunningGateway, world: World) -> None:
    priced, free = await world.publisher(10_000), await world.publisher(None)
    assert (await gateway.client.get(f"/publishers/{priced.slug}/x")).status_code == 402
    answer = await gateway.client.get(f"/publishers/{free.slug}/x")
    assert (answer.status_code, answer.headers["x-cost"]) == (200, "0")


@pytest.mark.parametrize("key", ["x", "seren_x", "seren_0123456789abcdef_" + "a" * 43, "seren_0123456789abcdef_short"])
async def test_a_bad_key_is_401_and_costs_nothing(
    gateway: RunningGateway, world: World, upstream: RecordingUpstream, key: str
) -> None:
    shop = await world.publisher(10_000)
    upstream.forget()
    answer = await gateway.client.get(f"/publishers/{shop.slug}/x", headers={"Authorization": f"Bearer {key}"})
    assert (answer.status_code, answer.json()["type"]) == (401, "/problems/unauthenticated")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert upstream.calls == 0


async def test_unknown_slugs_are_404_and_one_metric_series(gateway: RunningGateway) -> None:
    for number in range(50):
        answer = await gateway.client.get(f"/publishers/nobody-{number}/x")
        assert (answer.status_code, answer.json()["type"]) == (404, "/problems/unknown-publisher")
    text = (await gateway.client.get("/metrics")).text
    series = [row for row in text.splitlines() if row.startswith("tollway_requests_total") and '="unknown"' in row]
    assert len(series) == 1
    assert "nobody-" not in text


async def test_prices_by_endpoint_method_and_call(gateway: RunningGateway, world: World) -> None:
    agent = await world.agent(10**9)
    shop = await world.publisher(
        10_000,
        price_per_post=20_000,
        endpoints=[
            {"method": "GET", "path": "/v1/items/{id}", "price": "0.5"},
            {"method": "GET", "path": "/free", "price": "0"},
        ],
    )

    async def cost(method: str, path: str) -> str:
        answer = await gateway.client.request(method, f"/publishers/{shop.slug}{path}", headers=agent.headers)
        assert answer.status_code == 200, answer.text
        return answer.headers["x-cost"]

    assert await cost("GET", "/other") == "0.01"
    assert await cost("POST", "/other") == "0.02"
    assert await cost("PUT", "/other") == "0.01"
    assert await cost("GET", "/v1/items/7") == "0.5"
    assert await cost("HEAD", "/v1/items/7") == "0.5"
    assert await cost("GET", "/V1/ITEMS/7") == "0.5"
    assert await cost("GET", "/v1%2Fitems%2F7") == "0.5"
    assert await cost("GET", "/free") == "0"


async def test_documented_endpoints_only_under_default_deny(
    gateway: RunningGateway, world: World, upstream: RecordingUpstream
) -> None:
    agent = await world.agent(10**9)
    shop = await world.publisher(
        undocumented_endpoint_policy="default_deny",
        endpoints=[
            {"method": "GET", "path": "/open"},
            {"method": "GET", "path": "/admin", "is_protected": True, "protection_reason": "Owner only."},
        ],
    )
    upstream.forget()
    get = gateway.client.get
    assert (await get(f"/publishers/{shop.slug}/open", headers=agent.headers)).status_code == 200
    refused = await get(f"/publishers/{shop.slug}/other", headers=agent.headers)
    assert (refused.status_code, refused.json()["type"]) == (404, "/problems/endpoint-not-offered")
    for spelling in ("/admin", "/ADMIN", "/%61dmin", "/admin/", "//admin"):
        protected = await get(f"/publishers/{shop.slug}{spelling}", headers=agent.headers)
        assert (protected.status_code, protected.json()["detail"]) == (403, "Owner only.")
    assert upstream.calls == 1


@pytest.mark.parametrize(
    ("path", "status"),
    [("/status/500", 500), ("/status/503", 503), ("/reset", 502), ("/status/404", 404), ("/status/204", 204)],
)
async def test_failed_calls_cost_nothing_and_delivered_ones_do(
    gateway: RunningGateway, world: World, connection: Connection, path: str, status: int
) -> None:
    agent, shop = await world.agent(1_000_000), await world.publisher(10_000)
    answer = await gateway.client.get(f"/publishers/{shop.slug}{path}", headers=agent.headers)
    assert answer.status_code == status
    charged = status < 500
    assert answer.headers["x-cost"] == ("0.01" if charged else "0")
    await settled(connection)
    assert await world.balance(agent) == (990_000 if charged else 1_000_000)
    assert await world.earned(shop) == (10_000 if charged else 0)


async def test_an_upstream_that_is_not_there_costs_nothing(gateway: RunningGateway, world: World) -> None:
    agent, shop = await world.agent(1_000_000), await world.publisher(10_000, api_url="http://127.0.0.1:1")
    answer = await gateway.client.get(f"/publishers/{shop.slug}/x", headers=agent.headers)
    assert (answer.status_code, answer.json()["type"]) == (502, "/problems/upstream-unreachable")
    assert await world.balance(agent) == 1_000_000


async def test_a_private_upstream_outside_the_allowed_range_is_never_contacted(
    gateway: RunningGateway, world: World
) -> None:
    agent, shop = await world.agent(1_000_000), await world.publisher(10_000, api_url="http://169.254.169.254")
    answer = await gateway.client.get(f"/publishers/{shop.slug}/latest/meta-data", headers=agent.headers)
    assert answer.status_code == 502
    assert await world.balance(agent) == 1_000_000


async def test_an_answer_that_breaks_off_is_a_broken_body_and_refunded(
    gateway: RunningGateway, world: World, connection: Connection
) -> None:
    agent, shop = await world.agent(1_000_000), await world.publisher(10_000)
    with pytest.raises(httpx.RemoteProtocolError):
        await gateway.client.get(f"/publishers/{shop.slug}/cut", headers=agent.headers)
    await settled(connection)
    assert await world.balance(agent) == 1_000_000


async def test_events_arrive_as_they_are_produced(
    gateway: RunningGateway, world: World, connection: Connection, upstream: RecordingUpstream
) -> None:
    agent, shop = await world.agent(1_000_000), await world.publisher(10_000)
    upstream.released.clear()
    path = f"/publishers/{shop.slug}/chunks?n=4&pause=0&held=1"
    async with gateway.client.stream("GET", path, headers=agent.headers) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        arriving = answer.aiter_bytes()
        first = await anext(arriving)
        assert first == b"data: 0\n\n", "it is here, and the others are not made yet"
        upstream.released.set()
        rest = b"".join([piece async for piece in arriving])
    assert rest == b"".join(f"data: {index}\n\n".encode() for index in range(1, 4))
    await settled(connection)
    assert await world.earned(shop) == 10_000


async def test_a_client_that_leaves_a_stream_has_paid_and_the_upstream_is_let_go(
    gateway: RunningGateway, world: World, connection: Connection
) -> None:
    agent, shop = await world.agent(1_000_000), await world.publisher(10_000)
    path = f"/publishers/{shop.slug}/chunks?n=1000&pause=100"
    async with gateway.client.stream("GET", path, headers=agent.headers) as answer:
        async for _ in answer.aiter_bytes():
            break
    await settled(connection)
    reason = await connection.fetchval("SELECT reason FROM ledger.settlement ORDER BY ended_at DESC LIMIT 1")
    assert (reason, await world.earned(shop)) == ("client_gone", 10_000)


@pytest.mark.parametrize("size", [0, 5, 200_000, 5_000_000])
async def test_uploads_arrive_whole(
    gateway: RunningGateway, world: World, upstream: RecordingUpstream, size: int
) -> None:
    agent, shop = await world.agent(1_000_000), await world.publisher(10_000)
    upstream.forget()
    body = bytes(index % 251 for index in range(size))

    async def pieces():
        for start in range(0, size, 60_000):
            yield body[start : start + 60_000]

    for content in (body, pieces()):
        answer = await gateway.client.post(f"/publishers/{shop.slug}/x", headers=agent.headers, content=content)
        assert answer.status_code == 200
    assert [request.body_size for request in upstream.requests] == [size, size]
    assert len({request.body_digest for request in upstream.requests}) == 1


async def test_secrets_and_hop_by_hop_fields_never_reach_the_upstream(
    gateway: RunningGateway, world: World, upstream: RecordingUpstream
) -> None:
    agent = await world.agent(1_000_000)
    shop = await world.publisher(10_000, allowed_passthrough_headers=["*"], upstream_headers={"X-Version": "7"})
    upstream.forget()
    sent = {
        **agent.headers, "Cookie": "session=1", "TE": "trailers", "Keep-Alive": "300", "Proxy-Authorization": "Basic x",
        "Connection": "keep-alive, X-Listed", "X-Listed": "1", "PAYMENT-SIGNATURE": "p", "X-PAYMENT": "p",
        "X-HTTP-Method-Override": "DELETE", "X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "gopher",
        "X-Version": "evil", "X-Custom": "kept", "Accept-Encoding": "br",
    }  # fmt: skip
    await gateway.client.get(f"/publishers/{shop.slug}/x", headers=sent)
    (request,) = upstream.requests
    assert agent.key not in request.head.decode("latin-1")
    names = {name for name, _ in request.headers}
    assert not names & {
        "authorization", "cookie", "te", "keep-alive", "proxy-authorization", "x-listed", "payment-signature", "x-payment",
        "x-http-method-override",
    }  # fmt: skip
    assert request.all("x-version") == ["7"]
    assert request.all("x-custom") == ["kept"]
    assert request.all("accept-encoding") == ["br"]
    assert request.all("x-forwarded-for") == ["127.0.0.1"]
    assert request.all("x-forwarded-proto") == ["http"]
    assert request.all("via") == ["1.1 tollway"]
    assert request.all("host") == [f"127.0.0.1:{upstream.port}"]


async def test_only_allowed_fields_go_on_by_default(
    gateway: RunningGateway, world: World, upstream: RecordingUpstream
) -> None:
    agent, shop = await world.agent(1_000_000), await world.publisher(allowed_passthrough_headers=["X-Allowed"])
    upstream.forget()
    await gateway.client.get(f"/publishers/{shop.slug}/x", headers={**agent.headers, "X-Allowed": "1", "X-Other": "2"})
    (request,) = upstream.requests
    assert (request.all("x-allowed"), request.all("x-other")) == (["1"], [])


async def test_an_upstream_cannot_claim_a_cost(
    gateway: RunningGateway, world: World, upstream: RecordingUpstream
) -> None:
    agent, shop = await world.agent(1_000_000), await world.publisher(10_000)
    upstream.extra_headers = [("X-Cost", "9999"), ("X-Balance", "0"), ("X-Dup", "1"), ("X-Dup", "2")]
    try:
        answer = await gateway.client.get(f"/publishers/{shop.slug}/x", headers=agent.headers)
    finally:
        upstream.extra_headers = []
    assert answer.headers.get_list("x-cost") == ["0.01"]
    assert answer.headers.get_list("x-balance") == ["0.99"]
    assert answer.headers.get_list("x-dup") == ["1", "2"]


async def test_every_answer_says_where_its_caller_stands(gateway: RunningGateway, world: World) -> None:
    """Refusals, 402s and repeated answers count like any other call, and say so."""
    agent, poor, shop = await world.agent(10**6), await world.agent(), await world.publisher(10_000)
    path = f"/publishers/{shop.slug}/x"
    for headers, status in (
        ({}, 402),
        (poor.headers, 402),
        ({**agent.headers, "Idempotency-Key": "k" * 300}, 400),
        ({**agent.headers, "Idempotency-Key": "once"}, 200),
        ({**agent.headers, "Idempotency-Key": "once"}, 200),
    ):
        answer = await gateway.client.get(path, headers=headers)
        assert answer.status_code == status, answer.text
        policy = "key" if "Authorization" in headers else "address"
        assert answer.headers.get_list("ratelimit-policy") == [f'"{policy}";q=1000000;w=60']
        assert answer.headers["ratelimit"].startswith(f'"{policy}";r=')


async def test_the_publishers_own_limit_answers_429_and_the_wait_is_true(
    gateway: RunningGateway, world: World, upstream: RecordingUpstream
) -> None:
    agent, shop = await world.agent(10**9), await world.publisher(1, max_queries_per_minute=60)
    upstream.forget()
    clock = asyncio.get_running_loop().time
    path, began = f"/publishers/{shop.slug}/x", clock()
    calls = (gateway.client.get(path, headers=agent.headers) for _ in range(100))
    answers = await asyncio.gather(*calls)
    passed = sum(answer.status_code == 200 for answer in answers)
    assert 60 <= passed <= 61 + (clock() - began), "one comes back every second"
    refused = next(answer for answer in answers if answer.status_code != 200)
    assert refused.status_code == 429
    assert refused.json()["type"] == "/problems/rate-limited"
    assert refused.headers["ratelimit-policy"].endswith("q=60;w=60")
    wait = int(refused.headers["retry-after"])
    assert 1 <= wait <= 2
    await asyncio.sleep(wait)
    assert (await gateway.client.get(f"/publishers/{shop.slug}/x", headers=agent.headers)).status_code == 200


async def test_18_decimals_are_charged_exactly(gateway: RunningGateway, world: World, connection: Connection) -> None:
    price = 1_000_000_000_000_000_001
    agent = await world.agent(12 * 10**18, asset=ETHER)
    shop = await world.publisher(price, asset=ETHER)
    answer = await gateway.client.get(f"/publishers/{shop.slug}/x", headers=agent.headers)
    assert (answer.status_code, answer.headers["x-cost"]) == (200, "1.000000000000000001")
    await settled(connection)
    assert await world.earned(shop) == price


async def test_a_changed_price_and_a_deactivated_publisher_are_honoured_at_once(
    gateway: RunningGateway, world: World, connection: Connection
) -> None:
    agent, shop = await world.agent(10**9), await world.publisher(10_000)
    path = f"/publishers/{shop.slug}/x"
    assert (await gateway.client.get(path, headers=agent.headers)).headers["x-cost"] == "0.01"
    await connection.execute("UPDATE catalog.pricing SET price_per_call = 30000 WHERE publisher_id = $1", shop.id)
    await world.told()
    assert (await gateway.client.get(path, headers=agent.headers)).headers["x-cost"] == "0.03"
    await connection.execute("UPDATE catalog.publisher SET is_active = false WHERE id = $1", shop.id)
    await world.told()
    assert (await gateway.client.get(path, headers=agent.headers)).status_code == 404


async def test_a_revoked_key_is_refused_as_soon_as_the_gateway_hears(
    gateway: RunningGateway, world: World, connection: Connection
) -> None:
    agent, shop = await world.agent(10**9), await world.publisher(10_000)
    path = f"/publishers/{shop.slug}/x"
    assert (await gateway.client.get(path, headers=agent.headers)).status_code == 200
    await connection.execute("UPDATE identity.api_key SET revoked_at = now() WHERE account_id = $1", agent.id)
    await world.told()
    assert (await gateway.client.get(path, headers=agent.headers)).status_code == 401


@pytest.mark.parametrize("target", ["/../x", "/%2e%2e/x", "/./x", "/a/..%2fb", "/%00", "/%zz"])
async def test_targets_that_climb_are_refused_before_anything_is_paid(
    gateway: RunningGateway, world: World, upstream: RecordingUpstream, target: str
) -> None:
    agent, shop = await world.agent(1_000_000), await world.publisher(10_000)
    upstream.forget()
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    head = f"GET /publishers/{shop.slug}{target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {agent.key}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode())
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert (upstream.calls, await world.balance(agent)) == (0, 1_000_000)


async def test_every_answer_has_one_date(gateway: RunningGateway, world: World) -> None:
    agent, shop = await world.agent(15_000), await world.publisher(10_000)
    call = f"/publishers/{shop.slug}/x"
    for path, status in (
        (call, 200), (call, 402), (f"{call}%00", 400), ("/publishers/nobody/x", 404),
        ("/health/live", 200), ("/problems/no-such", 404),
    ):  # fmt: skip
        answer = await gateway.client.get(
            httpx.URL(gateway.url).copy_with(raw_path=path.encode()), headers=agent.headers
        )
        assert (answer.status_code, len(answer.headers.get_list("date"))) == (status, 1), path
