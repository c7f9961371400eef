"""Options that several benchmarks share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

PLACES = ("--output", "--against")


class Listed(click.ParamType):
    """A comma-separated list of words of a kind, or of whole numbers."""

    def __init__(self, name: str, allowed: Sequence[str] = ()) -> None:
        self.name = name
        self._allowed = allowed

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Split and check."""
        if not isinstance(value, str):
            return value
        words = [word.strip() for word in value.split(",") if word.strip()]
        if self._allowed:
            wrong = [word for word in words if word not in self._allowed]
        else:
            wrong = [word for word in words if not word.isdigit() or int(word) < 1]
        if wrong or not words:
            self.fail(f"{value!r}: use a comma-separated list of {', '.join(self._allowed) or 'whole numbers'}")
        return words if self._allowed else [int(word) for word in words]


def without_places(arguments: Sequence[str]) -> list[str]:
    """Return the arguments less the values that name places on this machine."""
    kept: list[str] = []
    hidden = False
    for word in arguments:
        name, equals, _ = word.partition("=")
        kept.append(f"{name}=..." if equals and name in PLACES else "..." if hidden else word)
        hidden = word in PLACES
    return kept


def interrupt(_number: int, _frame: object) -> None:
    """Handle SIGTERM like Ctrl-C, so that everything is stopped."""
    raise KeyboardInterrupt
