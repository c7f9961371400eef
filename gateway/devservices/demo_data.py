"""The facts that the demo publishers sell: Unicode characters and generated daily market prices. Pure, no network.

Characters come from the interpreter's own Unicode database, so they are real. Prices are invented, but the same on
every machine and for ever: each is a function of symbol and day alone. What a request costs is not known here.
"""

from __future__ import annotations

import functools
import hashlib
import math
import re
import unicodedata
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

SYMBOLS = {
    "ACME": ("Acme Industrial", 84.0),
    "BOLT": ("Bolt Fasteners", 31.5),
    "CRNE": ("Crane Shipping", 142.0),
    "DUNE": ("Dune Energy", 56.2),
    "ECHO": ("Echo Networks", 219.0),
    "FERN": ("Fern Agriculture", 18.4),
    "GLAS": ("Glasworks", 73.9),
    "HALO": ("Halo Medical", 318.0),
    "IRIS": ("Iris Imaging", 97.3),
    "JADE": ("Jade Minerals", 12.8),
}
# Names the Unicode standard derives from the code point itself: noise in a search.
DERIVED_NAMES = ("CJK UNIFIED IDEOGRAPH-", "CJK COMPATIBILITY IDEOGRAPH-", "HANGUL SYLLABLE ", "TANGUT IDEOGRAPH-")
LAST_CODE_POINT = 0x10FFFF
CODE_POINT = re.compile(r"(?:[Uu]\+)?([0-9A-Fa-f]{1,6})")
FIRST_DAY = date(1990, 1, 1)
LAST_DAY = date(2099, 12, 31)


class UnknownFact(LookupError):
    """There is no such character, symbol or day. The message may be shown to the caller."""


def parse_code_point(text: str) -> int:
    """Read `U+20AC`, `20ac` or the character itself. Raises UnknownFact."""
    if len(text) == 1 and not text.isascii():
        return ord(text)
    match = CODE_POINT.fullmatch(text)
    value = int(match[1], 16) if match else -1
    if not 0 <= value <= LAST_CODE_POINT:
        raise UnknownFact("a code point is written like U+20AC, up to U+10FFFF")
    return value


def character(code_point: int) -> dict[str, object]:
    """Return what the Unicode database says about one character. Raises UnknownFact where none is assigned."""
    char = chr(code_point)
    category = unicodedata.category(char)
    if category in ("Cn", "Cs"):
        raise UnknownFact(f"no character is assigned to U+{code_point:04X}")
    numeric = unicodedata.numeric(char, None)
    return {
        "code_point": f"U+{code_point:04X}",
        "character": char,
        "name": unicodedata.name(char, ""),
        "category": category,
        "bidirectional": unicodedata.bidirectional(char),
        "combining": unicodedata.combining(char),
        "east_asian_width": unicodedata.east_asian_width(char),
        "mirrored": bool(unicodedata.mirrored(char)),
        "numeric": numeric,
        "decomposition": unicodedata.decomposition(char),
        "upper": char.upper(),
        "lower": char.lower(),
        "utf8": char.encode().hex(" "),
        "utf16": char.encode("utf-16-be").hex(" "),
        "unicode_version": unicodedata.unidata_version,
    }


@functools.cache
def character_names() -> tuple[tuple[str, int], ...]:
    """Return (name, code point) of every character with a name of its own; about 0.2 s the first time."""
    named = ((unicodedata.name(chr(point), ""), point) for point in range(LAST_CODE_POINT + 1))
    return tuple((name, point) for name, point in named if name and not name.startswith(DERIVED_NAMES))


def search(query: str, limit: int) -> dict[str, object]:
    """Return the characters whose name holds every word of the query, whole words first."""
    words = query.upper().split()
    found: list[tuple[int, int, str]] = []
    for name, point in character_names() if words else ():
        if all(word in name for word in words):
            parts = name.split()
            found.append((sum(word not in parts for word in words) * 100 + len(parts), point, name))
    found.sort()
    results = [
        {"code_point": f"U+{point:04X}", "character": chr(point), "name": name} for _, point, name in found[:limit]
    ]
    return {"query": query, "total": len(found), "results": results}


@functools.cache
def names_file() -> bytes:
    """Return the list of all named characters as a text file, about 1 MB: something to download in ranges."""
    lines = (f"{point:04X}\t{name}\n" for name, point in character_names())
    return f"# Unicode {unicodedata.unidata_version}\n".encode() + "".join(lines).encode()


def parse_day(text: str | None) -> date:
    """Read an ISO day; none means today (UTC). Raises UnknownFact."""
    if not text:
        return datetime.now(UTC).date()
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise UnknownFact("a day is written like 2026-01-31") from None
    if not FIRST_DAY <= day <= LAST_DAY:
        raise UnknownFact(f"prices exist from {FIRST_DAY} to {LAST_DAY}")
    return day


def quote(symbol: str, day: date) -> dict[str, object]:
    """Return one day's prices. Raises UnknownFact for a symbol that is not traded."""
    if symbol not in SYMBOLS:
        raise UnknownFact(f"no such symbol; there are {', '.join(SYMBOLS)}")
    opened, closed = _close(symbol, day - timedelta(days=1)), _close(symbol, day)
    spread = 0.012 * _noise(symbol, day, "spread")
    return {
        "symbol": symbol,
        "name": SYMBOLS[symbol][0],
        "day": day.isoformat(),
        "currency": "USD",
        "open": round(opened, 2),
        "high": round(max(opened, closed) * (1 + spread), 2),
        "low": round(min(opened, closed) * (1 - spread), 2),
        "close": round(closed, 2),
        "volume": int(50_000 + 950_000 * _noise(symbol, day, "volume")),
    }


def history(symbol: str, first: date, last: date, limit: int) -> Iterator[dict[str, object]]:
    """Yield each day's prices from first to last, at most `limit` days."""
    for offset in range(min((last - first).days + 1, limit)):
        yield quote(symbol, first + timedelta(days=offset))


def _close(symbol: str, day: date) -> float:
    # A sum of slow waves with a phase per symbol, and a little noise: looks like a market, needs no history.
    phase = 2 * math.pi * _noise(symbol, FIRST_DAY, "phase")
    t = (day - FIRST_DAY).days
    trend = 0.22 * math.sin(t / 311 + phase) + 0.09 * math.sin(t / 47 + 2 * phase) + 0.03 * math.sin(t / 9 + 3 * phase)
    return SYMBOLS[symbol][1] * math.exp(trend + 0.02 * (_noise(symbol, day, "close") - 0.5))


def _noise(symbol: str, day: date, kind: str) -> float:
    """Return a number in [0, 1) that depends on its arguments alone."""
    digest = hashlib.sha256(f"{symbol}/{day.isoformat()}/{kind}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
