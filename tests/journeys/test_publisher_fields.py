"""Every field of the contract's create, update and pricing requests does what somebody can see, or is refused with the
reason. The fields are read from our copy of the contract and from what is served, so that a new one fails here first.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gateway.catalog.not_offered import FIELDS as NOT_OFFERED
from gateway.catalog.not_offered import WORDS
from gateway.catalog.requests import CreatePublisherRequest, UpdatePricingRequest, UpdatePublisherRequest
from tests.journeys import publisher_fields  # noqa: F401 - registers the scenes
from tests.journeys.publisher_stage import SCENES, Servers, Stage
from tests.payments.onchain.conftest import chained
from tests.support.chain import Chain
from tests.support.chat import ChatUpstream
from tests.support.gateway import RunningGateway, free_port, start_gateway
from tests.support.market import Market
from tests.support.mcp_server import PublishersServer
from tests.support.services import Services
from tests.support.token_server import TokenServer
from tests.support.upstream import RecordingUpstream
from tests.support.world import World

PATH = "/organizations/{organization_id}/publishers"
OPERATIONS = {
    "create": f"POST {PATH}",
    "update": f"PUT {PATH}/{{publisher_id}}",
    "pricing": f"PUT {PATH}/{{publisher_id}}/pricing",
}
MODELS = {"create": CreatePublisherRequest, "update": UpdatePublisherRequest, "pricing": UpdatePricingRequest}
CONTRACT = json.loads((Path(__file__).parents[1] / "conformance/contract.json").read_text())
# Extensions of ours, and the tests that show what they do.
SHOWN_ELSEWHERE = {
    "tests/admin_api/test_delivery.py": "connect_timeout_seconds first_byte_timeout_seconds idle_timeout_seconds"
    " total_timeout_seconds max_connections refund_on_status charge_on_status",
    "tests/journeys/test_publisher_fields.py": "connect_retries",
    "tests/admin_api/test_settlement_fields.py": "x402_settlement x402_exposure",
    "tests/admin_api/test_metering_fields.py": "reserve_max_charge unresolved_fallback_charge upstream_cost_header"
    " upstream_usage_prices price_per_mib",
    "tests/admin_api/test_refund_rules.py": "refund_rules",
    "tests/admin_api/test_tier_fields.py": "price_tiers tier_style",
    "tests/admin_api/test_websocket_switch.py": "websocket_enabled",
    "tests/proxy/test_upstream_auth.py": "jwt_claims jwt_key_id",
}


def fields_of(door: str) -> set[str]:
    """Return the contract's fields of a request, parts of lists as `endpoints.price`."""
    (body,) = CONTRACT[OPERATIONS[door]]["request"].values()
    paths = (path.removeprefix("$.").replace("[]", "") for path in body if path != "$")
    return set(paths)


CASES = sorted((door, name) for door in OPERATIONS for name in fields_of(door))
SHOWN = [(door, name) for door, name in CASES if name.split(".")[0] not in NOT_OFFERED]
# A word that is not offered, or a value that asks for what is not.
REFUSED: dict[str, Any] = {
    "compute_type": "function", "hourly_rate": "1", "grace_period_minutes": 5, "database_name": "sales",
    "branch_id": "01890000-0000-7000-8000-000000000001",
    "ownership_tracking_enabled": True, "resource_id_response_path": "data.id", "resource_id_url_pattern": "/items/{id}",
    "protected_operations": ["DELETE"],
}  # fmt: skip


def test_every_field_is_shown_or_refused() -> None:
    for door, name in CASES:
        assert (name in SCENES) != (name in NOT_OFFERED), f"{name} of {door}: show what it does, or refuse it"
    assert REFUSED.keys() == NOT_OFFERED.keys()
    named = {name for _, name in CASES}
    assert named >= SCENES.keys() | NOT_OFFERED.keys(), "a scene for a field that there is not"


def test_every_extension_is_shown() -> None:
    elsewhere = {name for names in SHOWN_ELSEWHERE.values() for name in names.split()}
    for door, model in MODELS.items():
        assert model.model_fields.keys() - fields_of(door) <= elsewhere
    for file, names in SHOWN_ELSEWHERE.items():
        text = (Path(__file__).parents[2] / file).read_text()
        assert [name for name in names.split() if name not in text] == []


def test_the_docs_have_every_field_once_with_its_requests() -> None:
    text = (Path(__file__).parents[2] / "docs/publishers.md").read_text()
    rows = text.partition("\n## Every field\n")[2].partition("\n## ")[0]
    told: dict[str, set[str]] = {}
    for line in rows.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) > 3 and cells[1].startswith("`"):
            for name in re.findall(r"`(\w+)`", cells[1]):
                assert name not in told, name
                told[name] = set(cells[2].split())
    served = {name: {door[0].upper() for door in MODELS if name in MODELS[door].model_fields} for name in told}
    assert told == served
    assert told.keys() == {name for model in MODELS.values() for name in model.model_fields}
    parts = {name.split(".")[1] for _, name in CASES if name.startswith("endpoints.")}
    assert [name for name in parts if f"`{name}`" not in rows] == []


@pytest_asyncio.fixture(scope="module")
async def gateway(services: Services, database_url: str, chain: Chain) -> AsyncIterator[RunningGateway]:
    """A gateway that takes payments on the local chain, too."""
    running = await start_gateway(services, database_url, **chained(chain))
    yield running
    await running.stop()


@pytest_asyncio.fixture(scope="module")
async def servers(
    upstream: RecordingUpstream, mcp_server: PublishersServer, chat: ChatUpstream, market: Market
) -> AsyncIterator[Servers]:
    tokens = TokenServer()
    await tokens.start()
    yield Servers(upstream, tokens, mcp_server, chat, market)
    await tokens.stop()


@pytest_asyncio.fixture
async def stage(gateway: RunningGateway, world: World, servers: Servers, door: str) -> Stage:
    every = {one: frozenset(model.model_fields) for one, model in MODELS.items()}
    return Stage(gateway, world, servers, await world.agent(), await world.agent(20_000_000), door, every)


@pytest.mark.parametrize(("door", "name"), SHOWN)
async def test_a_field_does_what_can_be_seen(stage: Stage, name: str) -> None:
    await SCENES[name](stage)


@pytest.mark.parametrize(("door", "name"), [case for case in CASES if case[1] in NOT_OFFERED])
async def test_what_is_not_offered_is_refused_with_the_reason(stage: Stage, door: str, name: str) -> None:
    await _refused(stage, door, name, REFUSED[name], NOT_OFFERED[name])


@pytest.mark.parametrize(
    ("door", "name", "word"), [(door, *pair) for pair in WORDS for door in OPERATIONS if pair[0] in fields_of(door)]
)
async def test_a_word_that_is_not_offered_is_refused_with_the_reason(
    stage: Stage, door: str, name: str, word: str
) -> None:
    await _refused(stage, door, name, word, WORDS[name, word])


@pytest.mark.parametrize("door", ["create", "update"])
async def test_connect_retries_wait_for_a_server_that_comes_up(stage: Stage) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    await stage.call(await stage.sells(api_url=url, connect_retries=0), status=502)
    waiting = asyncio.ensure_future(stage.call(await stage.sells(api_url=url, connect_retries=3)))
    await asyncio.sleep(0.05)
    late = RecordingUpstream()
    await late.start(port=port)
    await waiting
    await late.stop()


async def _refused(stage: Stage, door: str, name: str, value: Any, words: str) -> None:
    if door == "create":
        path, method, body = "", "POST", {"name": "Shop", "slug": "refused", "publisher_category": "integration"}
        body |= {"api_url": stage.servers.upstream.url, "wallet_address": "0x" + "1" * 40}
        body |= {"wallet_network_id": "eip155:84532"}
    else:
        made = await stage.sells()
        path, method = f"/{made['id']}" + ("/pricing" if door == "pricing" else ""), "PUT"
        body = {"asset_id": made["accepted_assets"][0]["id"]} if door == "pricing" else {}
    url = f"/organizations/{stage.seller.organization_id}/publishers{path}"
    answer = await stage.gateway.client.request(
        method, url, headers=stage.seller.headers, json={**body, name: value}
    )  # fmt: skip
    assert answer.status_code == 400
    assert answer.json()["type"] == "/problems/invalid-request"
    assert {"field": name, "message": words} in answer.json()["errors"]
