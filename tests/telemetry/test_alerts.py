"""The alert rules that are not about the books (those are tested with them)."""

from __future__ import annotations

import pytest

from tests.support.alerts import firing


@pytest.mark.parametrize(("one", "other", "fires"), [(1, 1, False), (1, 0, True), (0, 0, True)])
def test_one_dead_instance_of_two_is_seen(one: int, other: int, fires: bool) -> None:
    """`up` is what Prometheus itself says of each instance that it scrapes."""
    scraped = f'up{{instance="a:8402",job="tollway"}} {one}\nup{{instance="b:8402",job="tollway"}} {other}\n'
    assert firing(scraped, "TollwayInstanceDown") is fires


@pytest.mark.parametrize(("difference", "fires"), [(0.2, False), (3_600.0, True), (-3_600.0, True)])
def test_clocks_that_disagree_are_seen(difference: float, fires: bool) -> None:
    assert firing(f"tollway_clock_difference_seconds {difference}\n", "TollwayClocksDisagree") is fires
