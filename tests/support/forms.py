"""Forms with brackets, as Stripe's API takes them."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl


def tree(form: str) -> dict[str, Any]:
    """Read a form with brackets: `a[b][0]=c` is {"a": {"b": ["c"]}}."""
    made: dict[str, Any] = {}
    for name, value in parse_qsl(form, keep_blank_values=True):
        place: Any = made
        path = name.replace("]", "").split("[")
        for step in path[:-1]:
            place = place.setdefault(step, {})
        place[path[-1]] = value
    return _lists(made)


def _lists(it: Any) -> Any:
    if not isinstance(it, dict):
        return it
    inner = {name: _lists(value) for name, value in it.items()}
    if inner and all(name.isdigit() for name in inner):
        return [inner[name] for name in sorted(inner, key=int)]
    return inner
