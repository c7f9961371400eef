"""A page of another site pays on the chain, in Chromium, with the official x402 client."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.payments.onchain.buyer import PRICE
from tests.payments.onchain.conftest import Buying
from tests.payments.onchain.test_official_clients import agreed, key_of
from tests.support.browser import Tab, browser, chromium
from tests.support.chain import Chain
from tests.support.gateway import RunningGateway
from tests.support.javascript import X402, installed
from tests.support.upstream import RecordingUpstream
from tests.support.world import Agent, Shop, World

SCRIPT = Path(__file__).parent / "clients" / "page.mjs"
PACKAGES = {
    **{name: X402[name] for name in ("@x402/core", "@x402/evm", "@x402/fetch", "viem")},
    "esbuild-wasm": "0.25.12",
}


@pytest.fixture(scope="module")
def bundle() -> bytes:
    """The page's script, in one piece."""
    home = installed(PACKAGES)
    command = ["node", "node_modules/esbuild-wasm/bin/esbuild", "--bundle", "--format=iife", "--loader=js"]
    done = subprocess.run(command, cwd=home, input=SCRIPT.read_bytes(), capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest_asyncio.fixture(scope="module")
async def site(bundle: bytes) -> AsyncIterator[str]:
    """A site of its own: one page with the script."""
    page = b"<!doctype html><meta charset=utf-8><title>shop</title><script>" + bundle.replace(
        b"</script", b"<\\/script"
    )
    page += b"</script>"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % len(page) + page)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    server.close()


@pytest_asyncio.fixture
async def tab(site: str) -> AsyncIterator[Tab]:
    """A browser that shows the page."""
    async with browser(chromium()) as opened:
        await opened.open(site)
        yield opened


async def test_a_page_pays_with_the_official_client(
    tab: Tab, buying: Buying, shop: Shop, chain: Chain, world: World, upstream: RecordingUpstream
) -> None:
    buyer = await buying()
    outcome = await tab.run(f"buy('{buyer.url}/publishers/{shop.slug}/x', '{key_of(buyer)}')")
    await agreed(buyer, shop, outcome, chain, world, upstream)
    assert (outcome["cost"], len(outcome["id"])) == (f"0.{PRICE:06d}".rstrip("0"), 36)


async def test_a_page_pays_with_a_key_and_reads_its_refusal(
    tab: Tab, gateway: RunningGateway, world: World, shop: Shop, upstream: RecordingUpstream
) -> None:
    agent: Agent = await world.agent(0)
    url = f"{gateway.url}/publishers/{shop.slug}/x"
    fields = '["PAYMENT-REQUIRED", "X-Cost", "X-Request-Id"]'
    script = f"""fetch('{url}', {{headers: {{Authorization: 'Bearer {agent.key}'}}}})
      .then(answer => [answer.status, ...{fields}.map(name => answer.headers.get(name))])"""
    status, required, cost, request_id = await tab.run(script)
    assert (status, bool(required), cost, len(request_id), upstream.calls) == (402, True, "0", 36, 0)
    refused = "fetch('URL/wallet/balance', {credentials: 'include'}).then(() => 'read', () => 'closed')"
    assert await tab.run(refused.replace("URL", gateway.url)) == "closed", "credentials mode is never granted"
