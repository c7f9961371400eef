"""A query's answer in the form that was asked for. Rows arrive as JSON objects that PostgreSQL wrote, and stay so.

json     {"rows": [...], "row_count": ..., "cost": ..., ...}: the contract's envelope, totals last
ndjson   one row a line, then {"$summary": {...}}
csv      a header line and the rows; what the summary says stands in the head of the answer
arrow    an Arrow IPC stream (query_arrow.py); the summary as with csv
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.json_text import json_text
from gateway.proxy.query_arrow import ArrowWriter
from gateway.proxy.query_request import Form

TYPES: dict[Form, bytes] = {
    "json": b"application/json",
    "ndjson": b"application/x-ndjson",
    "csv": b"text/csv; charset=utf-8; header=present",
    "arrow": b"application/vnd.apache.arrow.stream",
}
_QUOTED = re.compile(r'[",\r\n]')
_SPACE = re.compile(r"[ \t\n\r]*")
_PARTS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]')
_SURROGATE = re.compile(r"[\ud800-\udfff]")
# Numbers stay as they are written: they may have more digits than a float keeps, or than Python reads as an integer.
_decoder = json.JSONDecoder(parse_int=str, parse_float=str)


@dataclass(frozen=True, slots=True)
class Summary:
    """What an answer says of itself. `truncated` names the bound that ended it early, None when it is whole."""

    row_count: int
    cost: str
    cost_atomic: int
    asset_symbol: str
    execution_time_ms: int
    metered_rows: int
    truncated: str | None
    payment_source: str = "prepaid_balance"

    def document(self) -> dict[str, Any]:
        """Return the members that follow the rows."""
        return {
            "row_count": self.row_count,
            "cost": self.cost,
            "cost_atomic": self.cost_atomic,
            "asset_symbol": self.asset_symbol,
            "execution_time_ms": self.execution_time_ms,
            "payment_source": self.payment_source,
            "metered_rows": self.metered_rows,
            "truncated": self.truncated,
        }


class Writer:
    """Turns lots of rows into pieces of the body. `name` must be called before the first."""

    def __init__(self, form: Form) -> None:
        self.form: Form = form
        self.streams = form in ("json", "ndjson")  # the others' totals are fields of the head, so they are sent last
        self._columns: Sequence[str] = ()
        self._arrow: ArrowWriter | None = None
        self._begun = False

    def name(self, columns: Sequence[str], types: Sequence[str]) -> None:
        """Say what the columns are called, and their types as PostgreSQL calls them."""
        self._columns = columns
        if self.form == "arrow":
            self._arrow = ArrowWriter(columns, types)

    def rows(self, lot: Sequence[bytes]) -> bytes:
        """Return the next piece."""
        if self._arrow is not None:
            return self._arrow.rows([[raw for raw, _ in _fields(row)] for row in lot])
        if self.form == "ndjson":
            return b"".join(_on_one_line(row) + b"\n" for row in lot)
        if self.form == "csv":
            first = b"" if self._begun else self._first()
            return first + b"".join(_csv_row(row) for row in lot)
        first = b"," if self._begun else self._first()
        return first + b",".join(lot)

    def end(self, summary: Summary) -> bytes:
        """Return the last piece."""
        if self._arrow is not None:
            return self._arrow.end()
        if self.form == "ndjson":
            return json_text({"$summary": summary.document()}) + b"\n"
        first = b"" if self._begun else self._first()
        if self.form == "csv":
            return first
        return first + b"]," + json_text(summary.document())[1:]

    def _first(self) -> bytes:
        self._begun = True
        if self.form == "csv":
            return _csv_line(self._columns)
        return b'{"rows":['


def _csv_line(fields: Sequence[str | None]) -> bytes:
    return (",".join(_csv_field(field) for field in fields) + "\r\n").encode()


def _csv_field(field: str | None) -> str:
    """Return a field (RFC 4180). Null is nothing, the empty text is two quotes."""
    if field is None:
        return ""
    return '"' + field.replace('"', '""') + '"' if not field or _QUOTED.search(field) else field


def _csv_row(row: bytes) -> bytes:
    """Return the values of a JSON object as a line: texts unquoted, everything else as it is written there."""
    return _csv_line([value if isinstance(value, str) else raw for raw, value in _fields(row)])


def _fields(row: bytes) -> Iterator[tuple[str | None, object]]:
    """Yield the values of a JSON object as they are written, None for null, and as they are read.

    A value of type json stands there as its owner wrote it, with spaces and lines around its parts.
    """
    text, at = row.decode(), 1
    while at < len(text) - 1:
        _, at = _decoder.raw_decode(text, at)
        begin = _after_space(text, at + 1)  # behind the colon
        value, at = _value(text, begin)
        yield None if value is None else text[begin:at], value
        at = _after_space(text, at) + 1  # behind the comma


def _value(text: str, begin: int) -> tuple[object, int]:
    """Return a value and where it ends; a string that is no text, and what is nested too deeply, as their JSON."""
    try:
        value, end = _decoder.raw_decode(text, begin)
    except RecursionError:
        end = _end_of_nested(text, begin)
        return text[begin:end], end
    return (text[begin:end] if isinstance(value, str) and _SURROGATE.search(value) else value), end


def _end_of_nested(text: str, begin: int) -> int:
    depth = 0
    for part in _PARTS.finditer(text, begin):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(part[0], 0)
        if depth == 0:
            return part.end()
    raise ValueError("PostgreSQL wrote JSON that does not end")


def _after_space(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return space.end() if space else at


def _on_one_line(row: bytes) -> bytes:
    """Return a JSON object without the line breaks that a value of type json may have between its parts."""
    return row.replace(b"\n", b" ").replace(b"\r", b" ") if b"\n" in row or b"\r" in row else row
