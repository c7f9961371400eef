"""Policies derive exact integers, keys never collide, and headers are structured fields."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.limits.policy import MICROSECONDS, Check, Policy, Verdict, headers, whole_seconds


@pytest.mark.parametrize(
    ("limit", "window", "burst", "interval", "tolerance"),
    [
        (60, 60, None, 1_000_000, 60_000_000),
        (37, 60, None, 1_621_622, 1_621_622 * 37),
        (6_000, 60, 10, 10_000, 100_000),
        (1, 86_400, None, 86_400_000_000, 86_400_000_000),
        (10_000_000, 1, None, 1, 10_000_000),
    ],
)
def test_interval_is_rounded_up_and_the_burst_fits_exactly(
    limit: int, window: int, burst: int | None, interval: int, tolerance: int
) -> None:
    policy = Policy("key", limit, window, burst)
    assert (policy.interval, policy.tolerance) == (interval, tolerance)


@pytest.mark.parametrize(
    "numbers", [(0, 60, None), (1, 0, None), (1, 60, 0), (1, 86_400, 10**9)], ids=["limit", "window", "burst", "span"]
)
def test_a_policy_that_cannot_be_computed_is_refused(numbers: tuple[int, int, int | None]) -> None:
    with pytest.raises(ValueError, match="policy key"):
        Policy("key", *numbers)


@pytest.mark.parametrize("name", ["", "a}b", "a b", 'a"', "A", "a\r\n", "x" * 65])
def test_a_name_that_could_forge_a_key_or_a_header_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="policy name"):
        Policy(name, 1, 1)


@given(st.text(alphabet="a}:{", max_size=6), st.text(alphabet="a}:{", max_size=6))
def test_two_principals_never_share_a_key(one: str, other: str) -> None:
    policies = [Policy("a", 1, 1), Policy("a.a", 1, 1)]
    keys = {Check(principal, policy).key for principal in {one, other} for policy in policies}
    assert len(keys) == 2 * len({one, other})


def test_keys_are_tagged_by_principal() -> None:
    assert Check("k1", Policy("address", 1, 1)).key == b"tw:{k1}:address"


@given(st.integers(min_value=0, max_value=2**51))
def test_seconds_are_rounded_up_never_down(microseconds: int) -> None:
    seconds = whole_seconds(microseconds)
    assert microseconds <= seconds * MICROSECONDS < microseconds + MICROSECONDS


def test_headers_of_an_allowed_call_name_the_quota_and_when_it_is_full_again() -> None:
    verdict = Verdict(True, Policy("key", 6_000, 60), remaining=5_990, retry_after=0, reset_after=1)
    assert headers(verdict) == [
        (b"ratelimit-policy", b'"key";q=6000;w=60'),
        (b"ratelimit", b'"key";r=5990;t=1'),
    ]


def test_headers_of_a_refused_call_agree_with_retry_after() -> None:
    verdict = Verdict(False, Policy("address", 20, 60), remaining=0, retry_after=3, reset_after=60)
    assert headers(verdict)[1] == (b"ratelimit", b'"address";r=0;t=3')
