"""Whom the door turns away: bursts and slow calls nobody, a line that stays those who would make it longer."""

from __future__ import annotations

from gateway.proxy.door import CALM, FEW, INTERVAL, LONGER, Door

LATE, IN_TIME = 0.3, 0.2


class Line:
    """A door with so many in line, and the calls that come through it."""

    def __init__(self, standing: int) -> None:
        self.door = Door(wait=0.25, calls=10_000)
        self.calls = [object() for _ in range(standing)]
        for call in self.calls:
            assert self.door.enter(call, 0, 0.0) is None

    def through(self, now: float, waited: float) -> None:
        self.door.passed(self.calls.pop(), waited, now)

    def room(self, now: float) -> int:
        """Return how many more may come, up to a hundred; they go again."""
        come = [object() for _ in range(100)]
        taken = [call for call in come if self.door.enter(call, 0, now) is None]
        for call in taken:
            self.door.leave(call)
        return len(taken)


def test_one_late_call_or_a_burst_shuts_nobody_out() -> None:
    line = Line(200)
    line.through(5.0, LATE)
    assert line.room(5.0) == 100
    for step in range(10):
        line.through(5.0 + INTERVAL * step / 11, LATE)
    assert line.room(5.4) == 100


def test_one_in_time_begins_the_interval_anew() -> None:
    line = Line(200)
    for now, waited in ((5.0, LATE), (5.3, IN_TIME), (5.5, LATE), (5.9, LATE)):
        line.through(now, waited)
    assert line.room(5.9) == 100
    line.through(6.0, LATE)
    assert line.room(6.0) == 0


def test_a_line_that_stays_gets_shorter_and_never_too_short() -> None:
    line = Line(300)
    line.through(5.0, LATE)
    line.through(5.5, LATE)
    assert line.room(5.5) == 0
    for call in line.calls[: len(line.calls) - 208]:  # 0.7 of the 299 that stood there
        line.calls.remove(call)
        line.door.leave(call)
    assert line.room(5.6) == 2
    for step in range(20):
        line.through(6.1 + step * INTERVAL, LATE)
    for call in line.calls:
        line.door.leave(call)
    assert line.room(20.0) == FEW


def test_calls_in_time_let_more_in_and_calm_lets_everybody_in() -> None:
    line = Line(100)
    line.through(5.0, LATE)
    line.through(5.5, LATE)
    assert line.room(5.5) == 0
    most = int(0.7 * 99)
    for step in range(60):
        line.through(5.6 + step / 1_000, IN_TIME)
    assert line.room(5.7) == int(most + 60 * LONGER) - 38 + 1
    line.through(5.7 + CALM + 0.1, IN_TIME)
    assert line.room(11.0) == 100


def test_so_many_are_inside_and_no_more() -> None:
    door = Door(wait=0.25, calls=10)
    assert door.enter(object(), 9, 1.0) is None
    assert door.enter(object(), 10, 1.0) == "calls"
