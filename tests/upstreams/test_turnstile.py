"""How many calls are on their way at once: no more than the limit, in the order they came, and no place is ever lost."""

from __future__ import annotations

import asyncio

from gateway.upstreams.turnstile import Turnstile


async def test_the_line_moves_in_order_and_no_more_than_the_limit_are_inside() -> None:
    gate, inside, most, order = Turnstile(2), 0, 0, []

    async def pass_through(number: int) -> None:
        nonlocal inside, most
        assert await gate.enter(5)
        inside += 1
        most = max(most, inside)
        order.append(number)
        await asyncio.sleep(0)
        inside -= 1
        gate.leave()

    await asyncio.gather(*(pass_through(number) for number in range(9)))
    assert (most, order) == (2, list(range(9)))


async def test_who_finds_no_place_in_time_takes_none() -> None:
    gate = Turnstile(1)
    assert await gate.enter(0.01)
    assert not await gate.enter(0.01)
    gate.leave()
    assert await gate.enter(0.01), "the place is there again"


async def test_who_is_cancelled_in_line_or_at_the_very_hand_over_takes_no_place_along() -> None:
    gate = Turnstile(1)
    assert await gate.enter(1)
    in_line, handed = (asyncio.create_task(gate.enter(5)) for _ in range(2))
    await asyncio.sleep(0)
    in_line.cancel()
    await asyncio.gather(in_line, return_exceptions=True)
    gate.leave()  # to `handed`, which is cancelled before it hears of it
    handed.cancel()
    await asyncio.gather(handed, return_exceptions=True)
    assert await gate.enter(0.01)
