"""The relayer: one worker per network and key sends what waits and follows it until it is final.

Every worker runs one; a PostgreSQL advisory lock, held by the connection that all writes go over, lets one of them
lead. When it dies the lock is free at once and another goes on from what the database says: nothing that matters is in
memory. A round does, in this order: follow forks, see what was mined, send what is new, keep the rest alive, look at
what is overdue. A node that does not answer ends the round; the next one tries again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from gateway.database.pool import LOST, Connection, Held
from gateway.database.statement import Statement
from gateway.payments.evm.encoding import show_address
from gateway.payments.evm.fees import RelayPolicy
from gateway.payments.evm.instructions import Contracts
from gateway.payments.evm.keystore import Signer
from gateway.payments.evm.node import Block, Node
from gateway.payments.evm.outbox import (
    BUSY,
    COUNTS,
    DEPOSE,
    LEAD,
    RELAY_CHANNEL,
    SENDINGS,
    SILENT,
    URGENT,
)
from gateway.payments.evm.payouts import Payouts
from gateway.payments.evm.repayments import Repayments
from gateway.payments.evm.rpc import NoAnswer, RpcError
from gateway.payments.evm.sender import Sender
from gateway.payments.evm.watcher import Watcher
from gateway.settings import DatabaseSettings

log = logging.getLogger(__name__)

TRY_LOCK = Statement("SELECT pg_try_advisory_lock($1)", bool, scalar=True)
GAUGE_SECONDS = 3.0
KEEP_ALIVE_SECONDS = 1.0
FIRST_PAUSE = 0.005


@dataclass(slots=True)
class RelayState:
    """What a relayer says of itself. `balance` is the key's gas money in wei; None where it is not known (any more).

    `open_payments` counts by state. `trouble` is why the last round did not end, empty when it did.
    """

    leading: bool = False
    balance: int | None = None
    open_payments: dict[str, int] = field(default_factory=dict[str, int])
    trouble: str = ""


class Relayer:
    """One network's relayer of one worker. `run` until cancelled; `wake` when there may be work."""

    def __init__(
        self,
        settings: DatabaseSettings,
        network: str,
        node: Node,
        signer: Signer,
        contracts: Contracts,
        policy: RelayPolicy,
    ) -> None:
        chain_id = int(network.removeprefix("eip155:"))
        self.network = network
        self.address = signer.address
        self.state = RelayState()
        self._chain_id = chain_id
        self._node = node
        self._policy = policy
        self._repayments = Repayments(network, node, signer.address, policy)
        self._payouts = Payouts(network, node, signer.address, policy)
        self._sender = Sender(network, chain_id, node, signer, contracts, policy, self._repayments, self._payouts)
        self._watcher = Watcher(network, node, signer.address, contracts, policy)
        self._held = Held(settings.direct, self._listen)
        self._lock = _lock_number(network, signer.address)
        self._woken = asyncio.Event()
        self._checked_chain = False
        self._seen: bytes = b""
        self._pause = policy.poll_seconds
        self._urgent = False
        self._due: dict[str, float] = {}

    @property
    def held_up(self) -> str:
        """Return why payments wait, in words; empty while they do not."""
        return self.state.trouble or self._sender.waits_because

    def wake(self) -> None:
        """Look for work now."""
        self._woken.set()

    async def run(self) -> None:
        """Run rounds until cancelled, then give the lock back."""
        try:
            while True:
                self._woken.clear()
                pause = await self._round()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), pause)
        finally:
            self.state = RelayState()
            await self._held.close()

    async def _round(self) -> float:
        """Do one round and return how long to wait for the next."""
        try:
            connection = await self._held.get()
            if not await self._lead(connection):
                return self._policy.idle_seconds
            busy = await self._work(connection)
            self._note("")
        except LOST as error:  # the lock went with the connection
            self._held.drop()
            self.state = RelayState()
            self._note(f"the database is away ({type(error).__name__})")
            return self._policy.idle_seconds
        except RpcError as error:
            self._checked_chain = False  # whatever answers next may be another node
            self._note(str(error))
            await self._silent()
            return self._policy.idle_seconds
        except Exception:
            log.exception("a round of the relayer on %s failed", self.network)
            return self._policy.idle_seconds
        if not busy:
            return self._policy.idle_seconds
        self._pause = min(2 * self._pause, self._policy.poll_seconds)
        return self._pause

    async def _lead(self, connection: Connection) -> bool:
        """Say whether this relayer leads; become the leader when the place is free, or held by one that hangs."""
        if not self.state.leading:
            self.state.leading = await TRY_LOCK.one(connection, self._lock)
            if self.state.leading:
                log.info("relaying on %s for %s", self.network, show_address(self.address))
                self._due.clear()
        lease_seconds = self._policy.lease_seconds
        if self.state.leading and self._is_due("lease", self._policy.beat_seconds):
            await LEAD.run(connection, self.network, self.address)
        elif not self.state.leading and self._is_due("depose", self._policy.beat_seconds):
            sender, lease = self.address, timedelta(seconds=lease_seconds)
            if await DEPOSE.one(connection, self.network, sender, self._lock, lease):
                log.error("the relayer on %s was silent for %.0f s and is deposed", self.network, lease_seconds)
        return self.state.leading

    async def _work(self, connection: Connection) -> bool:
        if self._is_due("gauges", GAUGE_SECONDS):
            counts = await COUNTS.all(connection, self.network)
            self.state.open_payments = {counted.state: counted.number for counted in counts}
            self.state.balance = await self._node.balance(self.address)
        if not self._urgent and not await BUSY.one(connection, self.network, self.address):
            self._sender.waits_because = ""
            return False
        if not await self._right_chain():
            return True
        head = await self._node.head()
        if head.hash != self._seen:
            await self._follow(connection, head)
            self._seen = head.hash
        sent = await self._send(connection, head)
        if self._is_due("due", self._policy.check_seconds):
            await self._watcher.check_due(connection, head)
            await self._mark_silent(connection)
        self._urgent = sent or await URGENT.one(connection, self.network, self.address)
        return self._urgent

    async def _send(self, connection: Connection, head: Block) -> bool:
        """Send what is new, and say whether anything was; keep the rest alive."""
        sendings = await SENDINGS.all(connection, self.network, self.address)
        sent = self._sender.sent
        refused = await self._sender.send_new(connection, head, len(sendings))
        if self._sender.sent > sent:  # its block may come at once; from then on look less and less often
            self._pause = FIRST_PAUSE
        for one in refused:
            await self._watcher.investigate(connection, head, one.payment, one.error)
        if self._is_due("keep_alive", KEEP_ALIVE_SECONDS):
            await self._sender.keep_alive(connection, head, sendings)
        return self._sender.sent > sent

    async def _follow(self, connection: Connection, head: Block) -> None:
        """See what a new block brought, and what an old one no longer holds."""
        forked = await self._watcher.follow_forks(connection, head)
        sendings = await SENDINGS.all(connection, self.network, self.address)
        if forked:
            await self._sender.rebroadcast(connection, sendings)
        await self._watcher.look(connection, head, sendings)
        await self._repayments.follow(connection, head)
        await self._payouts.follow(connection, head)

    async def _right_chain(self) -> bool:
        if not self._checked_chain:
            served = await self._node.chain_id()
            if served != self._chain_id:
                raise NoAnswer(f"the node of {self.network} serves chain {served}: nothing is sent there")
            self._checked_chain = True
        return True

    async def _silent(self) -> None:
        """The node says nothing: payments that wait too long for it become `unknown`, for all to see."""
        with contextlib.suppress(*LOST):
            await self._mark_silent(await self._held.get())

    async def _mark_silent(self, connection: Connection) -> None:
        number = await SILENT.one(connection, self.network, timedelta(seconds=self._policy.unknown_seconds))
        if number:
            log.error("%d payments on %s are unknown: the chain has not answered for them", number, self.network)

    def _is_due(self, what: str, seconds: float) -> bool:
        now = time.monotonic()
        if now < self._due.get(what, 0.0):
            return False
        self._due[what] = now + seconds
        return True

    def _note(self, trouble: str) -> None:
        """Log a trouble once when it begins and once when it ends."""
        if trouble and not self.state.trouble:
            log.warning("the relayer on %s is held up: %s", self.network, trouble)
        elif self.state.trouble and not trouble:
            log.info("the relayer on %s goes on", self.network)
        self.state.trouble = trouble

    async def _listen(self, connection: Connection) -> None:
        def told(_connection: Connection, _pid: int, _channel: str, payload: str) -> None:
            if payload == self.network:
                self.wake()

        listener: Callable[..., None] = told
        await connection.add_listener(RELAY_CHANNEL, listener)


def _lock_number(network: str, address: bytes) -> int:
    """Return the advisory lock's number: a signed 64-bit hash of network and key."""
    digest = hashlib.sha256(b"tollway relayer " + network.encode() + address).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
