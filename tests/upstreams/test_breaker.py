"""When a breaker opens, what it lets through then, and how it closes: by a clock that is an argument."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstreams.breaker import CLOSED, HALF_OPEN, OPEN, Breaker, BreakerPolicy, State

POLICY = BreakerPolicy(failures=3, percent=50, calls=10, window=10.0, wait=5.0, longest=15.0)


def breaker(policy: BreakerPolicy = POLICY) -> tuple[Breaker, list[State]]:
    seen: list[State] = []
    return Breaker(policy, seen.append), seen


def opened(now: float = 0.0) -> tuple[Breaker, list[State]]:
    made, seen = breaker()
    for _ in range(3):
        made.failed(object(), now, provoked=True)
    assert made.state is OPEN
    return made, seen


@pytest.mark.parametrize("provoked", [True, False])
def test_failures_in_a_row_open_it_and_one_answer_between_them_does_not(provoked: bool) -> None:
    made, seen = breaker()
    for moment in (0.0, 20.0, 40.0):
        made.failed(object(), moment, provoked=provoked)
        made.failed(object(), moment, provoked=provoked)
        made.succeeded(moment)
    made.succeeded(60.0)
    assert made.state is CLOSED
    made.failed(object(), 61.0, provoked=provoked)
    made.failed(object(), 62.0, provoked=provoked)
    assert (made.admit(object(), 62.0), seen) == (0.0, [])
    made.failed(object(), 63.0, provoked=provoked)
    assert (made.state, made.admit(object(), 64.0), seen) == (OPEN, 4.0, [OPEN])


@pytest.mark.parametrize(("provoked", "state"), [(False, OPEN), (True, CLOSED)])
def test_a_share_of_failed_connections_opens_it_but_what_callers_can_provoke_does_not(
    provoked: bool, state: State
) -> None:
    made, _ = breaker()
    for _ in range(6):
        made.failed(object(), 1.0, provoked=provoked)
        made.succeeded(1.0)
    assert made.state is state


def test_the_share_is_of_one_window_only() -> None:
    made, _ = breaker()
    for moment in range(0, 400, 20):  # one failure and one answer per window
        made.failed(object(), float(moment), provoked=False)
        made.succeeded(moment + 1.0)
    assert made.state is CLOSED
    made.succeeded(1_000.0)
    assert not made.watching


def test_after_the_wait_one_call_tries_and_the_others_wait() -> None:
    made, seen = opened()
    assert made.admit(object(), 4.9) == pytest.approx(0.1)
    probe = object()
    assert made.admit(probe, 5.0) == 0.0
    assert made.admit(object(), 5.0) > 0
    made.succeeded(5.5)
    assert (made.admit(object(), 5.5), seen) == (0.0, [OPEN, HALF_OPEN, CLOSED])
    assert not made.watching


def test_a_failed_try_doubles_the_wait_up_to_the_longest_and_success_resets_it() -> None:
    made, _ = opened()
    now = 0.0
    for wait in (5.0, 10.0, 15.0, 15.0):
        assert made.admit(object(), now) == pytest.approx(wait)
        now += wait
        probe = object()
        assert made.admit(probe, now) == 0.0
        made.failed(probe, now, provoked=True)
    made.succeeded(now)
    for _ in range(3):
        made.failed(object(), now, provoked=True)
    assert made.admit(object(), now) == pytest.approx(5.0)


def test_a_try_that_showed_nothing_is_given_to_the_next_call() -> None:
    made, _ = opened()
    first, other = object(), object()
    assert made.admit(first, 5.0) == 0.0
    made.abandon(other)
    assert made.admit(other, 5.0) > 0
    made.abandon(first)
    assert made.admit(other, 5.0) == 0.0


def test_late_failures_of_older_calls_neither_prolong_nor_reopen() -> None:
    made, _ = opened()
    made.failed(object(), 4.0, provoked=True)
    probe = object()
    assert made.admit(probe, 5.0) == 0.0
    made.failed(object(), 5.0, provoked=True)
    assert made.state is HALF_OPEN


def test_a_late_answer_of_an_older_call_shows_that_the_server_works() -> None:
    made, _ = opened()
    made.succeeded(1.0)
    assert made.state is CLOSED


def test_zero_failures_turn_it_off() -> None:
    made, _ = breaker(BreakerPolicy(0, 50, 1, 10.0, 5.0, 15.0))
    for _ in range(100):
        made.failed(object(), 1.0, provoked=False)
    assert made.state is CLOSED


@given(
    st.lists(st.tuples(st.sampled_from(["admit", "fail", "succeed", "abandon"]), st.integers(0, 3), st.integers(0, 6)))
)
def test_whatever_happens_a_call_passes_again_once_it_waited(steps: list[tuple[str, int, int]]) -> None:
    made, _ = breaker()
    calls, now = [object() for _ in range(4)], 0.0
    for what, which, pause in steps:
        now += pause
        if what == "admit":
            wait = made.admit(calls[which], now)
            assert 0.0 <= wait <= POLICY.longest
        elif what == "fail":
            made.failed(calls[which], now, provoked=bool(pause % 2))
        elif what == "succeed":
            made.succeeded(now)
        else:
            made.abandon(calls[which])
    for call in calls:
        made.abandon(call)
    assert made.admit(object(), now + POLICY.longest) == 0.0
