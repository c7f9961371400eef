"""docs/mcp.md: its client runs as it stands."""

from __future__ import annotations

import textwrap

import pytest

from tests.docs.markdown import ROOT, blocks
from tests.mcp.conftest import PRICE
from tests.support.gateway import RunningGateway
from tests.support.world import Agent, Shop, World

DOCUMENT = ROOT / "docs" / "mcp.md"


async def test_the_client_of_the_document_runs_as_it_stands(
    gateway: RunningGateway, world: World, shop: Shop, agent: Agent, capsys: pytest.CaptureFixture[str]
) -> None:
    (script,) = (block.text for block in blocks(DOCUMENT) if block.words[0] == "python")
    script = script.replace("weather-tools", shop.slug)
    space = {"key": agent.key, "gateway": gateway.url}
    exec(f"async def read() -> None:\n{textwrap.indent(script, '    ')}", space)
    await space["read"]()
    printed = capsys.readouterr().out
    assert "forecast {'amount': '0.01', 'asset': 'USDC', 'network': 'eip155:8453'}" in printed
    assert "Lisbon: sunny for 1 days" in printed
    assert await world.balance(agent) == 1_000_000 - PRICE
