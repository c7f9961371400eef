"""The named waits of the paid path: whatever a call waits for is asked for here, and each is a fault point.

`TOLLWAY_FAULT=<effect>.before|after:kill|hang|error` arms one; no step has a line of its own for it. What does not live
here: the points outside a call's walk (gateway/faults.py), and what is armed.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from gateway.faults import ARMED, Effect, act

Result = TypeVar("Result")


def perform(effect: Effect, work: Coroutine[Any, Any, Result]) -> Coroutine[Any, Any, Result]:
    """Return `work`, which the walk awaits under a name. Unarmed it costs one look at an empty text."""
    return _armed(effect, work) if ARMED.startswith(effect) else work


async def _armed(effect: Effect, work: Coroutine[Any, Any, Result]) -> Result:
    if f"{effect}.before" == ARMED:
        work.close()
        await act()
    result = await work
    if f"{effect}.after" == ARMED:
        await act()
    return result
