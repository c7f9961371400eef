"""How upstreams may read the path of a request: every way that some server is known for. Pure.

    split and decode   split at slashes and decode each part (RFC 3986), decode first, decode twice, in any order
    separators         a backslash is a slash, or it is not
    end of the path    a decoded ? or # ends it, or it does not
    parameters         what follows a ; in a segment is dropped, or it is kept
    empty segments     are collapsed, or they are kept
    names              are compared as they are, or without regard to case, blanks and dots at the end

The last line is not a reading of its own: `loosened` gives the form in which such an upstream compares names. What does
not live here: which endpoint a reading names (endpoints.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

# A path that every upstream reads alike: no escapes, parameters, empty or dotted segments, capitals, final slash.
_PLAIN = re.compile(rb"(?:/[a-z0-9_~!$&'()*+,=:@-][a-z0-9_.~!$&'()*+,=:@-]*)*", re.ASCII)
MAX_DECODINGS = 2
MAX_SEGMENTS = 128
"""Of a path that can be read in several ways: each reading costs time that nobody has paid for yet."""
_BLANK_END = " \t\n\v\f\r."

Segments = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """The ways to read a path below the slug: `exact` with the literal one first, and `loose` without case."""

    exact: tuple[Segments, ...]
    loose: tuple[Segments, ...]

    @property
    def literal(self) -> Segments:
        """Return the reading of RFC 3986."""
        return self.exact[0]

    @property
    def is_plain(self) -> bool:
        """Return whether every upstream reads the path alike."""
        return self.exact is self.loose


class AmbiguousPath(ValueError):
    """The path climbs, is escaped wrongly or more often than anyone honest would. The message says which."""


def is_plain(path: bytes) -> bool:
    """Return whether every upstream reads a path alike."""
    return _PLAIN.fullmatch(path) is not None and b"./" not in path and not path.endswith(b".")


def read_path(path: bytes) -> Reading:
    """Return the readings of a raw path that is empty or starts with a slash.

    Raises AmbiguousPath for dot segments in any reading, bad escapes and NUL bytes: none of them reaches an upstream.
    """
    if is_plain(path):
        only = (tuple(path.decode("ascii").split("/")[1:]),)
        return Reading(only, only)
    if re.search(rb"%(?![0-9A-Fa-f]{2})", path):
        raise AmbiguousPath("a percent sign is not followed by two hexadecimal digits")
    decodings = _decodings(path)
    if b"\0" in decodings[-1]:
        raise AmbiguousPath("it contains a NUL byte")
    if len(re.findall(rb"[/\\]", decodings[-1])) > MAX_SEGMENTS:
        raise AmbiguousPath(f"it has more than {MAX_SEGMENTS} segments, and can be read in several ways")
    exact = tuple(dict.fromkeys(_readings(decodings)))
    if any(segment.strip() in (".", "..") for segments in exact for segment in segments):
        raise AmbiguousPath("dot segments are not allowed, in any spelling")
    return Reading(exact, tuple(dict.fromkeys(map(loosened, exact))))


def loosened(segments: Segments) -> Segments:
    """Return the form in which upstreams compare that ignore case, empty segments, and blanks and dots at the end."""
    names = (segment.casefold().rstrip(_BLANK_END) for segment in segments)
    return tuple(name for name in names if name)


def _decodings(path: bytes) -> list[bytes]:
    """Return a path as it came, decoded once, and twice, as far as that makes a difference."""
    found = [path]
    for _ in range(MAX_DECODINGS + 1):
        decoded = unquote_to_bytes(found[-1])
        if decoded == found[-1]:
            return found
        found.append(decoded)
    raise AmbiguousPath("it is percent-encoded more than twice over")


def _readings(decodings: list[bytes]) -> Iterator[Segments]:
    """Yield every reading, the literal one first: split as it came, each part decoded once."""
    last = len(decodings) - 1
    for splits_at, whole in enumerate(decodings):
        for parts in _split(whole):
            for decodes_to in range(max(splits_at, min(last, 1)), last + 1):
                segments = tuple(_text(part, decodes_to - splits_at) for part in parts)
                for named in dict.fromkeys((segments, tuple(part.split(";", 1)[0] for part in segments))):
                    yield named
                    yield tuple(part for part in named if part)


def _split(path: bytes) -> Iterator[list[bytes]]:
    for whole in dict.fromkeys((path, re.split(rb"[?#]", path, maxsplit=1)[0])):
        yield whole.split(b"/")[1:]
        if b"\\" in whole:
            yield re.split(rb"[/\\]", whole)[1:]


def _text(raw: bytes, decodings: int) -> str:
    for _ in range(decodings):
        if b"%" in raw:
            raw = unquote_to_bytes(raw)
    return raw.decode("utf-8", "surrogateescape")
