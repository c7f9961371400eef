"""Which endings cost what: the refund rule as a table, and that an owner can only add to it."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.billing.prepaid_credits import Ending, gives_back, settle

ENDINGS = get_args(Ending)


@pytest.mark.parametrize(
    ("ending", "status", "answered", "refunded", "action", "reason"),
    [
        ("delivered", 200, True, (), "keep", "delivered"),
        ("delivered", 404, True, (), "keep", "delivered"),
        ("delivered", 404, True, (404,), "refund", "refund_on_status"),
        ("delivered", 307, True, (307,), "refund", "redirect"),
        ("delivered", 307, True, (), "keep", "delivered"),
        ("delivered", 304, True, (304,), "refund", "refund_on_status"),
        ("delivered", 429, True, (404,), "keep", "delivered"),
        ("delivered", 503, True, (), "refund", "upstream_5xx"),
        ("client_gone", None, False, (), "refund", "client_gone"),
        ("client_gone", 200, False, (), "refund", "client_gone"),
        ("client_gone", 200, True, (), "keep", "client_gone"),
        ("client_gone", 404, True, (404,), "refund", "refund_on_status"),
        ("client_stalled", 200, True, (), "keep", "client_stalled"),
        ("total_timeout", 200, True, (), "keep", "total_timeout"),
        ("broken_off", 200, True, (), "refund", "broken_off"),
        ("unreachable", None, False, (), "refund", "unreachable"),
        ("timeout", None, False, (), "refund", "timeout"),
        ("upstream_error", None, False, (), "refund", "upstream_error"),
        ("refused", None, False, (), "refund", "refused"),
    ],
)
def test_the_refund_rule(
    ending: Ending, status: int | None, answered: bool, refunded: tuple[int, ...], action: str, reason: str
) -> None:
    decision = settle(ending, status, answered=answered, refunded=frozenset(refunded))
    assert (decision.action, decision.reason) == (action, reason)


@given(
    st.sampled_from(ENDINGS),
    st.none() | st.integers(100, 599),
    st.booleans(),
    st.frozensets(st.integers(100, 599)),
    st.none() | st.just("refund_rule_empty"),
)
def test_an_owner_is_more_generous_than_the_rule_or_equal_never_less(
    ending: Ending, status: int | None, answered: bool, refunded: frozenset[int], judged: str | None
) -> None:
    plain = settle(ending, status, answered=answered)
    chosen = settle(ending, status, answered=answered, refunded=refunded, judged=judged)
    assert plain.action == "keep" or chosen.action == "refund"
    if status is not None and gives_back(status, refunded, judged):
        assert chosen.action == "refund"
