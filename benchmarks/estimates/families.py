"""Families of queries, read from *_queries.sql: one text with places for constants, and sets of constants for it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent


class Family(NamedTuple):
    """Queries of one shape."""

    name: str
    text: str
    constants: tuple[tuple[str, ...], ...]

    @property
    def queries(self) -> list[str]:
        """Return the text with each set of constants."""
        return [_filled(self.text, ones) for ones in self.constants]


def read_families(name: str) -> list[Family]:
    """Read `name`_queries.sql: families have a name line, a text and lines of constants, and stand apart."""
    _, *parts = (HERE / f"{name}_queries.sql").read_text(encoding="utf-8").split("\n\n")
    return [_family(part.strip().splitlines()) for part in parts if part.strip()]


def _family(lines: list[str]) -> Family:
    constants = tuple(tuple(line[3:].strip().split(" | ")) for line in lines if line.startswith("--:"))
    text = " ".join(line.strip() for line in lines[1:] if not line.startswith("--"))
    return Family(lines[0].removeprefix("-- "), text, constants)


def _filled(text: str, constants: tuple[str, ...]) -> str:
    return re.sub(r"\{(\d)\}", lambda place: constants[int(place[1])], text)
