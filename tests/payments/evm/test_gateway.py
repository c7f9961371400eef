"""The gateway settles what any worker has submitted, says so in its metrics, and the operator's commands show it."""

from __future__ import annotations

import re
import subprocess
import sys

from gateway.database.pool import Database
from gateway.payments.evm.encoding import show_address
from gateway.payments.evm.settlements import Settlements
from gateway.settings import DatabaseSettings
from tests.payments.evm.conftest import QUICK, Ordering, ended, links_of, until
from tests.support.chain import Chain
from tests.support.flaky_node import FlakyNode
from tests.support.gateway import ROOT, RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.world import Shop, World


def tollway(gateway: RunningGateway, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway.cli.main", *arguments]
    return subprocess.run(command, cwd=ROOT, env=gateway.environment, capture_output=True, text=True, check=False)


async def test_a_gateway_relays_and_shows_what_it_does(
    services: Services, database_url: str, chain: Chain, order: Ordering, world: World, shop: Shop
) -> None:
    node = FlakyNode(chain.url)  # because it takes any path, like nodes whose URL holds an access key
    await node.start()
    keys = {f"CHAIN_{chain.chain_id}_RPC": f"{node.url}/v2/node-secret", "CHAIN_SIGNER_KEY": chain.signer_key}
    gateway = await start_gateway(services, database_url, WORKERS="2", LOG_LEVEL="debug", **keys)
    database = Database(DatabaseSettings(url=database_url))
    await database.start()
    settlements = Settlements(database, database.settings, links_of(chain, "", "", QUICK))  # not started: it only asks
    try:
        payer = await chain.wallet(1_000_000)
        one = order(chain.authorize(payer, chain.treasury, 10_000))
        waiting = order(chain.authorize(payer, chain.treasury, 20_000))
        await settlements.reserve(waiting)
        await settlements.reserve(one)
        await settlements.submit(one.id)
        assert await ended(settlements, one.id) == "confirmed"
        assert await world.earned(shop) == 9_000

        async def measured() -> bool:
            text = (await gateway.client.get("/metrics")).text
            found = {name: float(value) for name, value in re.findall(r"^tollway_(\S+) (\S+)$", text, re.M)}
            labels = f'network="{chain.network}"'
            return (
                found.get(f"relayer_leading{{{labels}}}") == 1
                and found.get(f"relayer_balance_wei{{{labels}}}", 0) > 10**18
                and found.get(f"relayer_waits{{{labels}}}") == 0
                and found.get(f'chain_payments{{{labels},state="reserved"}}') == 1
            )

        await until(measured)
        listed = tollway(gateway, "payments", "list")
        assert str(waiting.id) in listed.stdout
        assert str(one.id) not in listed.stdout
        shown = tollway(gateway, "payments", "show", str(one.id))
        assert show_address(payer.address) in shown.stdout
        assert "confirmed" in shown.stdout
        assert tollway(gateway, "payments", "show", str(shop.id)).returncode == 1
        assert chain.signer_key.removeprefix("0x") not in gateway.output()
        assert "node-secret" not in gateway.output()
        await settlements.cancel(waiting.id, "test")
    finally:
        await gateway.stop()
        await node.stop()
        await settlements.stop()
        await database.stop()
