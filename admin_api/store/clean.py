"""Publishers' text as a page may show it. The templates escape markup; this takes care of what escaping leaves.

Control characters, marks that turn the direction of what follows (an address that reads backwards), invisible
characters, towers of combining marks, and texts without end.
"""

from __future__ import annotations

import re
import unicodedata

_INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_BREAKS = re.compile("\r\n?|[\u2028\u2029\x85]")
MAX_MARKS = 3


def clean(text: object, longest: int = 2_000) -> str:
    """Return a text fit to be shown, at most `longest` characters of it."""
    shown = str(text or "")[: 4 * longest]
    shown = _INVISIBLE.sub("", _BREAKS.sub("\n", shown))
    shown = _flattened(shown).strip()
    return shown if len(shown) <= longest else shown[: longest - 1].rstrip() + "…"


def _flattened(text: str) -> str:
    """Return a text whose letters carry no more marks than a language needs."""
    if text.isascii():
        return text
    kept: list[str] = []
    marks = 0
    for char in text:
        marks = marks + 1 if unicodedata.combining(char) or unicodedata.category(char) == "Me" else 0
        if marks <= MAX_MARKS:
            kept.append(char)
    return "".join(kept)


def line(text: object, longest: int = 200) -> str:
    """Return the same in one line."""
    return " ".join(clean(text, longest).split())
