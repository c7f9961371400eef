"""Questions that wait together are put together, and each has its own answer, failure or wait."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from gateway.database.together import Together
from gateway.errors import Unavailable


class Clerk:
    """Answers with the tenfold, after `gate` is open; a negative number fails, 0 finds nobody there.

    For numbers from 100 on there is no gate.
    """

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def work(self, questions: Sequence[int]) -> list[int]:
        self.batches.append(list(questions))
        if min(questions) < 100:
            await self.gate.wait()
        if 0 in questions:
            raise Unavailable("nobody is there")
        if any(one < 0 for one in questions):
            raise ValueError(f"negative: {questions}")
        return [10 * one for one in questions]


async def test_what_waits_while_another_batch_is_away_goes_together() -> None:
    clerk = Clerk()
    clerk.gate.clear()
    together = Together(clerk.work)
    first = asyncio.create_task(together.ask(1))
    while not clerk.batches:
        await asyncio.sleep(0)
    others = [asyncio.create_task(together.ask(number)) for number in (2, 3, 4)]
    await asyncio.sleep(0)
    clerk.gate.set()
    assert await asyncio.gather(first, *others) == [10, 20, 30, 40]
    assert clerk.batches == [[1], [2, 3, 4]]


async def test_a_batch_is_put_in_the_order_of_its_locks_and_no_larger_than_allowed() -> None:
    clerk = Clerk()
    together = Together(clerk.work, limit=3, lock=lambda number: number)
    assert await asyncio.gather(*(together.ask(number) for number in (5, 4, 3, 2, 1))) == [50, 40, 30, 20, 10]
    assert clerk.batches == [[3, 4, 5], [1, 2]]


async def test_only_the_question_at_fault_fails() -> None:
    clerk = Clerk()
    together = Together(clerk.work)
    answers = await asyncio.gather(*(together.ask(number) for number in (1, -2, 3)), return_exceptions=True)
    assert answers[0::2] == [10, 30]
    assert isinstance(answers[1], ValueError)
    assert clerk.batches == [[1, -2, 3], [1], [-2], [3]]


async def test_when_nobody_is_there_to_answer_all_are_told_at_once() -> None:
    clerk = Clerk()
    together = Together(clerk.work)
    answers = await asyncio.gather(*(together.ask(number) for number in (1, 0, 3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unavailable] * 3
    assert clerk.batches == [[1, 0, 3]]
    assert await together.ask(4) == 40


async def test_nobody_waits_behind_batches_that_are_not_answered() -> None:
    clerk = Clerk()
    clerk.gate.clear()
    together = Together(clerk.work, patience=0.01)
    stuck = []
    for number in (0, 1):
        stuck.append(asyncio.create_task(together.ask(number)))
        while len(clerk.batches) == number:
            await asyncio.sleep(0.001)
    assert await together.ask(100) == 1000
    clerk.gate.set()
    failed, answered = await asyncio.gather(*stuck, return_exceptions=True)
    assert isinstance(failed, Unavailable)
    assert answered == 10, "what is put by itself has its own answer"
    assert clerk.batches == [[0], [1], [100]]


async def test_what_is_in_flight_when_the_gateway_ends_is_cancelled() -> None:
    clerk = Clerk()
    clerk.gate.clear()
    together = Together(clerk.work, patience=0.01)
    asking = asyncio.create_task(together.ask(1))
    while not clerk.batches:
        await asyncio.sleep(0)
    everything = asyncio.all_tasks() - {asyncio.current_task()}
    for task in everything:
        task.cancel()
    await asyncio.wait(everything)
    assert asking.cancelled()


async def test_who_is_cancelled_goes_only_when_the_question_has_its_end() -> None:
    clerk = Clerk()
    clerk.gate.clear()
    together = Together(clerk.work)
    asking = asyncio.create_task(together.ask(7))
    while not clerk.batches:
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.sleep(0.01)
    assert not asking.done()
    clerk.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await asking
