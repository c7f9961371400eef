"""What owners may not store: text that is another text for its next reader (a header, a URL, a log, a person).

Every row is one create_publisher on a running gateway with one field changed. Required: 400 that names the field, no
publisher of that slug in the store, and nothing repeated from a secret.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

import orjson
import pytest
import pytest_asyncio

from tests.hostile.shops import Tills
from tests.hostile.wire import ask, request
from tests.support.gateway import RunningGateway
from tests.support.upstream import RecordingUpstream
from tests.support.world import Agent, World

_numbers = itertools.count(1)


@pytest_asyncio.fixture(scope="module")
async def owner(world: World) -> Agent:
    return await world.agent()


async def create(
    gateway: RunningGateway, owner: Agent, upstream: RecordingUpstream, **changes: Any
) -> tuple[int, Any, str]:
    slug = changes.pop("slug", f"input-{next(_numbers)}-{owner.id.hex[-8:]}")
    body = {
        "name": "Shop", "slug": slug, "publisher_category": "integration", "integration_type": "api", "api_url": upstream.url,
        "wallet_address": "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "wallet_network_id": "eip155:84532", "price_per_call": "0.01",
        **changes,
    }  # fmt: skip
    answer = await ask(
        gateway.port,
        request(
            "POST",
            f"/organizations/{owner.organization_id}/publishers",
            "Content-Type: application/json",
            key=owner.key,
            body=json.dumps(body).encode(),
        ),
    )
    return answer.status, orjson.loads(answer.body), str(slug)


SLUGS = [
    "", "a", "A-Shop", "shop_", "shop.", "sh op", "shop\n", "\nshop", "shop/x", "shop%2Fx", "shop\\x", "..", "../x", "shop;x", "shop?x", "shop#x",
    "suggest", "sh\u043ep", "\uff53\uff48\uff4f\uff50", "shop\u200b", "sho\u0301p", "\u202eshop", "shop\u0000", "s" * 65, "caf\u00e9", "\U0001f4b0",
    "shop\u00ad", "SHOP", "\u017fhop", "sho\u212a", "shop ", " shop", "<b>", "${x}", "{{x}}", "'--",
]  # fmt: skip


@pytest.mark.parametrize("slug", SLUGS, ids=ascii)
async def test_a_slug_that_could_be_taken_for_another_is_refused(
    gateway: RunningGateway, owner: Agent, upstream: RecordingUpstream, slug: str
) -> None:
    status, answer, _ = await create(gateway, owner, upstream, slug=slug)
    assert (status, "slug" in str(answer["errors"]) or "character" in answer["detail"]) == (400, True), answer


PRICES = [
    "0.0000001", "-0.01", "+0.01", "1e-2", "1E2", "NaN", "Infinity", "-Infinity", "0x10", "1_000", "1,5", " 1", "1 ", "1.", ".5", "", "one",
    "\u0660.\u0661", "\uff11", "\u00bd", "1\u200b", "1\n", "00", "1" * 80, "0." + "0" * 80, 0.1, 1e400, -1, True, None, [], {}, [1],
]  # fmt: skip


@pytest.mark.parametrize("field", ["price_per_call", "price_per_get"])
@pytest.mark.parametrize("price", PRICES, ids=ascii)
async def test_a_price_that_is_not_plainly_one_is_refused_or_means_itself(
    gateway: RunningGateway, owner: Agent, upstream: RecordingUpstream, field: str, price: object
) -> None:
    """EX-06: never rounded, never reinterpreted. What is accepted comes back as the same number."""
    status, answer, slug = await create(gateway, owner, upstream, **{field: price})
    if status == 201:
        assert price in (None, "00", "1.", ".5", 0.1) or isinstance(price, str), answer
        stored = answer["data"]
        shown = str(stored.get(field, stored.get("pricing", "")))
        assert price is None or float(str(price)) == float(shown), (price, shown)
        return
    assert status == 400, answer
    assert (await gateway.client.get(f"/publishers/{slug}")).status_code == 404


FIELDS: dict[str, dict[str, Any]] = {
    "CRLF in a header value": {"upstream_headers": {"X-A": "b\r\nX-Evil: 1"}},
    "LF in a header value": {"upstream_headers": {"X-A": "b\nX-Evil: 1"}},
    "CRLF in a header name": {"upstream_headers": {"X-A: b\r\nX-Evil": "1"}},
    "colon in a header name": {"upstream_headers": {"X-A:": "1"}},
    "blank in a header name": {"upstream_headers": {"X A": "1"}},
    "8 bits in a header value": {"upstream_headers": {"X-A": "\u00e9"}},
    "wide text in a header value": {"upstream_headers": {"X-A": "\u560d\u560a"}},
    "NUL in a header value": {"upstream_headers": {"X-A": "a\u0000"}},
    "Host": {"upstream_headers": {"Host": "evil.example"}},
    "host in capitals": {"upstream_headers": {"HOST": "evil.example"}},
    "Transfer-Encoding": {"upstream_headers": {"Transfer-Encoding": "chunked"}},
    "Content-Length": {"upstream_headers": {"content-length": "0"}},
    "Connection": {"upstream_headers": {"Connection": "close"}},
    "Upgrade": {"upstream_headers": {"Upgrade": "h2c"}},
    "Expect": {"upstream_headers": {"Expect": "100-continue"}},
    "a secret in the open": {"upstream_headers": {"Authorization": "Bearer x"}},
    "CRLF in a secret header": {"api_headers": {"X-Key": "b\r\nX-Evil: 1"}},
    "CRLF in the key": {"upstream_api_key": "b\r\nX-Evil: 1"},
    "Host as the key's header": {"upstream_api_key": "k", "api_key_header": "Host"},
    "CRLF in the key's header": {"upstream_api_key": "k", "api_key_header": "X\r\nY"},
    "& in the key's parameter": {"upstream_api_key": "k", "api_key_query_param": "a&b"},
    "the caller's credential": {"allowed_passthrough_headers": ["Authorization"]},
    "the caller's cookie": {"allowed_passthrough_headers": ["cookie"]},
    "the caller's payment": {"allowed_passthrough_headers": ["X-PAYMENT"]},
    "no header": {"allowed_passthrough_headers": ["x y"]},
    "media type with CRLF": {"request_content_type": "a/b\r\nX-Evil: 1"},
    "name with NUL": {"name": "a\u0000b"},
    "name with an escape": {"name": "a\u001b[31mb"},
    "half a character": {"name": "\ud83d"},
    "endpoint that climbs": {"endpoints": [{"method": "GET", "path": "/a/../b"}]},
    "endpoint with a query": {"endpoints": [{"method": "GET", "path": "/a?b"}]},
    "endpoint without a slash": {"endpoints": [{"method": "GET", "path": "a"}]},
    "endpoint with a fragment": {"endpoints": [{"method": "GET", "path": "/a#b"}]},
    "endpoint with CRLF": {"endpoints": [{"method": "GET", "path": "/a\r\n"}]},
    "endpoint in small letters": {"endpoints": [{"method": "get it", "path": "/a"}]},
    "endpoint of TRACE": {"endpoints": [{"method": "TRACE", "path": "/a"}]},
    "wallet without checksum": {"wallet_address": "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAeD"},
    "wallet of zeros": {"wallet_address": "0x" + "0" * 40},
    "network of dreams": {"wallet_network_id": "eip155:999999999"},
    "fee of 101 %": {"gateway_fee_percent": "101"},
    "logo that is a script": {"logo_url": "javascript:alert(1)"},
}


@pytest.mark.parametrize("case", FIELDS)
async def test_a_field_that_would_be_another_one_later_is_refused(
    gateway: RunningGateway, owner: Agent, upstream: RecordingUpstream, case: str
) -> None:
    status, answer, slug = await create(gateway, owner, upstream, **FIELDS[case])
    assert status == 400, answer
    assert answer["type"] == "/problems/invalid-request"
    assert "X-Evil" not in str(answer)
    assert (await gateway.client.get(f"/publishers/{slug}")).status_code == 404


AGENT_NAMES = [
    "a\u0000b",
    "a\u001b[2J",
    "\u202eevil",
    "a" * 10_000,
    "\ud83d",
    "a\r\nb",
    "",
    " ",
    "\u200b",
    ["a"],
    {"a": 1},
    7,
    True,
]


@pytest.mark.parametrize("name", AGENT_NAMES, ids=ascii)
async def test_a_name_that_would_hide_or_forge_is_refused(gateway: RunningGateway, name: object) -> None:
    body = json.dumps({"name": name}).encode()
    answer = await ask(gateway.port, request("POST", "/auth/agent", "Content-Type: application/json", body=body))
    assert answer.status == 400, answer.body


BODIES = {
    "two names": b'{"name":"a","name":"b"}', "comment": b'{"name":"a"/**/}', "trailing comma": b'{"name":"a",}', "single quotes": b"{'name':'a'}",
    "byte order mark": b'\xef\xbb\xbf{"name":"a"}', "UTF-16": '{"name":"a"}'.encode("utf-16"), "latin-1": b'{"name":"\xe9"}', "NaN": b'{"name":NaN}',
    "two values": b"{}{}", "array": b"[]", "text": b'"a"', "number": b"1", "form": b"name=a", "XML": b"<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><a>&x;</a>",
    "prototype": b'{"__proto__":{"name":"a"},"name":["a"]}', "gzip": b"\x1f\x8b\x08\x00\x00",
}  # fmt: skip


@pytest.mark.parametrize("case", BODIES)
async def test_a_body_with_two_readings_is_refused(wired: RunningGateway, case: str) -> None:
    answer = await ask(wired.port, request("POST", "/auth/agent", "Content-Type: application/json", body=BODIES[case]))
    assert (answer.status, answer.get("content-type")) == (400, "application/problem+json"), answer.body


async def test_a_price_of_one_unit_is_charged_as_one(gateway: RunningGateway, world: World, tills: Tills) -> None:
    agent = await tills.agent("one unit")
    shop = await world.publisher(1)
    answer = await ask(gateway.port, request("GET", f"/publishers/{shop.slug}/x", key=agent.key))
    assert (answer.status, answer.get("x-cost")) == (200, "0.000001")
    await tills.expect(agent, 1)
