"""Keys that are none, and keys in places where they count for nothing (EX-34 and its class): 401 or 402, uncharged.

No answer tells what was wrong with a key, and no refusal repeats one.
"""

from __future__ import annotations

import asyncio
import base64

import pytest

from tests.hostile.shops import PRICE, Market, Tills
from tests.hostile.wire import Wire, ask, request
from tests.support.gateway import RunningGateway
from tests.support.upstream import RecordingUpstream
from tests.support.world import Agent, World


def forged(agent: Agent) -> dict[str, str]:
    """Return Authorization values that look like the agent's, or like one that a careless reader would take."""
    prefix, key_id, secret = agent.key.split("_", 2)
    other = "a" * len(secret)
    return {
        "no scheme": agent.key,
        "Basic": "Basic " + base64.b64encode(f"{agent.key}:".encode()).decode(),
        "Token": f"Token {agent.key}",
        "Bearer twice": f"Bearer Bearer {agent.key}",
        "two keys": f"Bearer {agent.key}, {agent.key}",
        "key with a comment": f"Bearer {agent.key} -- ",
        "quoted": f'Bearer "{agent.key}"',
        "empty": "Bearer",
        "blank": "Bearer   ",
        "secret of another": f"Bearer {prefix}_{key_id}_{other}",
        "no secret": f"Bearer {prefix}_{key_id}_",
        "half a secret": f"Bearer {prefix}_{key_id}_{secret[: len(secret) // 2]}",
        "secret and more": f"Bearer {agent.key}a",
        "secret in capitals": f"Bearer {prefix}_{key_id}_{secret.upper()}",
        "secret in small letters": f"Bearer {prefix}_{key_id}_{secret.lower()}",
        "id in capitals": f"Bearer {prefix}_{key_id.upper()}_{secret}",
        "secret first": f"Bearer {prefix}_{secret}_{key_id}",
        "other prefix": f"Bearer sk_{key_id}_{secret}",
        "prefix in capitals": f"Bearer {prefix.upper()}_{key_id}_{secret}",
        "id with %": f"Bearer {prefix}_{key_id[:-1]}%_{secret}",
        "id with _": f"Bearer {prefix}_{key_id[:-1]}__{secret}",
        "quotation": f"Bearer {prefix}_' OR '1'='1_{secret}",
        "8 bits": f"Bearer {prefix}_{key_id}_{secret[:-1]}\xe9",
        "full-width": f"Bearer {prefix}_{key_id}_{secret[:-1]}\uff21".encode().decode("latin-1"),
        "no-break blank": f"Bearer\xa0{agent.key}",
        "1 KB": "Bearer " + "a" * 1_000,
        "30 KB": "Bearer " + "a" * 30_000,
        "many _": "Bearer " + "_" * 8_000,
        "JSON web token": "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9.",
        "null": "Bearer null",
        "undefined": "Bearer undefined",
        "zero id": f"Bearer {prefix}_{'0' * len(key_id)}_{secret}",
    }


NAMES = sorted(forged(Agent(None, None, "seren_0123456789abcdef_" + "Ab1" * 15, 0)))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
async def test_what_is_not_exactly_a_key_is_none(
    wired: RunningGateway, market: Market, tills: Tills, upstream: RecordingUpstream, name: str
) -> None:
    agent = await tills.agent(name)
    value = forged(agent)[name]
    upstream.forget()
    for method, target in (("GET", f"/publishers/{market.plain.slug}/x"), ("GET", "/wallet/balance")):
        answer = await ask(wired.port, request(method, target, f"Authorization: {value}"))
        if name in ("secret in capitals", "secret in small letters", "id in capitals") and value.endswith(agent.key):
            return  # the key happened to be written so
        assert answer.status in (400, 401, 431), (target, answer.status)
        assert agent.key.encode() not in answer.body
        assert agent.key.split("_", 2)[2].encode() not in answer.body
    assert upstream.calls == 0
    await tills.expect(agent, 0)


async def test_all_wrong_keys_read_the_same(gateway: RunningGateway, market: Market, world: World) -> None:
    """Neither words nor fields tell an unknown id from a wrong secret or a revoked key."""
    agent, revoked = await world.agent(PRICE), await world.agent(PRICE)
    await world.connection.execute("UPDATE identity.api_key SET revoked_at = now() WHERE account_id = $1", revoked.id)
    prefix, key_id, secret = agent.key.split("_", 2)
    keys = (f"{prefix}_{key_id}_{'a' * len(secret)}", f"{prefix}_{'f' * len(key_id)}_{secret}", revoked.key, "nonsense")
    seen = set()
    for key in keys:
        answer = await ask(gateway.port, request("GET", f"/publishers/{market.plain.slug}/x", key=key))
        body = answer.body.replace(answer.get("x-request-id").encode(), b"")
        seen.add((answer.status, body, tuple(sorted({name for name, _ in answer.headers}))))
    assert len(seen) == 1


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "bEaReR"])
async def test_the_scheme_has_no_case(wired: RunningGateway, market: Market, tills: Tills, scheme: str) -> None:
    """RFC 9110 section 11.1."""
    agent = await tills.agent(scheme)
    raw = request("GET", f"/publishers/{market.plain.slug}/x", f"Authorization: {scheme} {agent.key}")
    assert (await ask(wired.port, raw)).status == 200
    await tills.expect(agent, PRICE)


@pytest.mark.parametrize(
    "place",
    [
        "X-API-Key: {k}", "X-Authorization: Bearer {k}", "Proxy-Authorization: Bearer {k}", "Cookie: authorization=Bearer {k}", "Cookie: api_key={k}",
        "Api-Key: {k}", "Authentication: Bearer {k}", "X-Forwarded-Authorization: Bearer {k}", "X_Authorization: Bearer {k}", "?api_key={k}",
        "?access_token={k}", "?authorization=Bearer%20{k}",
    ],
)  # fmt: skip
async def test_a_key_in_another_place_buys_nothing(
    wired: RunningGateway, market: Market, tills: Tills, upstream: RecordingUpstream, place: str
) -> None:
    agent = await tills.agent(place)
    upstream.forget()
    said = place.replace("{k}", agent.key)
    below, fields = (f"/x{said}", ()) if said.startswith("?") else ("/x", (said,))
    answer = await ask(wired.port, request("GET", f"/publishers/{market.plain.slug}{below}", *fields))
    assert (answer.status, upstream.calls) == (400 if said.startswith("?") else 402, 0)
    assert agent.key.encode() not in answer.body
    await tills.expect(agent, 0)


async def test_a_request_without_a_key_costs_nobody_on_the_same_connection(
    wired: RunningGateway, market: Market, tills: Tills, upstream: RecordingUpstream
) -> None:
    """A key counts for its own request: a front that shares connections must not share wallets."""
    agent = await tills.agent("connection")
    wire = await Wire.open(wired.port)
    paid = request("GET", f"/publishers/{market.plain.slug}/x", key=agent.key)
    bare = request("GET", f"/publishers/{market.plain.slug}/x")
    wallet = request("GET", "/wallet/balance")
    await wire.send(paid + bare + paid + wallet)
    statuses = [(await wire.answer()).status for _ in range(4)]
    wire.close()
    assert statuses == [200, 402, 200, 401]
    await tills.expect(agent, 2 * PRICE)


async def test_a_rain_of_wrong_keys_does_not_lock_out_a_right_one(
    gateway: RunningGateway, market: Market, tills: Tills
) -> None:
    agent = await tills.agent("rain")
    wrong = [f"seren_{number:016x}_{'b' * 43}" for number in range(100)]
    path = f"/publishers/{market.plain.slug}/x"
    rain = asyncio.gather(*(ask(gateway.port, request("GET", path, key=key)) for key in wrong))
    assert (await ask(gateway.port, request("GET", path, key=agent.key))).status == 200
    assert {answer.status for answer in await rain} == {401}
    await tills.expect(agent, PRICE)
