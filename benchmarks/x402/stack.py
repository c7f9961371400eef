"""Everything that the comparison needs: the local chain, the gateway with three shops, and the official servers.

Each official server is measured with its own SDK's facilitator and with ours. Every facilitator has a key of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.plain_http import HOST, free_port, until_answers
from benchmarks.stack import (
    RAISED_LIMITS,
    Running,
    Services,
    directory,
    gateway_environment,
    plain_environment,
    services,
    start,
    start_gateway,
    start_upstream,
)
from benchmarks.x402.payers import Wallets, funded
from gateway.catalog.assets import store_assets
from gateway.database.migrate import migrate
from gateway.database.pool import connect
from gateway.devservices import chain as devchain
from gateway.devservices.chain import Chain
from gateway.payments.evm.encoding import parse_address, show_address
from gateway.payments.evm.rpc import Rpc
from gateway.settings import DatabaseSettings
from tests.support.javascript import installed
from tests.support.world import SEPOLIA_USDC, World

PRICE = 10_000
PEERS = Path(__file__).parents[1] / "peers"
POLICIES = ("deferred", "before_response", "settle_first")
PAYEES = 0x5E11E5 << 64


@dataclass(frozen=True)
class Seller:
    """A server that sells one call. `payee` (20 bytes) is paid on the chain; `servers` are its own processes by role.

    `sdk` is tollway, fastapi or express; `way` our policy, or whose facilitator an official server uses.
    """

    sdk: str
    way: str
    port: int
    target: str
    payee: bytes
    processes: dict[str, int]

    @property
    def name(self) -> str:
        """Return how the tables call it."""
        return f"{self.sdk}, {self.way}"


@dataclass(frozen=True)
class PaidStack:
    """What runs. `processes` are those that all sellers share: postgres, valkey and the chain."""

    directory: Path
    services: Services
    chain: Chain
    upstream: Running
    gateway: Running
    sellers: list[Seller]
    wallets: Wallets
    processes: dict[str, int] = field(default_factory=dict)


@contextlib.contextmanager
def running(sdks: tuple[str, ...], *, server: str, wallets: int) -> Generator[PaidStack]:
    """Run everything. `sdks` are the official servers beside ours: fastapi, express."""
    with contextlib.ExitStack() as stack:
        data = stack.enter_context(directory())
        stores = stack.enter_context(services(data))
        launched = devchain.launch(data, keep=False)
        stack.callback(launched.stop)
        chain = launched.wait_ready()
        upstream = start_upstream(stack, data)
        key = asyncio.run(_prepare(stores, upstream.port))
        gateway = _gateway(stack, data, stores, chain, server)
        sellers = [
            Seller("tollway", policy, gateway.port, f"/publishers/{policy.replace('_', '-')}/x",
                   parse_address(chain.treasury), {"server": gateway.pid})
            for policy in POLICIES
        ]  # fmt: skip
        peers = _Peers(stack, data, chain, upstream, gateway, key)
        for sdk in sdks:
            sellers += peers.sellers(sdk)
        payers = asyncio.run(_payers(chain, wallets))
        shared = {"postgres": stores.postgres_pid, "valkey": stores.valkey_pid, "chain": launched.child.pid}
        yield PaidStack(data, stores, chain, upstream, gateway, sellers, payers, shared)


async def _prepare(stores: Services, upstream: int) -> str:
    """Fill the database: a publisher per policy, and an organization for the facilitator, whose key is returned."""
    await migrate(stores.database_url)
    connection = await connect(DatabaseSettings(url=stores.database_url))
    try:
        await store_assets(connection)
        world = World(connection, f"http://{HOST}:{upstream}/paid")
        for policy in POLICIES:
            shop = await world.publisher(PRICE, SEPOLIA_USDC, x402_settlement=policy, gateway_fee_percent="10")
            slug = policy.replace("_", "-")
            await connection.execute("UPDATE catalog.publisher SET slug = $2 WHERE id = $1", shop.id, slug)
        return (await world.agent()).key
    finally:
        await connection.close()


async def _payers(chain: Chain, number: int) -> Wallets:
    rpc = Rpc(chain.rpc_url, timeout=60)
    try:
        return await funded(rpc, chain.usdc, number)
    finally:
        await rpc.aclose()


def _gateway(stack: contextlib.ExitStack, data: Path, stores: Services, chain: Chain, server: str) -> Running:
    environment = {
        **gateway_environment(stores, complete=True, workers=1),
        **RAISED_LIMITS,  # payers show no key, and all come from one address
        **chain.environment(),
        "TOLLWAY_FACILITATOR_PER_MINUTE": "60000000",
        "TOLLWAY_PUBLIC_URL": "https://gateway.example",
    }
    gateway = start_gateway(stack, data, server, environment)
    until_answers(gateway.child, gateway.port, "/publishers/-/-", 404)
    return gateway


@dataclass
class _Peers:
    """Starts official servers and facilitators, each pair on a key and a payee of its own."""

    stack: contextlib.ExitStack
    data: Path
    chain: Chain
    upstream: Running
    gateway: Running
    key: str
    number: int = 0

    def sellers(self, sdk: str) -> Iterator[Seller]:
        """Start one SDK's server twice: with its own facilitator, and with ours."""
        facilitator = self._start(sdk, "facilitator", "/supported", 200, RPC=self.chain.rpc_url, SIGNER=self._signer())
        yield self._seller(sdk, "own facilitator", f"http://{HOST}:{facilitator.port}", facilitator.pid, "")
        ours = f"http://{HOST}:{self.gateway.port}/payments"
        yield self._seller(sdk, "our facilitator", ours, self.gateway.pid, self.key)

    def _signer(self) -> str:
        self.number += 1
        return self.chain.funded_keys[self.number]

    def _seller(self, sdk: str, way: str, facilitator: str, pid: int, key: str) -> Seller:
        self.number += 1
        payee = (PAYEES + self.number).to_bytes(20, "big")
        upstream = f"http://{HOST}:{self.upstream.port}"
        shop = self._start(
            sdk, "shop", "/x", 402, FACILITATOR=facilitator, KEY=key, PAYEE=show_address(payee), UPSTREAM=upstream
        )
        return Seller(sdk, way, shop.port, "/x", payee, {"server": shop.pid, "facilitator": pid})

    def _start(self, sdk: str, role: str, probe: str, status: int, **environment: str) -> Running:
        port = free_port()
        if sdk == "express":
            name = "express_shop" if role == "shop" else role
            text = (PEERS / f"{name}.mjs").read_text(encoding="utf-8")
            command: list[str | Path] = [shutil.which("node") or "node", "--input-type=module", "--eval", text]
            place = installed()
        else:
            module = "fastapi_shop" if role == "shop" else role
            command, place = [sys.executable, "-m", f"benchmarks.peers.{module}"], PEERS.parents[1]
        env = {**plain_environment(), **environment, "PORT": str(port), "NODE_ENV": "production"}
        started = start(self.stack, self.data, f"{sdk}-{role}-{port}", command, port, env, place)
        until_answers(started.child, port, probe, status)
        return started
