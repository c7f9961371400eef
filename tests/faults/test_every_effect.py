"""The walk has no wait that nobody has tried to kill a gateway at, and no step has a line of its own for such tests."""

from __future__ import annotations

from pathlib import Path

from gateway.faults import EFFECTS
from tests.faults import test_fault_points, test_query_points
from tests.payments.buying import test_crashes as purchases
from tests.payments.onchain import test_crashes as payments
from tests.payments.onchain import test_sockets as connections

PROXY = Path(__file__).parents[2] / "gateway" / "proxy"


def test_a_gateway_is_killed_after_every_effect() -> None:
    killed = {
        *test_fault_points.STEPS,
        *test_query_points.STEPS,
        *test_query_points.KEYED,
        *purchases.STEPS,
        *(point for points in payments.STEPS.values() for point in points),
        *connections.KILLED,
    }
    assert {f"{effect}.after" for effect in EFFECTS} <= killed


def test_fault_points_stand_in_the_effects_alone() -> None:
    armed = {path.name for path in PROXY.rglob("*.py") if "ARMED" in path.read_text()}
    assert armed == {"effects.py"}
