"""A query's answer as an Arrow IPC stream: columns of Arrow's own types where one holds every value of PostgreSQL's.

A column is text where Arrow has no type that keeps all: numeric has no precision of its own, arrays no fixed depth.
Infinite dates and times, which Arrow does not know, are the greatest and least values of the column's type.
"""

from __future__ import annotations

import io
import json
import re
from array import array
from collections.abc import Callable, Sequence
from typing import Any, cast

import nanoarrow
from nanoarrow import ipc

na, streams = cast("Any", nanoarrow), cast("Any", ipc)  # it has no types of its own
_DATE = re.compile(r"(\d{4,})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?)?(?:[+-]00:?(?:00)?)?( BC)?")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_EDGES = {"infinity": 1, "-infinity": -1}

Read = Callable[[str], Any]
"""Makes a value of the JSON text that PostgreSQL wrote, of anything but null."""


class ArrowWriter:
    """Writes batches of rows. `kinds` are PostgreSQL's names of the columns' types."""

    def __init__(self, names: Sequence[str], kinds: Sequence[str]) -> None:
        self._columns = [_COLUMNS.get(kind, _OTHERS) for kind in kinds]
        self._schema = na.struct({name: column[0] for name, column in zip(names, self._columns, strict=True)})
        self._body = io.BytesIO()
        self._stream = streams.StreamWriter.from_writable(self._body)
        self._begun = False

    def rows(self, lot: Sequence[Sequence[str | None]]) -> bytes:
        """Return a batch, with the schema before the first. Fields are JSON texts, None for null."""
        children = list[Any]()
        for place, (kind, read) in enumerate(self._columns):
            values = [None if fields[place] is None else read(fields[place] or "") for fields in lot]
            children.append(_timed(kind, values) if read in (_day, _instant) else na.c_array(values, kind))
        self._stream.write_array(na.c_array_from_buffers(self._schema, len(lot), [None], children=children))
        self._begun = True
        return self._taken()

    def end(self) -> bytes:
        """Return the end of the stream."""
        first = b"" if self._begun else self.rows([])
        self._stream.close()
        return first + self._taken()

    def _taken(self) -> bytes:
        piece = self._body.getvalue()
        self._body.seek(0)
        self._body.truncate()
        return piece


def _timed(kind: Any, values: Sequence[int | None]) -> Any:
    """Return an array of days or microseconds, which nanoarrow makes from buffers alone."""
    present = sum((value is not None) << place for place, value in enumerate(values))
    code = "i" if kind.type == na.Type.DATE32 else "q"
    buffers = [present.to_bytes((len(values) + 7) // 8, "little"), array(code, [value or 0 for value in values])]
    return na.c_array_from_buffers(kind, len(values), buffers)


def _text(raw: str) -> str:
    """Return a text as it is, and everything else as JSON writes it; so too what JSON can write and no text can be."""
    if not raw.startswith('"'):
        return raw
    text: str = json.loads(raw)
    return raw if _SURROGATE.search(text) else text


def _number(raw: str) -> float:
    return float(_text(raw))


def _truth(raw: str) -> bool:
    return raw == "true"


def _bytes(raw: str) -> bytes:
    return bytes.fromhex(_text(raw)[2:])


def _day(raw: str) -> int:
    """Return days since 1970-01-01."""
    text = _text(raw)
    edge = _EDGES.get(text)
    return _days(text)[0] if edge is None else _edge(edge, 31)


def _instant(raw: str) -> int:
    """Return microseconds since 1970-01-01 00:00."""
    text = _text(raw)
    edge = _EDGES.get(text)
    if edge is not None:
        return _edge(edge, 63)
    days, microseconds = _days(text)
    return days * 86_400_000_000 + microseconds


def _edge(side: int, bits: int) -> int:
    return (1 << bits) - 1 if side > 0 else -(1 << bits)


def _days(text: str) -> tuple[int, int]:
    """Return the days since 1970-01-01 and the microseconds of the day, in the proleptic Gregorian calendar."""
    found = _DATE.fullmatch(text)
    if found is None:
        raise ValueError("PostgreSQL wrote a date in a form that is not ISO's")
    year, month, day = (int(found[place]) for place in (1, 2, 3))
    year = 1 - year if found[8] else year
    if month < 3:  # years begin in March here, so that the leap day is the last one
        year, month = year - 1, month + 12
    days = 365 * year + year // 4 - year // 100 + year // 400 + (153 * (month - 3) + 2) // 5 + day - 719_469
    hour, minute, second = (int(found[place] or 0) for place in (4, 5, 6))
    fraction = int((found[7] or "").ljust(6, "0")[:6])
    return days, ((hour * 60 + minute) * 60 + second) * 1_000_000 + fraction


_OTHERS: tuple[Any, Read] = (na.string(), _text)
_COLUMNS: dict[str, tuple[Any, Read]] = {
    "int2": (na.int16(), int),
    "int4": (na.int32(), int),
    "int8": (na.int64(), int),
    "float4": (na.float32(), _number),
    "float8": (na.float64(), _number),
    "bool": (na.bool_(), _truth),
    "date": (na.date32(), _day),
    "timestamp": (na.timestamp("us"), _instant),
    "timestamptz": (na.timestamp("us", timezone="UTC"), _instant),
    "bytea": (na.binary(), _bytes),
}
"""Arrow's type of a column by PostgreSQL's, and what reads its values."""
