"""Trying again what certainly had no effect: a connection that did not come about.

A request of which a byte may have been read is not sent twice here: the other side may count calls as well. The one
exception, for connections that were kept and turned out closed, is in http/client.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

PAUSE = 0.1
"""Seconds before the first new try; twice as long before each further one."""


async def again(times: int, attempt: Callable[[], Awaitable[T]], unmade: Callable[[Exception], bool]) -> T:
    """Return what `attempt` returns; one that raised what had no effect (`unmade`) is made up to `times` times more."""
    for done in range(times):
        try:
            return await attempt()
        except Exception as error:
            if not unmade(error):
                raise
        await asyncio.sleep(PAUSE * 2**done)
    return await attempt()
