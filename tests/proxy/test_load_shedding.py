"""What load shedding refuses: nothing for a burst or a slow call, new calls while a queue stands."""

from __future__ import annotations

import asyncio
import time

from gateway.proxy.admission import Admission
from gateway.proxy.load_shedding import CALM, INCREASE, INTERVAL, LEAST, Shedder
from gateway.proxy.loop_lag import EVERY, TICK, LoopLag

LATE, IN_TIME = 0.3, 0.2


class Standing:
    """A queue with so many calls in it, and the calls that come through it."""

    def __init__(self, number: int) -> None:
        self.shedder = Shedder(target=0.25)
        self.calls = [object() for _ in range(number)]
        for call in self.calls:
            assert self.shedder.enter(call, 0.0)

    def through(self, now: float, waited: float) -> None:
        self.shedder.passed(self.calls.pop(), waited, now)

    def late_for(self, seconds: float, rate: int, begin: float = 5.0) -> None:
        for step in range(int(seconds * rate) + 1):
            self.through(begin + step / rate, LATE)

    def shrink(self, number: int) -> None:
        while len(self.calls) > number:
            self.shedder.leave(self.calls.pop())

    def room(self, now: float) -> int:
        """Return how many more may come, up to a hundred; they go again."""
        come = [object() for _ in range(100)]
        taken = [call for call in come if self.shedder.enter(call, now)]
        for call in taken:
            self.shedder.leave(call)
        return len(taken)


def test_one_late_call_or_a_burst_shuts_nobody_out() -> None:
    queue = Standing(200)
    queue.through(5.0, LATE)
    assert queue.room(5.0) == 100
    for step in range(10):
        queue.through(5.0 + INTERVAL * step / 11, LATE)
    assert queue.room(5.0 + INTERVAL) == 100


def test_one_in_time_begins_the_interval_anew() -> None:
    queue = Standing(200)
    most = INTERVAL * 0.8
    for now, waited in ((5.0, LATE), (5.0 + most, IN_TIME), (6.0, LATE), (6.0 + most, LATE)):
        queue.through(now, waited)
    assert queue.room(6.0 + most) == 100
    queue.through(6.0 + INTERVAL, LATE)
    assert queue.room(6.0 + INTERVAL) == 0


def test_a_standing_queue_is_as_long_as_what_is_served_in_time() -> None:
    queue = Standing(500)
    queue.late_for(INTERVAL, rate=200)  # 50 in the time that a call may wait
    assert queue.room(5.5) == 0
    queue.shrink(48)
    assert queue.room(5.6) == 2


def test_a_standing_queue_gets_shorter_and_never_too_short() -> None:
    queue = Standing(1_000)
    queue.late_for(INTERVAL, rate=500)  # 125 in time, by that figure
    queue.shrink(120)
    queue.late_for(INTERVAL, rate=20, begin=6.0)
    queue.shrink(LEAST - 1)
    assert queue.room(6.6) == 1, "5 in time, but somebody has to find out that it goes on"


def test_calls_in_time_let_more_in_and_calm_lets_everybody_in() -> None:
    queue = Standing(500)
    queue.late_for(INTERVAL, rate=200)
    queue.shrink(100)
    for step in range(60):
        queue.through(5.6 + step / 1_000, IN_TIME)
    grown = 50 + 60 * INCREASE - 40
    assert grown <= queue.room(5.7) <= grown + 1
    queue.through(5.7 + CALM + 0.1, IN_TIME)
    assert queue.room(11.0) == 100


def test_a_look_that_refuses_somebody_is_no_calm() -> None:
    queue = Standing(500)
    queue.late_for(INTERVAL, rate=200)
    assert queue.shedder.full(9.0)
    queue.shrink(10)
    queue.through(5.5 + CALM + 1, IN_TIME)
    assert queue.room(11.0) < 100


def test_who_waits_elsewhere_makes_no_queue_longer() -> None:
    queue = Standing(500)
    queue.late_for(INTERVAL, rate=200)
    elsewhere = queue.calls[:]
    for call in elsewhere:
        queue.shedder.leave(call)
    assert queue.room(5.6) == 50
    for call in elsewhere[:45]:
        queue.shedder.come_back(call)
    assert queue.room(5.6) == 5


def test_so_many_are_inside_and_no_more() -> None:
    admission = Admission(target=0.25, calls=10)
    assert admission.enter(object(), 9, 1.0) is None
    assert admission.enter(object(), 10, 1.0) == "calls"


async def test_a_loop_that_is_held_up_is_seen_by_who_comes_next() -> None:
    turns = LoopLag()
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
