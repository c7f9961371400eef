"""Objects of Stripe's stand-in as they are sent: parts put in whole, and private members left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def each(found: Any, path: list[str], change: Callable[[Any], Any]) -> None:
    """Change what lies at a path, in every member of the lists on the way."""
    name, *rest = path
    for one in found if isinstance(found, list) else [found]:
        if one.get(name) is None:
            continue
        if not isinstance(one[name], list):
            one[name] = change(one[name])
        if rest:
            each(one[name], rest, change)


def shown(it: Any) -> Any:
    """Return an object without what only this server knows of it."""
    if isinstance(it, dict):
        return {name: shown(value) for name, value in it.items() if not name.startswith("_")}
    return [shown(one) for one in it] if isinstance(it, list) else it
