"""The in-process limiter takes this worker's share and bounded memory. (test_gcra.py holds it to the Lua script.)"""

from __future__ import annotations

from gateway.limits.gcra import Call
from gateway.limits.local import LocalGcra
from gateway.limits.policy import Check, Policy


def as_call(*checks: Check) -> Call:
    return Call(checks)


def grants(workers: int, call: Call, times: int) -> int:
    local = LocalGcra(workers, clock=lambda: 0)
    return sum(local.decide(call)[0] > 0 for _ in range(times))


def test_all_workers_together_grant_no_more_than_the_limit() -> None:
    call = as_call(Check("agent", Policy("key", 100, 60)))
    assert [grants(workers, call, 200) for workers in (1, 4, 8)] == [100, 25, 12]


def test_a_limit_below_the_number_of_workers_still_lets_one_call_through() -> None:
    assert grants(8, as_call(Check("agent", Policy("key", 3, 60))), 10) == 1


def test_a_cost_above_the_share_passes_when_nothing_else_was_used() -> None:
    assert grants(8, as_call(Check("agent", Policy("key", 10, 60), cost=5)), 10) == 1


def test_memory_stays_bounded_and_the_busy_are_remembered() -> None:
    local = LocalGcra(1, capacity=100, clock=lambda: 0)
    busy = as_call(Check("busy", Policy("key", 1, 60)))
    assert local.decide(busy)[0] > 0
    for stranger in range(1_000):
        local.decide(as_call(Check(f"stranger-{stranger}", Policy("key", 1, 60))))
        assert local.decide(busy)[0] < 0
    assert len(local) == 100
