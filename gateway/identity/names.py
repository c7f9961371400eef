"""Names of agents: inventing star-themed ones and checking those that callers choose. Pure but for the random source.

Two stars' worth of words and sixteen random bits give about 100 million names; a taken one is simply drawn again.
"""

from __future__ import annotations

import re
import secrets
import unicodedata

MAX_NAME = 64

FIRST = (
    "amber", "astral", "aurora", "blazing", "bright", "celestial", "cobalt", "cosmic", "crimson", "distant", "eclipsed",
    "ember", "eternal", "gilded", "gleaming", "glowing", "golden", "halcyon", "infinite", "ivory", "lucid", "luminous",
    "lunar", "nebular", "nocturnal", "orbital", "pale", "polar", "pulsing", "quiet", "radiant", "rising", "sapphire",
    "serene", "shining", "sidereal", "silver", "solar", "stellar", "twilight", "velvet", "wandering",
)  # fmt: skip
SECOND = (
    "achernar", "albireo", "alcor", "alcyone", "aldebaran", "algol", "alhena", "alioth", "alnitak", "altair", "antares",
    "arcturus", "atria", "bellatrix", "betelgeuse", "canopus", "capella", "castor", "deneb", "dubhe", "elnath",
    "fomalhaut", "gemma", "hadar", "hamal", "izar", "mimosa", "mira", "mizar", "nunki", "polaris", "pollux", "procyon",
    "rasalhague", "regulus", "rigel", "saiph", "shaula", "sirius", "spica", "thuban", "vega", "zosma",
)  # fmt: skip

_SPACES = re.compile(r"\s+")
# Control, format (bidi overrides, zero width), surrogate, private and unassigned characters hide what a name says.
_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


class NameRefused(ValueError):
    """A chosen name is not usable. The message says why in words for the caller."""


def invent() -> str:
    """Return a new name such as `radiant-sirius-a1b2`. Uniqueness is the database's to decide."""
    return f"{secrets.choice(FIRST)}-{secrets.choice(SECOND)}-{secrets.token_hex(2)}"


def check(text: str, *, longest: int = MAX_NAME) -> str:
    """Return a chosen name in normal form: NFC, trimmed, single blanks. Raises NameRefused."""
    normal = unicodedata.normalize("NFC", text)
    if any(unicodedata.category(char) in _UNSEEN for char in normal):
        raise NameRefused("must not contain control or invisible characters")
    name = _SPACES.sub(" ", normal).strip()
    if not 1 <= len(name) <= longest:
        raise NameRefused(f"must be 1 to {longest} characters long")
    return name


def slug_of(name: str) -> str:
    """Return the URL form of a name: a-z, 0-9 and single dashes, at most 64; empty when nothing remains."""
    ascii_only = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", ascii_only).strip("-")[:64].strip("-")
