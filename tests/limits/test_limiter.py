"""The door: exact under concurrency, batched, and never stuck when Valkey stops, hangs or was never there."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from gateway.errors import Unavailable
from gateway.limits.limiter import Check, Policy, RateLimiter, Verdict
from gateway.limits.valkey import Valkey
from gateway.settings import LimitSettings, RedisSettings

NOWHERE = RedisSettings(url="redis://127.0.0.1:1/0")


@asynccontextmanager
async def limiter(
    redis: RedisSettings, when_unavailable: str = "local", workers: int = 1
) -> AsyncIterator[RateLimiter]:
    limits = LimitSettings.model_validate({"when_unavailable": when_unavailable})
    limiter = RateLimiter(redis, limits, workers=workers)
    await limiter.start()
    try:
        yield limiter
    finally:
        await limiter.stop()


async def many(limiter: RateLimiter, check: Check, times: int) -> list[Verdict]:
    return await asyncio.gather(*(limiter.check(check) for _ in range(times)))


def at_once(checking: Coroutine[Any, Any, Verdict]) -> Verdict:
    """Return the verdict of a check that waits for nobody."""
    try:
        checking.send(None)
    except StopIteration as decided:
        return decided.value
    checking.close()
    raise AssertionError("it waits")


def lines(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("gateway.limits.")]


async def until(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        await asyncio.sleep(0.02)


async def test_200_concurrent_checks_over_a_limit_of_37_allow_exactly_37(server, principal: str) -> None:
    async with limiter(server.settings()) as one, limiter(server.settings()) as other:
        check = Check(principal, Policy("key", 37, 3_600))
        halves = await asyncio.gather(many(one, check, 100), many(other, check, 100))
        assert sum(verdict.allowed for half in halves for verdict in half) == 37
        assert one.stats.calls == 100
        assert one.stats.refused + other.stats.refused == 163
        assert one.stats.unavailable == 0


async def decided(limiter: RateLimiter, *checks: Check) -> Verdict:
    """Decide a call as the proxy does."""
    return limiter.spend(checks) or await limiter.lease(checks)


async def until_refused(limiter: RateLimiter, *checks: Check) -> int:
    """Call until Valkey refuses, and return how many calls passed."""
    for passed in range(1_000_000):
        if not (await decided(limiter, *checks)).allowed:
            return passed
        if passed % 7 == 0:
            await asyncio.sleep(0)
    raise AssertionError("never refused")


@pytest.mark.parametrize("limit", [10, 400])
async def test_two_workers_with_leases_admit_exactly_the_limit(server, principal: str, limit: int) -> None:
    async with limiter(server.settings()) as one, limiter(server.settings()) as other:
        check = Check(principal, Policy("key", limit, 36_000))
        calls = [until_refused(one, check) for _ in range(3)] + [until_refused(other, check) for _ in range(3)]
        assert sum(await asyncio.gather(*calls)) == limit
        assert (one.stats.leased + other.stats.leased > 0) == (limit == 400)
        assert one.stats.unavailable + other.stats.unavailable == 0


async def test_a_busy_key_is_admitted_from_leases_at_once(server, principal: str) -> None:
    async with limiter(server.settings()) as limits:
        check = Check(principal, Policy("key", 60_000, 60))
        for _ in range(2_000):
            assert (await decided(limits, check)).allowed
        assert limits.stats.calls == 2_000
        assert limits.stats.leased > 1_000
        verdict = limits.spend([check])
        if verdict is not None:  # else the machine stood still for a second
            assert 57_000 < verdict.remaining < 60_000
            assert (verdict.allowed, verdict.policy, verdict.retry_after) == (True, check.policy, 0)


async def test_a_first_call_asks_and_says_what_check_would(server, principal: str) -> None:
    async with limiter(server.settings()) as limits:
        check = Check(principal, Policy("key", 600, 60))
        assert limits.spend([check]) is None
        assert await limits.lease([check]) == Verdict(True, check.policy, 599, 0, 1)


async def test_leases_of_several_limits_are_spent_together_or_not_at_all(server, principal: str) -> None:
    """The narrow limit refuses, and the wide one has lost nothing by it."""
    async with limiter(server.settings()) as limits:
        wide, narrow = Check(principal, Policy("wide", 2_000, 36_000)), Check(principal, Policy("narrow", 300, 36_000))
        assert await until_refused(limits, wide, narrow) == 300
        verdict = await decided(limits, wide, narrow)
        assert (verdict.allowed, verdict.policy) == (False, narrow.policy)
        assert await until_refused(limits, wide) == 1_700


async def test_a_cancelled_call_leaves_leases_whole(server, principal: str) -> None:
    async with limiter(server.settings(command_timeout=3_600)) as limits:
        wide, other = Check(principal, Policy("wide", 1_000, 36_000)), Check(principal, Policy("other", 1_000, 36_000))
        for _ in range(12):
            await decided(limits, wide)
        server.freeze()
        try:
            waiting = asyncio.create_task(limits.lease([wide, other]))
            await asyncio.sleep(0.05)
            waiting.cancel()
            await asyncio.wait([waiting])
        finally:
            server.thaw()
        assert 1_000 - 12 - 1 <= await until_refused(limits, wide) <= 1_000 - 12


async def test_leases_end_where_valkey_does_not_answer_and_then_the_policy_holds(server, principal: str) -> None:
    async with limiter(server.settings(command_timeout=0.3)) as limits:
        check = Check(principal, Policy("key", 60_000, 60))
        for _ in range(100):
            await decided(limits, check)
        server.freeze()
        try:
            # What is leased is spent, then calls wait for the timeout once, and the share of this worker holds.
            while limits.available:
                assert (await asyncio.wait_for(decided(limits, check), 60)).allowed
            assert all([(await decided(limits, check)).allowed for _ in range(2_000)])
        finally:
            server.thaw()
        await until(lambda: limits.available)
        assert limits.stats.unavailable > 0


async def test_concurrent_checks_share_a_round_trip(server, principal: str, policy: Policy) -> None:
    async with limiter(server.settings()) as limits:
        await many(limits, Check(principal, policy), 1_000)
        assert limits.stats.batches == 2  # 512 + 488


async def test_verdict_of_a_lone_call_and_after_its_retry_after(server, principal: str) -> None:
    """EX-37 through the door, in real time."""
    check = Check(principal, Policy("key", 2, 6))
    async with limiter(server.settings()) as limits:
        assert await limits.check(check) == Verdict(True, check.policy, 1, 0, 3)
        assert (await limits.check(check)).remaining == 0
        refused = await limits.check(check)
        assert not refused.allowed
        assert 1 <= refused.retry_after <= 3  # moments may lie between two calls
        assert refused.retry_after < refused.reset_after <= 6
        await asyncio.sleep(refused.retry_after)
        assert (await limits.check(check)).allowed


async def test_what_can_never_pass_is_refused_to_its_caller_only(server, principal: str, policy: Policy) -> None:
    async with limiter(server.settings()) as limits:
        wrong = [
            limits.check(),
            limits.check(Check(principal, policy, cost=61)),
            limits.check(Check(principal, policy, cost=-1)),
            limits.check(*[Check(principal, policy)] * 9),
        ]
        good, *failures = await asyncio.gather(limits.check(Check(principal, policy)), *wrong, return_exceptions=True)
        assert isinstance(good, Verdict)
        assert all(isinstance(failure, ValueError) for failure in failures)


def test_a_principal_that_cannot_be_encoded_fails_before_it_joins_a_batch(policy: Policy) -> None:
    with pytest.raises(UnicodeEncodeError):
        Check("\ud800", policy)


async def test_a_cancelled_caller_leaves_the_others_their_verdicts(server, principal: str, policy: Policy) -> None:
    async with limiter(server.settings()) as limits:
        tasks = [asyncio.create_task(limits.check(Check(principal, policy))) for _ in range(10)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        verdicts = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(verdicts[0], asyncio.CancelledError)
        assert [verdict.allowed for verdict in verdicts[1:]] == [True] * 9


@pytest.mark.parametrize(("policy_name", "allowed"), [("local", 10), ("allow", 50)])
async def test_never_up_the_configured_policy_holds_from_the_first_call(caplog, policy_name: str, allowed: int) -> None:
    """EX-39: one clear line, not one per call; two workers share the limit of 20."""
    check = Check("agent", Policy("key", 20, 3_600))
    async with limiter(NOWHERE, policy_name, workers=2) as limits:
        verdicts = await many(limits, check, 50)
        assert sum(verdict.allowed for verdict in verdicts) == allowed
        assert not limits.available
        assert limits.stats.unavailable == 50
        assert [line.partition(":")[0] for line in lines(caplog)] == ["rate limits"]
        assert f"away, policy '{policy_name}' holds" in lines(caplog)[0]


async def test_never_up_and_deny_raises_unavailable(policy: Policy) -> None:
    async with limiter(NOWHERE, "deny") as limits:
        with pytest.raises(Unavailable) as caught:
            await limits.check(Check("agent", policy))
        assert caught.value.headers["Retry-After"] == "1"
        assert (limits.stats.refused, limits.stats.unavailable) == (1, 1)


async def test_not_started_counts_as_away(server, policy: Policy) -> None:
    limits = RateLimiter(server.settings(), LimitSettings(), workers=1)
    assert (await limits.check(Check("agent", policy))).allowed
    assert not limits.available
    await limits.stop()


async def test_valkey_that_goes_and_returns_is_noticed_and_told_once_each(server, principal: str, caplog) -> None:
    check = Check(principal, Policy("key", 1_000, 3_600))
    async with limiter(server.settings()) as limits:
        assert (await limits.check(check)).remaining == 999
        server.kill()
        verdicts = [await limits.check(check) for _ in range(100)]
        assert all(verdict.allowed for verdict in verdicts)
        assert (limits.available, limits.stats.unavailable) == (False, 100)
        server.start()
        await until(lambda: limits.available)
        assert (await limits.check(check)).remaining == 999  # decided by the new, empty server
        assert [line.split(",")[0].split(" at ")[0] for line in lines(caplog)] == [
            "rate limits: Valkey is away",
            "rate limits: Valkey is back",
        ]


async def test_a_connection_lost_while_idle_is_replaced_without_a_word(
    server, principal: str, policy: Policy, caplog
) -> None:
    async with limiter(server.settings()) as limits:
        await limits.check(Check(principal, policy))
        server.kill()
        server.start()
        await asyncio.sleep(0.05)
        await limits.check(Check(principal, policy))
        assert limits.available
        assert lines(caplog) == []


async def test_a_frozen_valkey_is_away_after_the_command_timeout_and_calls_stop_waiting(server, principal: str) -> None:
    check = Check(principal, Policy("key", 10_000, 3_600))
    async with limiter(server.settings(command_timeout=0.3)) as limits:
        await limits.check(check)
        server.freeze()
        try:
            assert all(verdict.allowed for verdict in await asyncio.wait_for(many(limits, check, 100), 60))
            for _ in range(60):  # over 1.2 s, so that a probe hangs meanwhile
                assert at_once(limits.check(check)).allowed
                await asyncio.sleep(0.02)
        finally:
            server.thaw()
        await until(lambda: limits.available)


async def test_an_answer_that_waits_for_a_loop_that_stood_still_counts(server, principal: str) -> None:
    check = Check(principal, Policy("key", 10_000, 3_600))
    async with limiter(server.settings(command_timeout=0.1)) as limits:
        waiting = asyncio.create_task(limits.check(check))
        while limits.stats.batches == 0:
            await asyncio.sleep(0)
        time.sleep(0.5)  # the loop stands still
        assert (await waiting).allowed
        assert (limits.available, limits.stats.unavailable) == (True, 0)


def test_a_frozen_valkey_costs_no_more_than_a_tenth_of_a_second() -> None:
    assert RedisSettings().command_timeout <= 0.1


async def test_who_queues_behind_a_lost_batch_does_not_wait_for_a_second_timeout(server, principal: str) -> None:
    check = Check(principal, Policy("key", 10_000, 3_600))
    async with limiter(server.settings(command_timeout=2)) as limits:
        await limits.check(check)
        server.freeze()
        try:
            started = time.monotonic()
            in_flight = asyncio.create_task(many(limits, check, 10))
            await asyncio.sleep(0.1)
            await many(limits, check, 10)
            assert time.monotonic() - started < 2 * 2
            await in_flight
            assert (limits.stats.batches, limits.stats.unavailable) == (2, 20)
        finally:
            server.thaw()


async def test_a_second_start_tells_nothing_twice(caplog) -> None:
    async with limiter(NOWHERE) as limits:
        await limits.start()
        assert len(lines(caplog)) == 1


async def test_an_unreachable_address_delays_no_call(policy: Policy) -> None:
    """Connecting hangs (a full accept queue of a socket that nobody serves); calls are decided meanwhile."""
    async with hanging_port() as port:
        redis = RedisSettings(url=f"redis://127.0.0.1:{port}", connect_timeout=0.4, command_timeout=0.2)
        async with limiter(redis) as limits:
            assert [at_once(limits.check(Check("agent", policy))).allowed for _ in range(50)] == [True] * 50


async def test_a_valkey_that_may_not_write_counts_as_away(server, principal: str, policy: Policy, caplog) -> None:
    async with limiter(server.settings()) as limits:
        server.command("REPLICAOF 127.0.0.1 1")
        try:
            assert (await limits.check(Check(principal, policy))).allowed
            assert not limits.available
            assert "READONLY" in lines(caplog)[0]
            await asyncio.sleep(1.2)
            assert not limits.available
        finally:
            server.command("REPLICAOF NO ONE")
        await until(lambda: limits.available)


async def test_stop_leaves_no_caller_waiting(server, principal: str, policy: Policy) -> None:
    async with limiter(server.settings(command_timeout=3_600)) as limits:
        await limits.check(Check(principal, policy))
        server.freeze()
        try:
            in_flight = asyncio.create_task(limits.check(Check(principal, policy)))
            await asyncio.sleep(0.05)
            queued = asyncio.create_task(limits.check(Check(principal, policy)))
            await asyncio.sleep(0)
            await limits.stop()
            verdicts = await asyncio.wait_for(asyncio.gather(in_flight, queued), 60)
            assert all(verdict.allowed for verdict in verdicts)
            assert (await limits.check(Check(principal, policy))).allowed
        finally:
            server.thaw()


async def test_a_fault_of_ours_leaves_no_caller_waiting(server, principal: str, policy: Policy, monkeypatch) -> None:
    async with limiter(server.settings()) as limits:

        async def broken(*_: object) -> object:
            raise ZeroDivisionError

        monkeypatch.setattr(Valkey, "execute", broken)
        assert (await asyncio.wait_for(limits.check(Check(principal, policy)), 60)).allowed


def test_exact_on_uvloop_too(server, principal: str, caplog) -> None:
    async def main() -> int:
        async with limiter(server.settings()) as limits:
            verdicts = await many(limits, Check(principal, Policy("key", 37, 3_600)), 200)
            return sum(verdict.allowed for verdict in verdicts)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(main()) == 37
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@asynccontextmanager
async def hanging_port() -> AsyncIterator[int]:
    """Give a port whose connection attempts stay unanswered: its accept queue is full and nobody empties it."""
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        await asyncio.sleep(0.05)
        try:
            yield port
        finally:
            for filler in fillers:
                filler.close()
