"""The contract's envelopes and paging, once for all resources."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel, ConfigDict, PlainSerializer, WithJsonSchema

MAX_OFFSET = 1_000_000_000


def rfc3339(moment: datetime) -> str:
    """Return a moment in UTC with Z, to the microsecond that the database keeps."""
    text = moment.astimezone(UTC).isoformat(timespec="microseconds")
    return text.replace("+00:00", "Z")


Moment = Annotated[
    datetime,
    PlainSerializer(rfc3339, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
Offset = Annotated[int, Query(ge=0, le=MAX_OFFSET)]


class Answer(BaseModel):
    """A response model: built from our own objects, sent as it is."""

    model_config = ConfigDict(from_attributes=True)


class PaginationMeta(Answer):
    """Where a page lies in the whole list."""

    count: int
    total: int
    limit: int
    offset: int
    has_more: bool


class OffsetPaginationMeta(PaginationMeta):
    """The same, where the contract always sends it."""


class SuspensionTold(Answer):
    """What the owner of something is told of its suspension; null where it is not suspended."""

    kind: str
    reason: str
    since: Moment


def page(items: Sequence[Any], *, total: int, limit: int, offset: int) -> dict[str, Any]:
    """Return the pagination member of a page."""
    return {
        "count": len(items),
        "total": total,
        "limit": limit,
        "offset": offset,
        "has_more": offset + len(items) < total,
    }
