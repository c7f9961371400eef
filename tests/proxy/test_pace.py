"""How far an upload may fall behind: by how many seconds of the least rate, and for how long in all."""

from __future__ import annotations

import pytest

from gateway.proxy.pace import Pace
from gateway.settings import ProxySettings

RATE = ProxySettings(upload_min_rate=100, body_timeout=10, upload_timeout=60)
ANY = ProxySettings(upload_min_rate=0, body_timeout=10, upload_timeout=60)


def paced(settings: ProxySettings, *pieces: tuple[float, int]) -> float:
    """Return for how long may be waited after these waits and sizes, 0 once it was too long."""
    pace, now = Pace(settings, 1_000.0), 1_000.0
    for waited, size in pieces:
        if waited > pace.wait(now):
            return 0
        now += waited
        pace.took(waited, size)
    return pace.wait(now)


@pytest.mark.parametrize(
    ("settings", "pieces", "left"),
    [
        (RATE, [], 10),
        (RATE, [(9, 0)], 1),
        (RATE, [(9, 100)], 2),
        (RATE, [(9, 900)], 10),
        (RATE, [(0, 1_000_000), (9, 0)], 1),  # no credit beyond the bucket
        (RATE, [(1, 1)] * 11, 0),  # a byte a second
        (RATE, [(1, 100)] * 55, 5),  # at the least rate until the end of the whole time
        (RATE, [(1, 100)] * 61, 0),
        (ANY, [(9, 1)] * 6, 6),
        (ANY, [(11, 1)], 0),
    ],
)  # fmt: skip
def test_a_caller_may_fall_so_far_behind(settings: ProxySettings, pieces: list[tuple[float, int]], left: float) -> None:
    assert paced(settings, *pieces) == pytest.approx(left)


def test_a_refusal_says_which_bound_it_was() -> None:
    assert "did not come within 60 s" in str(Pace(RATE, 0).refusal(60).detail)
    assert "100 bytes a second and fell 10 s behind" in str(Pace(RATE, 0).refusal(20).detail)
    assert "Nothing of the request body came for 10 s" in str(Pace(ANY, 0).refusal(20).detail)
