"""Limits in a Valkey or Redis cluster: which node has a call's slot, and a lane for each node.

Keys are tagged by principal, so what is counted for one principal shares a slot. A script may touch one slot only:
what waits for a node goes as one script call per slot, all of them in one flight. A node that is lost takes its own
slots with it and nobody else's: they are decided without it until it is back or a replica has taken over, which a
watcher finds out by reading the map again, every second while something is missing.

- MOVED: the map is old. The call goes on to the node that was named, and the map is read again.
- ASK: the slot is being moved and the key is there already: that node is asked, the map stays.
- CLUSTERDOWN, READONLY, LOADING and what else a node may say: it cannot count, which is like being away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from binascii import crc_hqx
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, cast

from gateway.limits.gcra import Call, command, decide, microseconds, verdicts
from gateway.limits.lane import PROBE_POLICY, PROBE_SECONDS, Lane, Stats, Waiting, Without
from gateway.limits.policy import Check, Verdict
from gateway.limits.valkey import Address, Valkey, ValkeyRefused, ValkeyUnavailable, parse_nodes
from gateway.settings import RedisSettings

log = logging.getLogger(__name__)
SLOTS = 16_384
MAX_MOVES = 4  # nodes that name each other know less than we need
Range = tuple[int, int, Address]  # first slot, last slot, the node that has them


def slot_of(key: bytes) -> int:
    """Return a key's slot: of its tag, the first thing in braces, if there is one."""
    start = key.find(b"{")
    end = key.find(b"}", start + 1)
    tag = key[start + 1 : end] if 0 <= start < end - 1 else key
    return crc_hqx(tag, 0) % SLOTS


def by_slot(call: Call) -> list[Call]:
    """Split a call whose checks are of several principals; of one principal it stays whole."""
    if len(call.checks) == 1:
        return [call]
    parts: dict[int, list[int]] = {}
    for index, check in enumerate(call.checks):
        parts.setdefault(slot_of(check.key), []).append(index)
    if len(parts) == 1:
        return [call]
    return [
        call._replace(checks=[call.checks[n] for n in part], wants=[call.wants[n] for n in part if call.wants])
        for part in parts.values()
    ]


class Cluster:
    """The map and the nodes. Before `start` all of them count as away."""

    def __init__(self, settings: RedisSettings, stats: Stats, without: Without) -> None:
        self._settings = settings
        self._stats = stats
        self._without = without
        self._seeds = parse_nodes(settings.url)
        self._nodes: dict[Address, Node] = {}
        self._slots: list[Node | None] = [None] * SLOTS
        self._watcher: asyncio.Task[None] | None = None
        self._outdated = False
        self._whole = False
        self._told = False

    @property
    def available(self) -> bool:
        """Say whether every slot is counted by a node that is there."""
        return self._whole and all(node.available for node in self._nodes.values())

    async def start(self) -> None:
        """Read the map and look for its nodes once. What is missing is logged, and looked for from now on."""
        await self._look()
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Decide what still waits without the nodes and close the connections."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait([self._watcher])
            self._watcher = None
        self._slots = [None] * SLOTS
        for node in self._nodes.values():
            await node.stop()
        self._nodes = {}

    async def check(self, call: Call) -> Verdict:
        """Decide one call. One of several principals is decided in turn, until one of them is refused."""
        verdict: Verdict | None = None
        for part in by_slot(call):
            node = self._slots[slot_of(part.checks[0].key)]
            found = self._without.decide(part) if node is None else await node.check(part)
            if verdict is None or not found.allowed or found.remaining < verdict.remaining:
                verdict = found
            if not found.allowed:
                break
        assert verdict is not None, "a call has at least one check"
        return verdict

    def post(self, call: Call) -> None:
        """Send a call of one check that nobody waits for. It is dropped when its node is away."""
        node = self._slots[slot_of(call.checks[0].key)]
        if node is not None:
            node.post(call)

    def moved(self, slot: int, to: Address) -> Node:
        """Note that a slot is elsewhere, and return its node."""
        self._outdated = True
        node = self._slots[slot] = self.node(to)
        return node

    def node(self, address: Address) -> Node:
        """Return a node that is known, or one that counts as there until it proves otherwise."""
        found = self._nodes.get(address)
        if found is None:
            found = self._nodes[address] = Node(self, Valkey(self._settings, address), self._stats, self._without)
        return found

    def missing(self, what: str, error: Exception) -> None:
        """Tell, once until all is well again, that something cannot be counted."""
        if not self._told:
            log.warning("rate limits: %s is away, policy %r holds there: %s", what, self._without.name, error)
        self._told = True

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(PROBE_SECONDS)
            if self._outdated or not self.available:
                await self._look()

    async def _look(self) -> None:
        """Read the map, and try every node that is away."""
        try:
            await self._read()
        except ValkeyUnavailable as error:
            self.missing("the Valkey cluster", error)
        away = [node for node in self._nodes.values() if not node.available]
        await asyncio.gather(*(node.look() for node in away))
        if self._told and self.available:
            self._told = False
            log.warning("rate limits: the Valkey cluster is whole again, on %d nodes", len(self._nodes))

    async def _read(self) -> None:
        """Ask one node after the other for the map, those first that are there. Raises ValkeyUnavailable."""
        known = sorted(self._nodes, key=lambda address: not self._nodes[address].available)
        reason = "no address is known"
        for address in dict.fromkeys([*known, *self._seeds]):
            own = self._nodes.get(address)
            valkey = own.valkey if own is not None else Valkey(self._settings, address)
            try:
                await valkey.connect()
                ranges = ranges_of(await valkey.execute(b"CLUSTER", b"SLOTS"), address)
            except (ValkeyUnavailable, ValkeyRefused) as error:
                reason = str(error)
                continue
            finally:
                if own is None:
                    await valkey.close()
            await self._adopt(ranges)
            return
        raise ValkeyUnavailable(reason)

    async def _adopt(self, ranges: Sequence[Range]) -> None:
        """Take a map over, and leave the nodes that have no slots any more."""
        slots: list[Node | None] = [None] * SLOTS
        for first, last, address in ranges:
            slots[first : last + 1] = [self.node(address)] * (last + 1 - first)
        for address, node in self._nodes.items():
            node.slots = [(first, last) for first, last, of in ranges if of == address]
        self._slots, self._outdated = slots, False
        self._whole = all(node is not None for node in slots)
        if not self._whole:
            self.missing("a part of the Valkey cluster", ValkeyUnavailable("no node has its slots"))
        for address in [address for address, node in self._nodes.items() if not node.slots]:
            await self._nodes.pop(address).stop()


class Node(Lane):
    """A node's lane. It looks for its server when the cluster tells it to."""

    def __init__(self, cluster: Cluster, valkey: Valkey, stats: Stats, without: Without) -> None:
        super().__init__(valkey, stats, without)
        self._cluster = cluster
        self._available = True
        self.slots: list[tuple[int, int]] = []

    async def look(self) -> None:
        """Find out whether the server counts again."""
        with contextlib.suppress(ValkeyUnavailable, ValkeyRefused):
            await self.probe()
            self._available = True

    async def _send(self, batch: list[Waiting]) -> None:
        groups: dict[int, list[Waiting]] = {}
        for item in batch:
            groups.setdefault(slot_of(item.call.checks[0].key), []).append(item)
        calls = [[item.call for item in group] for group in groups.values()]
        sent = microseconds()
        try:
            replies = await self.valkey.send([command(some) for some in calls])
        except ValkeyUnavailable as error:
            self._lost(error, batch)
            return
        try:
            for (slot, group), some, reply in zip(groups.items(), calls, replies, strict=True):
                await self._settle(slot, group, self._answer(some, reply, sent))
        finally:
            for reply in replies:
                reply.cancel()

    async def _settle(self, slot: int, group: list[Waiting], answer: Awaitable[list[Verdict]]) -> None:
        try:
            self._resolve(group, await answer)
        except ValkeyUnavailable as error:
            self._lost(error, group)
        except ValkeyRefused as refusal:
            if refusal.code == "MOVED":
                self._send_on(slot, group, self._named(refusal))
            elif refusal.code == "ASK":
                await self._ask(group, self._named(refusal))
            elif refusal.code == "TRYAGAIN":  # one of its keys is being moved just now
                self._decide_alone(group)
            else:
                self._lost(refusal, group)

    async def _answer(self, calls: Sequence[Call], reply: asyncio.Future[object], sent: int) -> list[Verdict]:
        try:
            return verdicts(calls, await reply, sent)
        except ValkeyRefused as refusal:
            if refusal.code != "NOSCRIPT":
                raise
        return await decide(self.valkey, calls)

    def _send_on(self, slot: int, group: list[Waiting], to: Address) -> None:
        node = self._cluster.moved(slot, to)
        for item in group:
            item.moves += 1
        if group[0].moves > MAX_MOVES:
            self._decide_alone(group)
        else:
            node.take(group)

    async def _ask(self, group: list[Waiting], to: Address) -> None:
        calls = [item.call for item in group]
        try:
            self._resolve(group, await decide(self._cluster.node(to).valkey, calls, asking=True))
        except (ValkeyUnavailable, ValkeyRefused):
            self._decide_alone(group)

    def _named(self, refusal: ValkeyRefused) -> Address:
        """Return the node that MOVED or ASK names: "MOVED 3999 127.0.0.1:6381", without a host on the same one."""
        host, _, port = str(refusal).split(" ")[2].rpartition(":")
        own = self.valkey.address
        return replace(own, host=host or own.host, port=int(port))

    def _went_away(self, error: Exception) -> None:
        self._available = False
        self._cluster.missing(f"Valkey at {self.valkey.address}", error)

    def _probed(self) -> str:
        """Return a principal that this node counts."""
        for number in count():
            name = f"probe-{number}"
            slot = slot_of(Check(name, PROBE_POLICY).key)
            if not self.slots or any(first <= slot <= last for first, last in self.slots):
                return name
        raise AssertionError


def ranges_of(reply: object, asked: Address) -> list[Range]:
    """Read the answer to CLUSTER SLOTS. A node without an address of its own is where we asked."""
    try:
        return [
            (int(first), int(last), replace(asked, host=_host(master[0]) or asked.host, port=int(master[1])))
            for first, last, master, *_ in cast("list[list[Any]]", reply)
        ]
    except (TypeError, ValueError, IndexError):
        raise ValkeyUnavailable("it answered something else than a map of its cluster") from None


def _host(given: bytes | None) -> str:
    return "" if given is None or given == b"?" else given.decode()
