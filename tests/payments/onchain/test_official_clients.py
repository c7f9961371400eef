"""Official clients, unchanged, buy from a running gateway: Python and JavaScript, version 2 and version 1.

The Python client of version 2 is a dependency of the tests. The others are fetched into a directory of their own: a
temporary one, or that which TOLLWAY_TEST_CLIENTS names.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from eth_account import Account
from x402 import x402Client
from x402.http.clients.httpx import x402HttpxClient
from x402.http.utils import decode_payment_response_header
from x402.mechanisms.evm.exact import ExactEvmScheme
from x402.mechanisms.evm.exact.v1.client import ExactEvmSchemeV1

from tests.payments.evm.conftest import until
from tests.payments.onchain.buyer import PRICE, Buyer
from tests.payments.onchain.conftest import Buying, chained
from tests.support.chain import Chain
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.upstream import RecordingUpstream
from tests.support.world import SEPOLIA_USDC, Shop, World

HERE = Path(__file__).parent / "clients"
NPM = {
    "v2.mjs": ["@x402/fetch@2.27.0", "@x402/evm@2.27.0", "@x402/core@2.27.0", "viem@2.57.20"],
    "v1.mjs": ["x402-fetch@1.2.0", "viem@2.57.20"],
}
V1_PYTHON = "x402==1.0.0"
Outcome = dict[str, Any]


def key_of(buyer: Buyer) -> str:
    return "0x" + buyer.wallet._key.secret.hex()


async def agreed(
    buyer: Buyer, shop: Shop, outcome: Outcome, chain: Chain, world: World, upstream: RecordingUpstream
) -> None:
    """The client has its answer, and chain, books and publisher have seen one call."""
    assert outcome["status"] == 200, outcome
    assert json.loads(outcome["body"])["ok"] is True
    settled = outcome["settled"]
    assert settled["success"] is True
    receipt = await chain.rpc("eth_getTransactionReceipt", settled["transaction"])
    assert receipt["status"] == "0x1"
    assert settled["payer"].lower() == buyer.address.lower()
    assert (await buyer.balance(), upstream.calls) == (9 * PRICE, 1)
    assert await world.earned(shop) == 9_000


def official(buyer: Buyer) -> x402Client:
    """The official Python client with a wallet, for both versions."""
    account, client = Account.from_key(key_of(buyer)), x402Client()
    client.register("eip155:*", ExactEvmScheme(account))
    client.register_v1("base-sepolia", ExactEvmSchemeV1(account))
    return client


async def bought(client: httpx.AsyncClient, url: str, field: str, **options: Any) -> Outcome:
    answer = await client.request(options.pop("method", "GET"), url, **options)
    settled = answer.headers.get(field)
    read = settled and decode_payment_response_header(settled).model_dump(by_alias=True)
    return {"status": answer.status_code, "body": (await answer.aread()).decode(), "settled": read}


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_python_client_of_version_2_pays(
    method: str, buying: Buying, shop: Shop, chain: Chain, world: World, upstream: RecordingUpstream
) -> None:
    buyer = await buying()
    options = {"content": b"a body"} if method == "POST" else {}
    async with x402HttpxClient(official(buyer), timeout=30) as client:
        outcome = await bought(
            client, f"{buyer.url}/publishers/{shop.slug}/x", "payment-response", method=method, **options
        )
    await agreed(buyer, shop, outcome, chain, world, upstream)
    assert outcome["settled"]["network"] == chain.network
    assert upstream.requests[0].body == (b"a body" if method == "POST" else b"")


async def test_its_version_1_scheme_pays_where_only_the_body_is_read(
    buying: Buying, shop: Shop, chain: Chain, world: World, upstream: RecordingUpstream
) -> None:
    """What a proxy leaves of a 402 that drops headers it does not know is version 1's body."""
    buyer = await buying()

    class Dropping(httpx.AsyncHTTPTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            answer = await super().handle_async_request(request)
            answer.headers.pop("payment-required", None)
            return answer

    from x402.http.clients.httpx import x402AsyncTransport

    transport = x402AsyncTransport(official(buyer), Dropping())
    async with httpx.AsyncClient(transport=transport, timeout=30) as client:
        outcome = await bought(client, f"{buyer.url}/publishers/{shop.slug}/x", "x-payment-response")
    await agreed(buyer, shop, outcome, chain, world, upstream)
    assert outcome["settled"]["network"] == "base-sepolia"


@pytest.mark.parametrize("policy", ["settle_first", "deferred"])
async def test_it_pays_under_the_other_policies(
    policy: str, buying: Buying, world: World, upstream: RecordingUpstream
) -> None:
    shop = await world.publisher(PRICE, SEPOLIA_USDC, gateway_fee_percent="10", x402_settlement=policy)
    buyer = await buying()
    upstream.forget()
    async with x402HttpxClient(official(buyer), timeout=30) as client:
        outcome = await bought(client, f"{buyer.url}/publishers/{shop.slug}/x", "payment-response")
    assert (outcome["status"], outcome["settled"]["success"]) == (200, True)

    async def paid() -> bool:
        return await world.earned(shop) == 9_000

    await until(paid)
    assert (await buyer.balance(), upstream.calls) == (9 * PRICE, 1)


async def test_it_pays_with_a_token_that_only_permit2_moves(
    services: Services, database_url: str, chain: Chain, buying: Buying, shop: Shop, world: World,
    upstream: RecordingUpstream, tmp_path: Path,
) -> None:  # fmt: skip
    from gateway.networks import networks_file

    text = networks_file().read_text().replace('transfer = ["eip3009", "permit2"]', 'transfer = ["permit2"]')
    (tmp_path / "networks.toml").write_text(text)
    gateway = await start_gateway(
        services, database_url, **chained(chain, CHAIN_NETWORKS=str(tmp_path / "networks.toml"))
    )
    try:
        buyer = await buying(url=gateway.url)
        await chain.allow_permit2(buyer.wallet)
        async with x402HttpxClient(official(buyer), timeout=30) as client:
            outcome = await bought(client, f"{gateway.url}/publishers/{shop.slug}/x", "payment-response")
        await agreed(buyer, shop, outcome, chain, world, upstream)
    finally:
        await gateway.stop()


async def test_twenty_payers_at_once_settle_within_two_blocks(
    buying: Buying, shop: Shop, chain: Chain, world: World, upstream: RecordingUpstream
) -> None:
    buyers = [await buying() for _ in range(20)]
    url = f"/publishers/{shop.slug}/x"

    async def one(buyer: Buyer) -> Outcome:
        async with x402HttpxClient(official(buyer), timeout=30) as client:
            return await bought(client, buyer.url + url, "payment-response")

    async with chain.blocks_every(2):
        outcomes = await asyncio.gather(*(one(buyer) for buyer in buyers))
    assert {outcome["status"] for outcome in outcomes} == {200}
    blocks = {
        int((await chain.rpc("eth_getTransactionReceipt", outcome["settled"]["transaction"]))["blockNumber"], 16)
        for outcome in outcomes
    }
    assert max(blocks) - min(blocks) <= 1, "two blocks next to each other"
    assert (upstream.calls, await world.earned(shop)) == (20, 20 * 9_000)
    assert {await buyer.balance() for buyer in buyers} == {9 * PRICE}


# --- clients that are fetched --------------------------------------------------------------------------------------


def fetched(place: Path, command: list[str], made: Path) -> None:
    """Run a package manager into a place, unless it has been there; skips where its registry cannot be reached."""
    if made.exists():
        return
    place.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=900)
    if done.returncode:
        said = done.stdout + done.stderr
        unreachable = ("ENOTFOUND", "EAI_AGAIN", "ETIMEDOUT", "ECONNREFUSED", "Connection", "No matching distribution")
        if any(word in said for word in unreachable):
            pytest.skip(f"the registry of {command[0]} cannot be reached: {said.strip()[-200:]}")
        raise AssertionError(said)


@pytest.fixture(scope="session")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where fetched clients are kept."""
    named = os.environ.get("TOLLWAY_TEST_CLIENTS")
    return Path(named) if named else tmp_path_factory.mktemp("clients")


Client = Callable[[Buyer, str], Awaitable[Outcome]]


@pytest.fixture(scope="session")
def run(clients: Path) -> Callable[[str], Client]:
    """Return a client by its script, fetched where it is not there yet."""

    def client(script: str) -> Client:
        place = clients / script.replace(".", "-")
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE / script, place)
        if script.endswith(".mjs"):
            npm = shutil.which("npm")
            if npm is None:
                pytest.skip("there is no npm (Node.js) on this machine")
            options = ["--ignore-scripts", "--no-audit", "--no-fund", "--legacy-peer-deps", "--silent"]
            fetched(place, [npm, "install", *options, *NPM[script]], place / "node_modules" / "viem")
            command = [shutil.which("node") or "node", script]
        else:
            python = place / "venv" / "bin" / "python"
            fetched(place, [sys.executable, "-m", "venv", "venv"], python)
            installed = place / "installed"
            fetched(place, [str(python), "-m", "pip", "install", "-q", V1_PYTHON], installed)
            installed.touch()
            command = [str(python), script]

        async def buy(buyer: Buyer, path: str) -> Outcome:
            environment = {**os.environ, "KEY": key_of(buyer), "URL": buyer.url + path}
            process = await asyncio.create_subprocess_exec(
                *command, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            out, error = await process.communicate()
            assert process.returncode == 0, error.decode()
            return json.loads(out.decode().splitlines()[-1])

        return buy

    return client


@pytest.mark.slow
@pytest.mark.parametrize("script", ["v2.mjs", "v1.mjs", "v1.py"])
async def test_a_fetched_client_pays(
    script: str, run: Callable[[str], Client], buying: Buying, shop: Shop, chain: Chain, world: World,
    upstream: RecordingUpstream, gateway: RunningGateway,
) -> None:  # fmt: skip
    buyer = await buying()
    outcome = await run(script)(buyer, f"/publishers/{shop.slug}/x?day=2026-01-30")
    await agreed(buyer, shop, outcome, chain, world, upstream)
    assert outcome["settled"]["network"] == (chain.network if script.startswith("v2") else "base-sepolia")
    assert upstream.requests[0].target == "/x?day=2026-01-30"
