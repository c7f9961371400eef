"""What can go wrong with a publisher's database. Messages are ours: a server's own may quote table data."""

from __future__ import annotations

import asyncio
from math import ceil

import asyncpg

# What a lost, refused or shut-down server looks like from asyncpg.
LOST = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
)


class DatabaseError(Exception):
    """A publisher's database did not answer a query. The message is fit for the caller."""


class DatabaseUnreachable(DatabaseError):
    """No connection, or it was lost before the query began: nothing ran."""


class DatabaseAway(DatabaseUnreachable):
    """No connection came about now; another try may bring one."""


class DatabaseBusy(DatabaseError):
    """All connections that this publisher allows are in use, or its server has no more; `retry_after` in seconds."""

    retry_after = 1


class DatabaseResting(DatabaseBusy):
    """It failed repeatedly and is left alone for a while (breaker.py)."""

    def __init__(self, seconds: float) -> None:
        super().__init__("The publisher's database failed repeatedly and is left alone for a while.")
        self.retry_after = max(1, ceil(seconds))


class DatabaseLost(DatabaseError):
    """The connection was lost while the query ran."""


class QueryTimeout(DatabaseError):
    """The query did not end within its time."""


class QueryFailed(DatabaseError):
    """The server refused the query. `sqlstate` says why as far as that reveals no data."""

    def __init__(self, sqlstate: str, *, ran: bool) -> None:
        super().__init__(f"The database refused the query (SQLSTATE {sqlstate}): {meaning(sqlstate)}.")
        self.sqlstate = sqlstate
        self.ran = ran


_MEANINGS = {
    "22012": "a division by zero",
    "22003": "a number is out of range",
    "22P02": "a value does not have the form of its type",
    "22007": "a value is no date or time",
    "22008": "a date or time is out of range",
    "42501": "a table or column is not readable here",
    "42703": "a column does not exist",
    "42P01": "a table does not exist",
    "42883": "no such function or operator for these types",
    "42804": "types do not match",
    "42803": "a column must be grouped or aggregated",
    "42P18": "the type of a parameter cannot be told; write a cast such as $1::int",
    "42725": "a function or operator is ambiguous for these types",
    "42702": "a column is ambiguous",
    "21000": "a subquery returned more than one row",
    "25006": "only reading is allowed",
    "53200": "the server ran out of memory",
    "53100": "the server ran out of disk space",
    "53400": "the query needs more temporary space than is allowed",
    "54001": "the query is too complex",
    "54011": "too many columns",
    "57014": "the query was stopped",
    "55P03": "a lock was not free",
}
_CLASSES = {
    "08": "the connection failed",
    "21": "a subquery returned too much",
    "22": "a value does not fit",
    "42": "the query does not fit the tables",
    "53": "the server has no more of some resource",
    "54": "a limit of the server",
    "57": "the query was stopped",
    "XX": "a fault of the server",
}


def meaning(sqlstate: str) -> str:
    """Return a fixed sentence for a SQLSTATE. Never the server's message: casts quote the data they fail on."""
    return _MEANINGS.get(sqlstate) or _CLASSES.get(sqlstate[:2]) or "it does not say more here"
