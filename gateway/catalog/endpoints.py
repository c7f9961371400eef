"""Which documented endpoint a request names: exact for pricing, suspicious of every other reading.

Price and protection must follow from what the upstream will do, but an upstream may read a path in its own way: decode
%2F, ignore case, collapse //, drop ;parameters or a trailing slash, take a backslash for a slash. So a target is read
twice: literally, and with all of these applied. Where the two readings name different endpoints, both count: the dearer
price is charged and either one's protection applies, so that no spelling of a path is cheaper than another.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from gateway.settings import SettlementPolicy

VARIABLE = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*\}", re.ASCII)
# A path whose two readings are the same: no escapes, parameters, empty or dotted segments, capitals, final slash.
PLAIN = re.compile(rb"(?:/[a-z0-9_~!$&'()*+,=:@-][a-z0-9_.~!$&'()*+,=:@-]*)*", re.ASCII)
MAX_DECODINGS = 4

Segments = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One documented endpoint. `price` is atomic units of the publisher's primary asset, None to use method prices."""

    method: str
    path: str
    price: int | None
    is_protected: bool = False
    protection_reason: str | None = None
    settlement: SettlementPolicy | None = None
    required_headers: tuple[str, ...] = ()
    required_params: tuple[str, ...] = ()

    @property
    def requires(self) -> bool:
        """Return whether a request must bring something."""
        return bool(self.required_headers or self.required_params)


@dataclass(frozen=True, slots=True)
class Reading:
    """The literal and the loose segments of a path below the slug; the same object when nothing differs."""

    literal: Segments
    loose: Segments


class AmbiguousPath(ValueError):
    """The path climbs, is escaped wrongly or more often than anyone honest would. The message says which."""


def read_path(path: bytes) -> Reading:
    """Return both readings of a raw path that is empty or starts with a slash.

    Raises AmbiguousPath for dot segments in any spelling, bad escapes and NUL bytes: none of them reaches an upstream.
    """
    if PLAIN.fullmatch(path):
        segments = tuple(path.decode("ascii").split("/")[1:])
        return Reading(segments, segments)
    if re.search(rb"%(?![0-9A-Fa-f]{2})", path):
        raise AmbiguousPath("a percent sign is not followed by two hexadecimal digits")
    literal = tuple(_text(unquote_to_bytes(segment)) for segment in path.split(b"/")[1:])
    decoded = _decode_fully(path)
    if b"\0" in decoded:
        raise AmbiguousPath("it contains a NUL byte")
    pieces = [piece.split(";", 1)[0] for piece in re.split(r"[/\\]", _text(decoded))]
    if any(piece in (".", "..") for piece in pieces):
        raise AmbiguousPath("dot segments are not allowed, in any spelling")
    return Reading(literal, tuple(piece.casefold() for piece in pieces if piece))


def _decode_fully(path: bytes) -> bytes:
    for _ in range(MAX_DECODINGS):
        decoded = unquote_to_bytes(path)
        if decoded == path:
            return decoded
        path = decoded
    raise AmbiguousPath("it is percent-encoded too many times over")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def template_segments(path: str) -> Segments:
    """Return the segments of a template such as "/v1/items/{id}"; a variable is kept as "{}"."""
    return tuple("{}" if VARIABLE.fullmatch(segment) else segment for segment in path.split("/")[1:])


class EndpointTable:
    """A publisher's documented endpoints, indexed once when the snapshot is built."""

    __slots__ = ("_exact", "_loose", "_templates", "_templates_loose", "listed")

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self.listed = tuple(endpoints)
        self._exact: dict[tuple[str, Segments], Endpoint] = {}
        self._loose: dict[tuple[str, Segments], Endpoint] = {}
        self._templates: dict[tuple[str, int], list[tuple[Segments, Endpoint]]] = {}
        self._templates_loose: dict[tuple[str, int], list[tuple[Segments, Endpoint]]] = {}
        for endpoint in self.listed:
            segments = template_segments(endpoint.path)
            loose = tuple(segment.casefold() for segment in segments if segment)
            _index(self._exact, self._templates, endpoint, segments)
            _index(self._loose, self._templates_loose, endpoint, loose)
        for table in (*self._templates.values(), *self._templates_loose.values()):
            table.sort(key=lambda row: tuple(segment == "{}" for segment in row[0]))

    def __bool__(self) -> bool:
        return bool(self._exact or self._templates)

    def match(self, method: str, reading: Reading) -> tuple[Endpoint | None, ...]:
        """Return what the request may name: one entry when both readings agree, else both. None is "undocumented"."""
        wanted = "GET" if method == "HEAD" else method
        literal = _find(self._exact, self._templates, wanted, reading.literal)
        if reading.loose is reading.literal:
            return (literal,)
        loose = _find(self._loose, self._templates_loose, wanted, reading.loose)
        return (literal,) if loose is literal else (literal, loose)


def _index(
    exact: dict[tuple[str, Segments], Endpoint],
    templates: dict[tuple[str, int], list[tuple[Segments, Endpoint]]],
    endpoint: Endpoint,
    segments: Segments,
) -> None:
    if "{}" in segments:
        templates.setdefault((endpoint.method, len(segments)), []).append((segments, endpoint))
    else:
        exact.setdefault((endpoint.method, segments), endpoint)


def _find(
    exact: dict[tuple[str, Segments], Endpoint],
    templates: dict[tuple[str, int], list[tuple[Segments, Endpoint]]],
    method: str,
    segments: Segments,
) -> Endpoint | None:
    found = exact.get((method, segments))
    if found is not None:
        return found
    for pattern, endpoint in templates.get((method, len(segments)), ()):
        if all(part in ("{}", segment) for part, segment in zip(pattern, segments, strict=True)):
            return endpoint
    return None
