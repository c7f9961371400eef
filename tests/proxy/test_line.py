"""Whom a line refuses: bursts and slow calls nobody, a line that stays those who would make it longer."""

from __future__ import annotations

import asyncio
import time

from gateway.proxy.door import Door
from gateway.proxy.line import CALM, FEW, INTERVAL, LONGER, Line
from gateway.proxy.turns import EVERY, TICK, Turns

LATE, IN_TIME = 0.3, 0.2


class Standing:
    """A line with so many in it, and the calls that come through it."""

    def __init__(self, number: int) -> None:
        self.line = Line(wait=0.25)
        self.calls = [object() for _ in range(number)]
        for call in self.calls:
            assert self.line.enter(call, 0.0)

    def through(self, now: float, waited: float) -> None:
        self.line.passed(self.calls.pop(), waited, now)

    def late_for(self, seconds: float, rate: int, begin: float = 5.0) -> None:
        for step in range(int(seconds * rate) + 1):
            self.through(begin + step / rate, LATE)

    def shrink(self, number: int) -> None:
        while len(self.calls) > number:
            self.line.leave(self.calls.pop())

    def room(self, now: float) -> int:
        """Return how many more may come, up to a hundred; they go again."""
        come = [object() for _ in range(100)]
        taken = [call for call in come if self.line.enter(call, now)]
        for call in taken:
            self.line.leave(call)
        return len(taken)


def test_one_late_call_or_a_burst_shuts_nobody_out() -> None:
    line = Standing(200)
    line.through(5.0, LATE)
    assert line.room(5.0) == 100
    for step in range(10):
        line.through(5.0 + INTERVAL * step / 11, LATE)
    assert line.room(5.0 + INTERVAL) == 100


def test_one_in_time_begins_the_interval_anew() -> None:
    line = Standing(200)
    most = INTERVAL * 0.8
    for now, waited in ((5.0, LATE), (5.0 + most, IN_TIME), (6.0, LATE), (6.0 + most, LATE)):
        line.through(now, waited)
    assert line.room(6.0 + most) == 100
    line.through(6.0 + INTERVAL, LATE)
    assert line.room(6.0 + INTERVAL) == 0


def test_a_line_that_stays_is_as_long_as_what_is_served_in_time() -> None:
    line = Standing(500)
    line.late_for(INTERVAL, rate=200)  # 50 in the time that a call may wait
    assert line.room(5.5) == 0
    line.shrink(48)
    assert line.room(5.6) == 2


def test_a_line_that_stays_gets_shorter_and_never_too_short() -> None:
    line = Standing(1_000)
    line.late_for(INTERVAL, rate=500)  # 125 in time, by that figure
    line.shrink(120)
    line.late_for(INTERVAL, rate=20, begin=6.0)
    line.shrink(FEW - 1)
    assert line.room(6.6) == 1, "5 in time, but somebody has to find out that it goes on"


def test_calls_in_time_let_more_in_and_calm_lets_everybody_in() -> None:
    line = Standing(500)
    line.late_for(INTERVAL, rate=200)
    line.shrink(100)
    for step in range(60):
        line.through(5.6 + step / 1_000, IN_TIME)
    grown = 50 + 60 * LONGER - 40
    assert grown <= line.room(5.7) <= grown + 1
    line.through(5.7 + CALM + 0.1, IN_TIME)
    assert line.room(11.0) == 100


def test_a_look_that_refuses_somebody_is_no_calm() -> None:
    line = Standing(500)
    line.late_for(INTERVAL, rate=200)
    assert line.line.full(9.0)
    line.shrink(10)
    line.through(5.5 + CALM + 1, IN_TIME)
    assert line.room(11.0) < 100


def test_who_waits_elsewhere_makes_no_line_longer() -> None:
    line = Standing(500)
    line.late_for(INTERVAL, rate=200)
    elsewhere = line.calls[:]
    for call in elsewhere:
        line.line.leave(call)
    assert line.room(5.6) == 50
    for call in elsewhere[:45]:
        line.line.come_back(call)
    assert line.room(5.6) == 5


def test_so_many_are_inside_and_no_more() -> None:
    door = Door(wait=0.25, calls=10)
    assert door.enter(object(), 9, 1.0) is None
    assert door.enter(object(), 10, 1.0) == "calls"


async def test_a_loop_that_is_held_up_is_seen_by_who_comes_next() -> None:
    turns = Turns()
    turns.watch()
    try:
        held = 0.3
        time.sleep(held)  # nobody gets a turn meanwhile
        async with asyncio.timeout(30):
            while not turns.lag:
                await asyncio.sleep(0)
        assert turns.lag >= held - EVERY - TICK
    finally:
        turns.stop()
