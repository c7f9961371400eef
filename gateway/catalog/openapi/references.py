"""Following $ref inside one document: never to a file or a host, never in circles."""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import unquote

from gateway.catalog.openapi.refused import DocumentRefused

MAX_HOPS = 16


class References:
    """Looks up what references of one document mean."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root

    def resolve(self, value: Any, place: str) -> Any:
        """Return what a value stands for: itself, or the end of its chain of references. Raises DocumentRefused."""
        for _ in range(MAX_HOPS):
            target = target_of(value)
            if target is None:
                return value
            value = self.at(target, place)
        raise DocumentRefused("has references that lead in a circle", place)

    def object_at(self, value: Any, place: str) -> dict[str, Any]:
        """Return what a value stands for, which has to be an object. Raises DocumentRefused."""
        found = self.resolve(value, place)
        if not isinstance(found, dict):
            raise DocumentRefused("must be an object", place)
        return cast("dict[str, Any]", found)

    def at(self, target: str, place: str) -> Any:
        """Return the value at a reference such as #/components/schemas/Pet. Raises DocumentRefused."""
        if not target.startswith("#"):
            raise DocumentRefused("has a $ref that leads out of the document; bundle it into one file first", place)
        value: Any = self._root
        for part in target[1:].split("/")[1:]:
            name = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(value, dict) and name in value:
                value = cast("dict[str, Any]", value)[name]
            elif isinstance(value, list) and name.isdigit() and len(name) < 6 and int(name) < len(cast("Any", value)):
                value = cast("list[Any]", value)[int(name)]
            else:
                raise DocumentRefused("has a $ref to something that is not in the document", place)
        return value


def target_of(value: Any) -> str | None:
    """Return where a reference object leads, None for anything else."""
    if isinstance(value, dict):
        target = cast("dict[str, Any]", value).get("$ref")
        return target if isinstance(target, str) else None
    return None
