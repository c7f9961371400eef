"""The shortest history: a failed run again with less of everything, as long as it still fails.

First the trouble that is not needed goes (faults, processes, company), then operations, halves before quarters before
single ones. A shorter plan makes other choices, so each is tried under a few schedules; what is found is a short
failure, not always the very same one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from tests.simulator.conductor import Chances
from tests.simulator.plan import Plan
from tests.simulator.simulation import Outcome

Run = Callable[[Plan], Outcome]
SCHEDULES = 3


def shrink(plan: Plan, failed: Outcome, run: Run, seconds: float) -> tuple[Plan, Outcome]:
    """Return a smaller plan that fails and its outcome, looking for at most so long."""
    ends = time.monotonic() + seconds
    best, outcome = plan, failed
    progress = True
    while progress:
        progress = False
        for candidate in _smaller(best):
            found = _fails(candidate, run, ends)
            if time.monotonic() > ends:
                return best, outcome
            if found is not None:
                best, outcome = found
                progress = True
                break
    return best, outcome


def _fails(plan: Plan, run: Run, ends: float) -> tuple[Plan, Outcome] | None:
    for schedule in range(SCHEDULES):
        if time.monotonic() > ends:
            return None
        tried = replace(plan, schedule=plan.schedule + schedule)
        outcome = run(tried)
        if outcome.failure is not None:
            return tried, outcome
    return None


def _smaller(plan: Plan) -> Iterator[Plan]:
    """Yield simpler plans, the greatest simplification first."""
    if plan.chances.budget:
        yield replace(plan, chances=Chances(tick=plan.chances.tick, start=plan.chances.start))
        for name in ("crash", "freeze", "stall", "refused", "request_lost", "answer_lost"):
            if getattr(plan.chances, name):
                yield replace(plan, chances=replace(plan.chances, **{name: 0.0}))
    size = len(plan.operations) // 2
    while size >= 1:
        for start in range(0, len(plan.operations), size):
            yield replace(plan, operations=plan.operations[:start] + plan.operations[start + size :])
        size //= 2
    if plan.processes > 1:
        yield replace(plan, processes=plan.processes - 1)
    if plan.together > 1:
        yield replace(plan, together=1)
