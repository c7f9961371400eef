"""A cursor whose first rows come with its opening: one round trip, where asyncpg's own cursor takes two.

Stands on asyncpg's base of cursors, whose methods are not public: tests/upstreams/postgres/test_portal.py holds us to
what they do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import asyncpg
from asyncpg.cursor import BaseCursor


class Portal(BaseCursor):  # pyright: ignore[reportMissingTypeArgument] - generic in its stubs only
    """The rows of one statement in an open transaction."""

    def __init__(self, session: asyncpg.Connection, text: str, values: Sequence[str | None]) -> None:
        super().__init__(session, text, None, values, None)

    async def fetch(self, number: int) -> Sequence[Any]:
        """Return the next rows, fewer than `number` only at their end. The first fetch opens the portal."""
        cursor = cast("Any", self)
        if cursor._state is None:
            cursor._state = await cursor._connection._get_statement(cursor._query, None, named=True)
            cursor._state.attach()
        if cursor._portal_name is None:
            return await cursor._bind_exec(number, None)
        return [] if cursor._exhausted else await cursor._exec(number, None)
