"""The Lua script decides as the Python twin does, and both keep GCRA's promise."""

from __future__ import annotations

import asyncio
import itertools
import math
import uuid
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.limits.gcra import Call, Reply, decide
from gateway.limits.local import LocalGcra
from gateway.limits.policy import MICROSECONDS, Check, Policy, Verdict, whole_seconds
from gateway.limits.valkey import Valkey
from tests.limits.bucket import Bucket

START = 1_800_000_000_123_457  # microseconds: every digit must survive Lua
POLICIES = [
    Policy("seven", limit=7, window_seconds=60),
    Policy("burst", limit=100, window_seconds=60, burst=3),
    Policy("slow", limit=1, window_seconds=3_600, burst=2),
    Policy("fast", limit=70_001, window_seconds=60, burst=5),
]


@pytest.fixture(scope="module")
async def valkey(server) -> AsyncIterator[Valkey]:
    valkey = Valkey(server.settings(command_timeout=5))
    yield valkey
    await valkey.close()


def as_call(*checks: Check) -> Call:
    return Call(checks)


def twin(verdicts: LocalGcra, call: Call) -> tuple[bool, Policy, int, int, int]:
    number, remaining, retry, reset = verdicts.decide(call)
    policy = call.checks[abs(number) - 1].policy
    return number > 0, policy, remaining, whole_seconds(retry), whole_seconds(reset)


def facts(verdict: Verdict) -> tuple[bool, Policy, int, int, int]:
    return verdict.allowed, verdict.policy, verdict.remaining, verdict.retry_after, verdict.reset_after


checks = st.builds(
    lambda who, policy, cost: (who, policy, min(cost, policy.capacity)),
    st.sampled_from(["a", "b"]),
    st.sampled_from(POLICIES),
    st.integers(0, 3),
)
steps = st.tuples(
    st.integers(-MICROSECONDS, 40 * MICROSECONDS), st.lists(st.lists(checks, min_size=1, max_size=3), max_size=6)
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(steps, min_size=1, max_size=8))
async def test_lua_and_python_decide_alike(valkey: Valkey, steps) -> None:
    """Batches of calls with repeated keys, several policies, costs, looks, and a clock that also steps back."""
    run, now = uuid.uuid4().hex, START
    python = LocalGcra(1, clock=lambda: now)
    for passed, batch in steps:
        now += passed
        calls = [as_call(*(Check(run + who, policy, cost) for who, policy, cost in call)) for call in batch]
        expected = [twin(python, call) for call in calls]
        assert [facts(verdict) for verdict in await decide(valkey, calls, now)] == expected


LEASED = [Policy("usual", 600, 60), Policy("fast", 70_001, 60, burst=300), Policy("tiny", 40, 60)]
leasing = st.lists(
    st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(LEASED), st.integers(0, 3), st.integers(0, 400)),
    min_size=1,
    max_size=3,
    unique_by=lambda check: check[:2],
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 2_000_000), st.lists(leasing, max_size=6)), min_size=1, max_size=8))
async def test_lua_leases_as_its_python_twin_does(valkey: Valkey, steps) -> None:
    run, now, bucket = uuid.uuid4().hex, START, Bucket()
    for passed, batch in steps:
        now += passed
        counts: list[Sequence[int]] = []

        def note(_: Call, reply: Reply, counts: list[Sequence[int]] = counts, now: int = now) -> None:
            assert reply.clock == now
            counts.append(reply.counts)

        calls = [
            Call(
                [Check(run + who, policy, cost) for who, policy, cost, _ in call],
                [want for *_, want in call],
                note,
            )
            for call in batch
        ]
        expected = [bucket.decide(call, now) for call in calls]
        await decide(valkey, calls, now)
        assert counts == expected


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(POLICIES), st.lists(st.integers(0, 30 * MICROSECONDS), min_size=1, max_size=40))
async def test_no_stretch_of_time_grants_more_than_burst_plus_rate(valkey: Valkey, policy: Policy, waits) -> None:
    """The promise itself, against a rule that knows nothing of arrival times."""
    principal, now, granted = uuid.uuid4().hex, START, []
    for wait in waits:
        now += wait
        for verdict in await decide(valkey, [as_call(Check(principal, policy))] * 2, now):
            granted += [now] * verdict.allowed
    for first, last in itertools.combinations(range(len(granted)), 2):
        stretch = granted[last] - granted[first]
        most = policy.capacity + math.floor(stretch * policy.limit / (policy.window_seconds * MICROSECONDS))
        assert last - first + 1 <= most


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(POLICIES), st.integers(1, 3), st.integers(0, 5 * MICROSECONDS))
async def test_after_retry_after_the_call_passes(valkey: Valkey, policy: Policy, cost: int, passed: int) -> None:
    """EX-37: the announced wait is enough, and no more than one second longer than needed."""
    cost = min(cost, policy.capacity)
    call, now = as_call(Check(uuid.uuid4().hex, policy, cost)), START
    verdict = (await decide(valkey, [call], now))[0]
    while verdict.allowed:
        verdict = (await decide(valkey, [call], now))[0]
    now += min(passed, (verdict.retry_after - 1) * MICROSECONDS)
    verdict = (await decide(valkey, [call], now))[0]
    assert not verdict.allowed
    assert verdict.retry_after >= 1
    too_early = now + (verdict.retry_after - 1) * MICROSECONDS
    assert not (await decide(valkey, [call], too_early))[0].allowed
    assert (await decide(valkey, [call], now + verdict.retry_after * MICROSECONDS))[0].allowed


async def test_a_real_wait_of_retry_after_is_enough(valkey: Valkey, principal: str) -> None:
    call = as_call(Check(principal, Policy("second", limit=2, window_seconds=1)))
    verdicts = await decide(valkey, [call] * 3)
    assert [verdict.allowed for verdict in verdicts] == [True, True, False]
    assert verdicts[2].retry_after == 1
    await asyncio.sleep(verdicts[2].retry_after)
    assert (await decide(valkey, [call]))[0].allowed


async def test_a_refused_call_consumes_nothing_from_its_other_policies(valkey: Valkey, principal: str) -> None:
    wide, narrow = Policy("wide", 100, 60), Policy("narrow", 1, 60)
    both = as_call(Check(principal, wide), Check(principal, narrow))
    verdicts = await decide(valkey, [both] * 10, START)
    assert [verdict.allowed for verdict in verdicts] == [True] + [False] * 9
    assert {verdict.policy for verdict in verdicts} == {narrow}
    assert (await decide(valkey, [as_call(Check(principal, wide, 0))], START))[0].remaining == 99


async def test_the_refusing_policy_with_the_longest_wait_is_named(valkey: Valkey, principal: str) -> None:
    brief, lengthy = Policy("brief", 1, 1), Policy("lengthy", 1, 60)
    both = as_call(Check(principal, brief), Check(principal, lengthy))
    verdict = (await decide(valkey, [both, both], START))[1]
    assert (verdict.allowed, verdict.policy, verdict.retry_after) == (False, lengthy, 60)


async def test_two_keys_from_one_address_share_the_addresss_limit(valkey: Valkey, principal: str) -> None:
    """EX-38: 20 in total, not 20 each."""
    address = Check(principal, Policy("address", 20, 60))
    calls = [as_call(Check(f"{principal}-{key}", Policy("key", 1_000, 60)), address) for key in "ab" for _ in range(20)]
    assert sum(verdict.allowed for verdict in await decide(valkey, calls)) == 20


async def test_a_look_consumes_nothing_and_tells_whether_a_call_would_pass(valkey: Valkey, principal: str) -> None:
    policy = Policy("guesses", 2, 60)
    look, guess = as_call(Check(principal, policy, 0)), as_call(Check(principal, policy, 1))
    verdicts = await decide(valkey, [look, look, guess, look, guess, look], START)
    assert [(verdict.allowed, verdict.remaining) for verdict in verdicts] == [
        (True, 2), (True, 2), (True, 1), (True, 1), (True, 0), (False, 0),
    ]  # fmt: skip


async def test_a_clock_that_went_back_an_hour_refuses_none_of_the_calls_that_come_at_once(
    valkey: Valkey, principal: str
) -> None:
    call = as_call(Check(principal, Policy("key", 60, 60)))
    await decide(valkey, [call] * 60, START)
    earlier = START - 3_600 * MICROSECONDS
    verdicts = [await decide(valkey, [call] * 30, earlier) for _ in range(2)]
    assert all(verdict.allowed for batch in verdicts for verdict in batch)
    assert not (await decide(valkey, [call], earlier))[0].allowed  # the limit holds by the new clock


async def test_state_expires_soon_after_it_stops_to_matter(valkey: Valkey, server, principal: str) -> None:
    call = as_call(Check(principal, Policy("key", 60, 60)))
    await decide(valkey, [call, call])
    left = int(server.command(f"PTTL tw:{{{principal}}}:key").strip()[1:])
    assert 2_000 < left <= 3_000
    await decide(valkey, [as_call(Check(principal, Policy("looked", 60, 60), 0))])
    assert server.command(f"EXISTS tw:{{{principal}}}:looked") == b":0\r\n"


async def test_flushed_scripts_are_sent_again(valkey: Valkey, server, principal: str) -> None:
    call = as_call(Check(principal, Policy("key", 60, 60)))
    await decide(valkey, [call])
    assert server.command("SCRIPT FLUSH").startswith(b"+OK")
    assert (await decide(valkey, [call]))[0].allowed
    assert server.command("INFO commandstats").count(b"cmdstat_eval:") == 1


@pytest.mark.parametrize("foreign", ["SET {} nonsense", "LPUSH {} 1"])
async def test_a_key_that_somebody_else_wrote_fails_no_batch(
    valkey: Valkey, server, principal: str, foreign: str
) -> None:
    server.command(foreign.format(f"tw:{{{principal}}}:key"))
    calls = [as_call(Check(who, Policy("key", 2, 60))) for who in (principal, f"{principal}-other")]
    assert [verdict.remaining for verdict in await decide(valkey, calls)] == [1, 1]


async def test_a_batch_of_the_largest_size_fits_one_script_call(valkey: Valkey, principal: str) -> None:
    calls = [
        as_call(*(Check(f"{principal}-{n}", Policy(f"p{k}", 10, 60)) for k in range(8))) for n in range(512)
    ]  # fmt: skip
    assert all(verdict.allowed for verdict in await decide(valkey, calls))
    assert await decide(valkey, []) == []
