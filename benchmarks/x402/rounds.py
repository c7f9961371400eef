"""One round of one seller: load it for a while with payments signed just before, then wait until all are settled.

What a call costs includes its settlement, whenever that happens: CPU is taken around both. `rate` is what callers see,
`settled_rate` what can go on for ever.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.plain_http import HOST, get
from benchmarks.processes import cpu_seconds
from benchmarks.stack import ROOT
from benchmarks.x402.payers import asked_by
from benchmarks.x402.stack import PRICE, PaidStack, Seller
from gateway.database.pool import Connection
from gateway.payments.evm.encoding import parse_address
from gateway.payments.evm.node import Node

LUA = Path(__file__).with_name("load.lua")
QUIET_SECONDS = 1.5
DRAIN_SECONDS = 240.0
OPEN = """
    SELECT count(*) FROM chain.payment WHERE state IN ('reserved', 'pending', 'broadcast', 'unknown')
"""


@dataclass(frozen=True, slots=True)
class Blocks:
    """How the chain makes blocks: at once with every transaction (`seconds` 0), or by the clock."""

    seconds: int

    @property
    def name(self) -> str:
        """Return how the tables call it."""
        return f"{self.seconds} s blocks" if self.seconds else "instant blocks"

    async def begin(self, node: Node) -> None:
        """Have the chain make them."""
        await node.rpc.call("anvil_setIntervalMining", self.seconds)  # first: 0 ends mining of any kind
        await node.rpc.call("evm_setAutomine", self.seconds == 0)


@dataclass(frozen=True, slots=True)
class PaidRound:
    """One measurement. `settled` payments reached their payee, the last one `drained` seconds after the load ended.

    CPU figures are microseconds per call of a process tree, settlement included.
    """

    calls: int
    seconds: float
    p50_ms: float
    p99_ms: float
    bad_status: int
    socket_errors: int
    exhausted: bool
    settled: int
    served: int
    drained: float
    cpu_us: dict[str, float]

    @property
    def rate(self) -> float:
        """Return answered calls per second."""
        return self.calls / self.seconds

    @property
    def settled_rate(self) -> float:
        """Return settled payments per second, until the last one was."""
        return self.settled / (self.seconds + self.drained)


@dataclass(slots=True)
class PaidRow:
    """A seller under one kind of blocks, with its rounds."""

    seller: Seller
    blocks: Blocks
    connections: int
    rounds: list[PaidRound] = field(default_factory=list)
    warm_ups: list[PaidRound] = field(default_factory=list)

    @property
    def valid(self) -> bool:
        """Say whether the figures mean what they say."""
        return bool(self.rounds) and not any(self.complaint(one) for one in self.rounds)

    def complaint(self, one: PaidRound) -> str:
        """Return what is wrong with a round: an answer that is not 200 or not paid. What was cut off may be paid."""
        paid = 0 < one.calls <= one.settled <= one.calls + self.connections
        if paid and not (one.bad_status or one.socket_errors or one.exhausted):
            return ""
        return (
            f"  INVALID: {one.calls} calls, {one.settled} settled, {one.bad_status} refused, {one.socket_errors} socket"
            f" errors{', out of payments' if one.exhausted else ''}"
        )

    def middle(self, name: str) -> float:
        """Return the median of a figure over the rounds."""
        return median(getattr(one, name) for one in self.rounds)

    def cpu(self, who: str) -> float:
        """Return the median CPU per call of one process tree."""
        return median(one.cpu_us.get(who, 0.0) for one in self.rounds)

    def ratio(self, base: PaidRow) -> float:
        """Return the median of this row's rate over the base's better one, round by round: drift cancels out.

        Of slow servers many calls are cut off when the load ends; their settled rate counts those.
        """
        better = [max(one.rate, one.settled_rate) for one in base.rounds]
        return median(mine.rate / other for mine, other in zip(self.rounds, better, strict=False) if other)


class Meter:
    """Measures rounds on one stack. Not for concurrent use."""

    def __init__(self, stack: PaidStack, node: Node, connection: Connection) -> None:
        self._stack = stack
        self._node = node
        self._connection = connection
        self._payments = stack.directory / "payments"

    async def measure(self, row: PaidRow, seconds: int, number: int) -> PaidRound:
        """Run one round with at most `number` payments."""
        seller, stack = row.seller, self._stack
        stack.wallets.sign(asked_by(seller.port, seller.target), number, self._payments)
        roots = {**stack.processes, **seller.processes}
        paid, served = await self._paid(seller), self._served()
        before = {name: cpu_seconds([pid]) for name, pid in roots.items()}
        found = await asyncio.to_thread(load, seller.port, seller.target, self._payments, row.connections, seconds)
        drained = await self._drained(seller, row.blocks)
        after = {name: cpu_seconds([pid]) for name, pid in roots.items()}
        calls = int(found["requests"])
        return PaidRound(
            calls, found["seconds"], found["p50_ms"], found["p99_ms"], int(found["bad_status"]),
            int(found["socket_errors"]), bool(found["exhausted"]),
            (await self._paid(seller) - paid) // PRICE, self._served() - served, drained,
            {name: round((after[name] - before[name]) * 1e6 / max(calls, 1), 1) for name in roots},
        )  # fmt: skip

    def capacity(self, connections: int, seconds: int) -> dict[str, Any]:
        """Return what the generator can do: the payments of the last round at the upstream itself, again and again."""
        return load(self._stack.upstream.port, "/bare/x", self._payments, connections, seconds, again=True)

    async def _drained(self, seller: Seller, blocks: Blocks) -> float:
        """Wait until nothing is on its way any more; returns after how many seconds the last payment was settled."""
        began = changed = time.monotonic()
        last = await self._paid(seller)
        while True:
            now = time.monotonic()
            paid = await self._paid(seller)
            if paid != last:
                last, changed = paid, now
            elif now - changed > QUIET_SECONDS + blocks.seconds and not await self._on_the_way():
                return changed - began
            if now - began > DRAIN_SECONDS:
                raise RuntimeError(f"{seller.name}: payments are still open after {DRAIN_SECONDS:.0f} s")
            await asyncio.sleep(0.2)

    async def _on_the_way(self) -> bool:
        pool: Any = await self._node.rpc.call("txpool_status")
        return bool(int(pool["pending"], 16) or int(pool["queued"], 16) or await self._connection.fetchval(OPEN))

    async def _paid(self, seller: Seller) -> int:
        return await self._node.token_balance(parse_address(self._stack.chain.usdc), seller.payee)

    def _served(self) -> int:
        return int(json.loads(get(self._stack.upstream.port, "/counts")[1])["paid"])


def load(
    port: int, target: str, payments: Path, connections: int, seconds: int, *, again: bool = False
) -> dict[str, Any]:
    """Load a server by wrk and return the summary. Raises RuntimeError with what wrk said instead of one."""
    command = [
        "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s", "-s", str(LUA),
        f"http://{HOST}:{port}", "--", target, str(payments), "again" if again else "once",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        if line.startswith("SUMMARY "):
            return json.loads(line.removeprefix("SUMMARY "))
    raise RuntimeError(f"wrk gave no summary: {done.stdout[-500:]}{done.stderr[-500:]}")
