"""What every ending of a call means for the authorization that pays it, and which policy holds for which one."""

from __future__ import annotations

from typing import get_args

import pytest

from gateway.billing import prepaid_credits
from gateway.billing.prepaid_credits import Ending
from gateway.billing.x402_per_request import pays_publisher, policy_for, policy_on, settle

ENDINGS = get_args(Ending)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("status", [None, 200, 404, 500])
@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize("submitted", [True, False])
def test_the_refund_rule_is_that_of_every_paid_call(ending, status, answered, submitted) -> None:
    rule = prepaid_credits.settle(ending, status, answered=answered)
    decided = settle(ending, status, answered=answered, submitted=submitted)
    meant = {("keep", False): "submit", ("keep", True): "keep", ("refund", False): "cancel", ("refund", True): "repay"}
    assert (decided.action, decided.reason) == (meant[rule.action, submitted], rule.reason)


@pytest.mark.parametrize(
    ("ending", "status", "answered", "submitted", "action", "reason"),
    [
        ("delivered", 200, True, False, "submit", "delivered"),
        ("delivered", 404, True, False, "submit", "delivered"),
        ("delivered", 503, True, False, "cancel", "upstream_5xx"),
        ("delivered", 503, True, True, "repay", "upstream_5xx"),
        ("broken_off", 200, True, True, "repay", "broken_off"),
        ("broken_off", 200, False, False, "cancel", "broken_off"),
        ("unreachable", None, False, False, "cancel", "unreachable"),
        ("timeout", None, False, True, "repay", "timeout"),
        ("client_gone", 200, False, False, "cancel", "client_gone"),
        ("client_gone", 200, True, False, "submit", "client_gone"),
        ("refused", None, False, False, "cancel", "refused"),
        ("gateway_stopped", None, False, True, "repay", "gateway_stopped"),
    ],
)
def test_an_ending(ending, status, answered, submitted, action, reason) -> None:
    decided = settle(ending, status, answered=answered, submitted=submitted)
    assert (decided.action, decided.reason) == (action, reason)


def test_a_status_that_its_publisher_gives_back_cancels() -> None:
    decided = settle("delivered", 404, answered=True, submitted=False, refunded=frozenset({404}))
    assert (decided.action, decided.reason) == ("cancel", "refund_on_status")


@pytest.mark.parametrize(("submitted", "action"), [(False, "cancel"), (True, "repay")])
def test_an_answer_that_its_publishers_rules_give_back_is_not_paid(submitted: bool, action: str) -> None:
    decided = settle("delivered", 200, answered=False, submitted=submitted, judged="refund_rule_late")
    assert (decided.action, decided.reason) == (action, "refund_rule_late")


@pytest.mark.parametrize(
    ("chosen", "seconds", "policy"),
    [
        ("deferred", 60, "deferred"), ("deferred", 59, "before_response"), ("deferred", -1, "before_response"),
        ("before_response", 6, "before_response"), ("settle_first", 6, "settle_first"),
    ],
)  # fmt: skip
def test_only_an_authorization_that_lives_long_enough_is_trusted(chosen, seconds, policy) -> None:
    assert policy_for(chosen, seconds) == policy


@pytest.mark.parametrize("chosen", ["settle_first", "before_response", "deferred"])
def test_nothing_is_settled_first_that_could_not_go_back(chosen) -> None:
    assert policy_on(chosen, returnable=True) == chosen
    assert policy_on(chosen, returnable=False) == ("before_response" if chosen == "settle_first" else chosen)


def test_publishers_are_paid_themselves_without_a_fee_and_when_nothing_may_have_to_go_back() -> None:
    assert pays_publisher("before_response", 0)
    assert pays_publisher("deferred", 0)
    assert not pays_publisher("settle_first", 0)
    assert not pays_publisher("deferred", 1)
