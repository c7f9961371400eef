"""One sold query, from its plan to its last row, inside the second fence: a read-only transaction with bounds.

Rows come from the server as JSON text, so every type is written by PostgreSQL itself and no value passes through a
lossy type of ours. A row wider than the bound arrives as its length alone: it never fills our memory. What runs is the
checked text (pricing/sql/policy.py) inside a frame that names its columns.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
import orjson

from gateway.upstreams.postgres.errors import LOST, DatabaseError, DatabaseLost, QueryFailed, QueryTimeout
from gateway.upstreams.postgres.parameters import typed
from gateway.upstreams.postgres.pool import Session
from gateway.upstreams.postgres.portal import Portal
from pricing.sql.estimate import planned_rows
from pricing.sql.metering import folded_rows
from pricing.sql.policy import CheckedQuery

FIRST_FETCH = 20
LARGEST_FETCH = 1_000
FETCH_BYTES = 1_048_576
"""A fetch asks for about so many bytes, by the rows seen so far: what is fetched is in our memory at once."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one query may use. Seconds and bytes; each is enforced by the server, `total` and `size` by us as well."""

    plan: float = 1.0
    statement: float = 5.0
    total: float = 8.0
    rows: int = 10_000
    size: int = 16_777_216
    row_size: int = 1_048_576


@dataclass(frozen=True, slots=True)
class Described:
    """A checked query as the server understands it: `text` is framed and typed, `inner` is what is planned.

    `arrays` says whether it has an ARRAY(SELECT …).
    """

    text: str
    inner: str
    columns: tuple[str, ...]
    types: tuple[str, ...]
    parameters: tuple[str, ...]
    arrays: bool


@dataclass(frozen=True, slots=True)
class Planned:
    """The planner's numbers: rows and their width in bytes, and rows that it folds into values (metering.py).

    `source` is the rows that a LIMIT at the top chooses from; without one it is `rows`.
    """

    rows: int
    folded: int
    width: int = 0
    source: int = 0


@dataclass(slots=True)
class Rows:
    """What has been read so far. `size` is the bytes of the rows' JSON; `stopped` says which bound ended it."""

    count: int = 0
    size: int = 0
    stopped: str | None = None


@contextlib.asynccontextmanager
async def sandbox(session: Session, search_path: Sequence[str], bounds: Bounds) -> AsyncGenerator[None]:
    """A read-only transaction with every bound that the server keeps, ended by our own deadline at the latest."""
    async with opening_sandbox(session, search_path, bounds) as opening:
        await opening
        yield


@contextlib.asynccontextmanager
async def opening_sandbox(
    session: Session, search_path: Sequence[str], bounds: Bounds
) -> AsyncGenerator[asyncio.Future[None]]:
    """A sandbox whose opening is under way: await what this yields before anything is sent into it."""
    try:
        async with asyncio.timeout(bounds.total):
            opening = asyncio.ensure_future(_open(session, _opening(search_path, bounds)))
            try:
                yield opening
            except BaseException:
                opening.cancel()
                raise
            finally:
                if not opening.done():
                    await asyncio.wait([opening])
                if not opening.cancelled():
                    opening.exception()  # whoever did not await it need not know
    except TimeoutError:
        session.terminate()
        raise QueryTimeout("The query did not end in time.") from None
    except asyncpg.QueryCanceledError:
        raise QueryTimeout("The query did not end in time.") from None
    except asyncpg.PostgresError as error:
        raise QueryFailed(error.sqlstate or "XX000", ran=True) from None
    except LOST as error:
        session.terminate()
        raise DatabaseLost("The connection to the publisher's database was lost during the query.") from error


async def _open(session: Session, recipe: str) -> None:
    await session.execute(recipe)


async def describe(session: Session, checked: CheckedQuery, bounds: Bounds) -> Described:
    """Ask the server for the query's columns and parameter types. Nothing is executed."""
    statement = await session.prepare(checked.text)
    parameters = tuple(kind.name for kind in statement.get_parameters())
    attributes = statement.get_attributes()
    columns = _distinct([attribute.name for attribute in attributes])
    inner = typed(checked.text, parameters) if parameters else checked.text
    listed = ", ".join(_quoted(column) for column in columns)
    names = f"({listed})" if columns else ""
    text = (
        f"SELECT CASE WHEN octet_length(r.j) <= {bounds.row_size} THEN r.j END, octet_length(r.j) FROM "  # noqa: S608
        f"(SELECT row_to_json(q.*)::text AS j FROM ({inner}) AS q{names} OFFSET 0) AS r"
    )
    types = tuple(attribute.type.name for attribute in attributes)
    return Described(text, inner, columns, types, parameters, checked.arrays)


async def plan(session: Session, described: Described, values: Sequence[str | None], bounds: Bounds) -> Planned:
    """Return the planner's numbers. EXPLAIN evaluates constant expressions, so it runs in the sandbox and in time."""
    async with asyncio.timeout(bounds.plan):
        text: str = await session.fetchval(f"EXPLAIN (VERBOSE, FORMAT JSON) {described.inner}", *values)
    node: dict[str, Any] = orjson.loads(text)[0]["Plan"]
    rows, source = planned_rows(node)
    return Planned(rows, folded_rows(node, arrays=described.arrays), int(node.get("Plan Width", 0)), source)


async def rows(
    session: Session, described: Described, values: Sequence[str | None], bounds: Bounds, read: Rows
) -> AsyncIterator[list[bytes]]:
    """Yield the rows as JSON objects, in lots; `read` counts them. Ends at the first bound that is reached."""
    portal = Portal(session, described.text, values)
    wanted = min(FIRST_FETCH, bounds.rows)
    while wanted > 0:
        fetched = await portal.fetch(wanted)
        lot: list[bytes] = []
        for document, size in fetched:
            if document is None:
                read.stopped = "row_size"
                break
            if read.size + size > bounds.size:
                read.stopped = "size"
                break
            lot.append(document.encode())
            read.count += 1
            read.size += size
        if lot:
            yield lot
        if read.stopped is not None or len(fetched) < wanted:
            return
        average = max(1, read.size // max(1, read.count))
        wanted = min(LARGEST_FETCH, max(1, FETCH_BYTES // average), bounds.rows - read.count)
    if await portal.fetch(1):
        read.stopped = "rows"


def failed_before_running(error: DatabaseError) -> bool:
    """Return whether nothing of the query was executed, so that nothing is due."""
    return not isinstance(error, QueryFailed | QueryTimeout | DatabaseLost)


def _opening(search_path: Sequence[str], bounds: Bounds) -> str:
    path = ", ".join(["pg_catalog", *(_quoted(schema) for schema in search_path), "pg_temp"])
    milliseconds = int(bounds.statement * 1000)
    return f"""
        BEGIN READ ONLY;
        SET LOCAL search_path = {path};
        SET LOCAL statement_timeout = {milliseconds};
        SET LOCAL lock_timeout = 500;
        SET LOCAL idle_in_transaction_session_timeout = {int(bounds.total * 1000) + 1000};
        SET LOCAL work_mem = '16MB';
        SET LOCAL max_parallel_workers_per_gather = 0;
        SET LOCAL jit = off;
        SET LOCAL timezone = 'UTC';
        SET LOCAL standard_conforming_strings = on;
        SET LOCAL datestyle = 'ISO';
        SET LOCAL intervalstyle = 'iso_8601';
        SET LOCAL bytea_output = 'hex';
        SET LOCAL plan_cache_mode = 'force_custom_plan'
    """


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names with later ones of the same name numbered: a JSON object has each name once."""
    seen: set[str] = set()
    found: list[str] = []
    for name in names:
        chosen, number = name, 1
        while chosen in seen:
            number += 1
            chosen = f"{name[:50]}_{number}"
        seen.add(chosen)
        found.append(chosen)
    return tuple(found)
