"""What an upstream's own answer says that it cost: found while the body passes, without keeping more than MOST bytes.

Lives here: readers of JSON, of events and of lines of JSON, and the numbers in them, which stay exact text until they
are decimals. Not here: where events begin and end (events.py), what that comes to (tariffs/pay_per_use.py). Prevents an
answer, however large, deep or compressed, from costing more memory than its bound: what is too large is not read, and
then says nothing.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Protocol, cast

from pricing.events import EventReader
from pricing.response_path import pick

MOST = 1 << 20
"""Bytes of a JSON answer, of one event and of one line that are looked into."""

# Bounded, so that no number takes long to be turned into one.
_NUMBER = re.compile(r"[0-9]{1,100}(?:\.[0-9]{1,100})?(?:[eE][+-]?[0-9]{1,2})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Watch:
    """Where an answer says what it cost: an amount at a path or in a field (lower case), or counts at paths."""

    cost_path: str | None = None
    header: bytes | None = None
    unit_paths: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """Return every path to look at."""
        return (self.cost_path,) if self.cost_path is not None else self.unit_paths


@dataclass(slots=True)
class Reading:
    """What was found: numbers by path, the cost of a header, and the bytes of the body. `paid` is what the gateway paid
    the upstream for it, in atomic units.
    """

    values: dict[str, Decimal] = field(default_factory=dict[str, Decimal])
    header: Decimal | None = None
    size: int = 0
    paid: int = 0


class Reader(Protocol):
    """Takes a body in pieces; `end` looks at what is left."""

    def feed(self, piece: bytes) -> None: ...
    def end(self) -> None: ...


def number(value: object) -> Decimal | None:
    """Return a number as JSON or a header has it, exactly; None for what is no number of a sane size from 0 up."""
    return Decimal(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else None


def reader_for(watch: Watch, content_type: str, coding: str, reading: Reading) -> Reader:
    """Return what reads a body of this media type and content coding into `reading`."""
    kind = content_type.partition(";")[0].strip().lower()
    if not watch.paths:
        return _Blind()
    if kind == "text/event-stream":
        reader: Reader = _Events(watch, reading)
    elif kind in ("application/x-ndjson", "application/jsonl", "application/x-jsonlines"):
        reader = _Lines(watch, reading)
    else:
        reader = _Whole(watch, reading)
    match coding.strip().lower():
        case "" | "identity":
            return reader
        case "gzip" | "x-gzip" | "deflate":
            return _Unpacked(reader)
        case _:
            return _Blind()


class _Blind:
    """Reads nothing: there is nothing to find, or nobody here can decode it."""

    def feed(self, piece: bytes) -> None:
        """Pass."""

    def end(self) -> None:
        """Pass."""


class _Whole:
    """One JSON document."""

    def __init__(self, watch: Watch, reading: Reading) -> None:
        self._watch, self._reading = watch, reading
        self._kept: bytearray | None = bytearray()

    def feed(self, piece: bytes) -> None:
        """Keep a piece, or nothing any more once it is too much."""
        if self._kept is not None:
            self._kept += piece
            if len(self._kept) > MOST:
                self._kept = None

    def end(self) -> None:
        """Look."""
        if self._kept:
            _look(bytes(self._kept), self._watch.paths, self._reading.values)


class _Lines:
    """JSON documents, one a line. The last word about a path counts: streams count up."""

    def __init__(self, watch: Watch, reading: Reading) -> None:
        self._watch, self._reading = watch, reading
        self._rest = b""
        self._skipping = False

    def feed(self, piece: bytes) -> None:
        """Take the lines that are whole."""
        *lines, rest = (self._rest + piece).split(b"\n")
        for line in lines:
            if not self._skipping:
                self._take(line)
            self._skipping = False
        self._skipping = self._skipping or len(rest) > MOST
        self._rest = b"" if self._skipping else rest

    def end(self) -> None:
        """Take a line that was not ended."""
        self._take(self._rest)

    def _take(self, line: bytes) -> None:
        if line := line.removesuffix(b"\r"):
            _look(line, self._watch.paths, self._reading.values)


class _Events:
    """Server-sent events whose data is JSON; what is not, such as `[DONE]`, says nothing. The last word counts."""

    def __init__(self, watch: Watch, reading: Reading) -> None:
        self._watch, self._reading = watch, reading
        self._events = EventReader(MOST)

    def feed(self, piece: bytes) -> None:
        """Look into the events that are whole."""
        self._look(self._events.take(piece))

    def end(self) -> None:
        """Look into an event that was not ended."""
        self._look(self._events.end())

    def _look(self, found: Iterable[bytes]) -> None:
        for data in found:
            _look(data, self._watch.paths, self._reading.values)


class _Unpacked:
    """Decodes gzip and deflate, in steps, so that a small piece cannot become a large one."""

    STEP = 65_536

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._decoder = zlib.decompressobj(wbits=47)  # gzip or zlib, by what it begins with
        self._broken = False

    def feed(self, piece: bytes) -> None:
        """Decode a piece; what cannot be decoded ends the reading."""
        while piece and not self._broken:
            try:
                self._reader.feed(self._decoder.decompress(piece, self.STEP))
            except zlib.error:
                self._broken = True
            piece = self._decoder.unconsumed_tail

    def end(self) -> None:
        """Look at what is left."""
        self._reader.end()


def _look(text: bytes, paths: Sequence[str], found: dict[str, Decimal]) -> None:
    """Put the numbers of one document under their paths."""
    try:
        document: object = json.loads(text, parse_float=str, parse_int=str, parse_constant=str)
    except (ValueError, RecursionError):
        return
    if isinstance(document, Mapping | list):
        for path in paths:
            value = number(pick(cast("object", document), path))
            if value is not None:
                found[path] = value
