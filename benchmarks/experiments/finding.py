"""What an experiment is given, and what it hands back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.cases import Case
from benchmarks.rounds import Caller
from benchmarks.stack import Stack


@dataclass(frozen=True, slots=True)
class Setting:
    """What an experiment is given. `usual` is the case of our prepaid path, and `capacity` what it reaches in a closed
    loop, in calls a second. Names of files that it writes beside the report begin with `name`.
    """

    stack: Stack
    caller: Caller
    usual: Case
    capacity: float
    quick: bool
    directory: Path
    name: str

    @property
    def server(self) -> str:
        """Return the server of our gateway."""
        return self.usual.server


@dataclass(frozen=True, slots=True)
class Chart:
    """A plot: the last part of its file's name, its title, and the SVG."""

    kind: str
    title: str
    svg: str


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome: `document` for the JSON, `text` for people. `sound`: no money was lost or invented meanwhile."""

    name: str
    title: str
    document: dict[str, Any]
    text: str
    sound: bool = True
    charts: list[Chart] = field(default_factory=list[Chart])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))
