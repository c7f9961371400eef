"""Paths into a publisher's JSON answer, as publishers write them: `usage.cost`, `data.items[0].id`, `$.token`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import cast

_STEP = re.compile(r"[^.\[\]]+|\[[0-9]+\]")


class _Missing:
    """What is at a path that leads nowhere."""


MISSING = _Missing()


def pick(document: object, path: str) -> object:
    """Return what is at a path, or None where it leads nowhere. A leading `$` is the document itself."""
    found = look_up(document, path)
    return None if found is MISSING else found


def look_up(document: object, path: str) -> object:
    """Return what is at a path, null included, or MISSING where it leads nowhere."""
    steps: list[str] = _STEP.findall(path)
    if steps and steps[0] == "$":
        steps = steps[1:]
    for step in steps:
        if step.startswith("["):
            document = _item(document, int(step[1:-1]))
        elif isinstance(document, Mapping):
            document = cast("Mapping[str, object]", document).get(step, MISSING)
        else:
            document = _item(document, int(step)) if step.isdigit() else MISSING
        if document is MISSING:
            return MISSING
    return document


def _item(document: object, place: int) -> object:
    if isinstance(document, str | bytes) or not isinstance(document, Sequence):
        return MISSING
    items = cast("Sequence[object]", document)
    return items[place] if place < len(items) else MISSING
