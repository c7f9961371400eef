"""Limits in a real Valkey cluster: exact over all nodes and workers, and a lost node takes its own slots with it only."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from gateway.errors import Unavailable
from gateway.limits.cluster import slot_of
from gateway.limits.limiter import Check, Policy, RateLimiter
from gateway.settings import LimitSettings, RedisSettings
from tests.support.gateway import start_gateway
from tests.support.services import Services
from tests.support.valkey_cluster import ValkeyCluster, until
from tests.support.world import World

POLICY = Policy("key", 10, 86_400)


@pytest.fixture(scope="module")
def cluster() -> Iterator[ValkeyCluster]:
    made = ValkeyCluster()
    yield made
    made.remove()


@asynccontextmanager
async def limiter(
    cluster: ValkeyCluster, when_unavailable: str = "local", url: str | None = None
) -> AsyncIterator[RateLimiter]:
    limits = LimitSettings.model_validate({"when_unavailable": when_unavailable})
    made = RateLimiter(RedisSettings(url=url or cluster.url, command_timeout=2), limits, workers=1)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


async def there(limits: RateLimiter, *, available: bool = True) -> None:
    async with asyncio.timeout(60):
        while limits.available != available:
            await asyncio.sleep(0.02)


def on_node(number: int, name: str = "agent") -> Check:
    """Return a check whose principal is counted by one of the three nodes."""
    for index in range(1_000):
        check = Check(f"{name}-{index}", POLICY)
        if slot_of(check.key) * 3 // 16_384 == number:
            return check
    raise AssertionError


def test_slots_are_the_servers(cluster: ValkeyCluster) -> None:
    keys = [b"", b"a", b"{}a", b"{a}b", b"a{b}c}d", b"a{b", b"{{a}}", b"}{a}", b"tw:{agent-1}:key", bytes(range(256))]
    for key in keys:
        assert cluster.nodes[0].command("CLUSTER", "KEYSLOT", key) == slot_of(key)  # type: ignore[arg-type]


async def test_many_principals_over_two_workers_are_counted_exactly_on_three_nodes(cluster: ValkeyCluster) -> None:
    checks = [Check(f"exact-{number}", POLICY) for number in range(60)]
    async with limiter(cluster) as one, limiter(cluster) as other:
        assert one.available
        assert other.available
        calls = [limits.check(check) for check in checks for limits in (one, other) for _ in range(8)]
        verdicts = await asyncio.gather(*calls)
        allowed = [sum(verdict.allowed for verdict in verdicts[start : start + 16]) for start in range(0, 960, 16)]
        assert allowed == [10] * 60
        assert one.stats.unavailable == other.stats.unavailable == 0
    counted = [node.command("DBSIZE") for node in cluster.nodes]
    assert min(counted) > 10


async def test_all_checks_of_a_principal_share_a_slot_and_of_several_are_decided_in_turn(
    cluster: ValkeyCluster,
) -> None:
    strict = Policy("strict", 1, 86_400)
    mine, theirs = on_node(0, "mine"), on_node(2, "theirs")
    async with limiter(cluster) as limits:
        assert (await limits.check(mine, Check(mine.principal, strict))).allowed
        refused = await limits.check(mine, Check(mine.principal, strict))
        assert (refused.allowed, refused.policy) == (False, strict)
        assert (await limits.check(mine)).remaining == 8, "the refused call consumed nothing"
        assert (await limits.check(theirs, Check(mine.principal, strict))) == refused
        both = await limits.check(mine, theirs)
        assert (both.allowed, both.remaining) == (True, 7)


async def test_one_known_address_is_enough(cluster: ValkeyCluster) -> None:
    dead = "redis+cluster://:cl%3Ast%2Fr%401@127.0.0.1:1"
    async with limiter(cluster, url=f"{dead},127.0.0.1:{cluster.nodes[1].port}") as limits:
        assert limits.available
        assert (await limits.check(on_node(0, "seeded"))).remaining == 9
    async with limiter(cluster, url=dead) as limits:
        assert not limits.available
        assert (await limits.check(on_node(0, "seeded"))).remaining == 9, "decided by this worker alone"


@pytest.mark.parametrize("how", ["kill", "freeze"])
async def test_a_lost_node_takes_its_own_slots_with_it_only_until_it_is_back(
    cluster: ValkeyCluster, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    gone, here = on_node(1, f"gone-{how}"), on_node(2, f"here-{how}")
    async with limiter(cluster, "deny") as limits:
        assert [(await limits.check(check)).remaining for check in (gone, here)] == [9, 9]
        getattr(cluster.nodes[1], how)()
        with pytest.raises(Unavailable):
            await limits.check(gone)
        assert not limits.available
        assert (await limits.check(here)).remaining == 8
        cluster.nodes[1].thaw() if how == "freeze" else cluster.nodes[1].start()
        await there(limits)
        assert (await limits.check(here)).remaining == 7
        assert (await limits.check(gone)).allowed
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(told) == 2
    assert "is away, policy 'deny' holds there" in told[0]
    assert "whole again, on 3 nodes" in told[1]


async def test_a_slot_that_moves_is_followed_and_keeps_its_count(cluster: ValkeyCluster) -> None:
    """Key by key, as resharding does: MIGRATING and IMPORTING (ASK), then the map (MOVED)."""
    check, source, target = on_node(0, "moving"), cluster.nodes[0], cluster.nodes[1]
    slot = slot_of(check.key)
    names = [node.command("CLUSTER", "MYID").decode() for node in (source, target)]
    async with limiter(cluster, "deny") as limits:
        assert (await limits.check(check)).remaining == 9
        target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", names[0])
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", names[1])
        assert (await limits.check(check)).remaining == 8, "it is still where it was"
        moved = source.command("MIGRATE", "127.0.0.1", target.port, check.key.decode(), 0, 5_000, "AUTH", "cl:st/r@1")
        assert moved == b"OK"
        assert (await limits.check(check)).remaining == 7, "ASK"
        for node in (target, source):
            node.command("CLUSTER", "SETSLOT", slot, "NODE", names[1])
        assert (await limits.check(check)).remaining == 6, "MOVED"
        assert (await limits.check(check)).remaining == 5
        assert limits.stats.unavailable == 0


async def test_a_replica_takes_over_and_limits_hold_again() -> None:
    cluster = await asyncio.to_thread(ValkeyCluster, replicas=1, full_coverage=True)
    try:
        check = on_node(0)
        async with limiter(cluster, "deny") as limits:
            for left in (9, 8, 7):
                assert (await limits.check(check)).remaining == left
            await asyncio.to_thread(until, lambda: cluster.nodes[3].command("DBSIZE") == 1)
            cluster.nodes[0].kill()
            with pytest.raises(Unavailable):
                await limits.check(check)
            await there(limits)
            verdict = await limits.check(check)
            assert verdict.allowed
            assert verdict.remaining in (6, 7)  # replication may lose the last count, and no more
            assert limits.available
            # The old one comes back as a replica and has nothing to say.
            await asyncio.to_thread(cluster.nodes[0].start)
            assert (await limits.check(check)).remaining == verdict.remaining - 1
    finally:
        await asyncio.to_thread(cluster.remove)


async def test_a_gateway_limits_by_a_cluster_and_says_when_a_part_is_away(
    services: Services, cluster: ValkeyCluster, database_url: str, world: World
) -> None:
    gateway = await start_gateway(services, database_url, REDIS_URL=cluster.url, LIMITS_PER_KEY="3")
    try:
        agents = [await world.agent() for _ in range(12)]
        shop = await world.publisher(0)
        path = f"/publishers/{shop.slug}/x"
        async with asyncio.timeout(60):
            while (await gateway.client.get(path)).status_code == 404:
                await asyncio.sleep(0.02)
        for agent in agents:
            answers = [(await gateway.client.get(path, headers=agent.headers)) for _ in range(4)]
            assert [answer.status_code for answer in answers[1:]] == [answers[0].status_code] * 2 + [429]
            assert answers[3].headers["retry-after"]
        assert (await gateway.client.get("/health/ready")).status_code == 200
        cluster.nodes[2].kill()
        refused = [(await gateway.client.get(path, headers=agent.headers)).status_code == 429 for agent in agents]
        assert any(refused), "who is counted elsewhere is still limited"
        assert not all(refused), "whose count is gone has this worker's share"
        ready = await gateway.client.get("/health/ready")
        assert ready.status_code == 503
        await asyncio.to_thread(cluster.nodes[2].start)
        async with asyncio.timeout(60):
            while (await gateway.client.get("/health/ready")).status_code != 200:
                await asyncio.sleep(0.05)
    finally:
        await gateway.stop()
