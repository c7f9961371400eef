"""Schemas in a plain form: written out, bounded, of JSON Schema 2020-12 only what says how a value looks.

Two uses. An import writes out what $ref leads to, because an endpoint stands alone. The document of what is on sale
passes publishers' own words through here, so that whatever they stored, the document is valid. What is not understood
is left out: a schema that says less is still true.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from gateway.catalog.openapi.references import References, target_of
from gateway.catalog.openapi.refused import DocumentRefused

MAX_LEVELS = 14
"""Levels of JSON: an endpoint's fields may have 16 (vocabulary.MAX_JSON_DEPTH)."""
MAX_SCHEMAS = 1_000
MAX_PROSE = 500
MAX_CHOICES = 100

TYPES = ("string", "number", "integer", "boolean", "array", "object", "null")
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_FLAGS = ("readOnly", "writeOnly", "deprecated", "uniqueItems")


class SchemaWriter:
    """Writes schemas out. `references` is the document that they refer into; without one, references say nothing."""

    def __init__(self, references: References | None = None) -> None:
        self._references = references
        self._left = MAX_SCHEMAS

    def plain(self, schema: object) -> dict[str, Any]:
        """Return a schema in the plain form; {} is one that says nothing."""
        self._left = MAX_SCHEMAS
        return self._plain(schema, 1, ())

    def _plain(self, schema: object, level: int, inside: tuple[str, ...]) -> dict[str, Any]:
        self._left -= 1
        if not isinstance(schema, dict) or level > MAX_LEVELS or self._left < 0:
            return {}
        found = cast("dict[str, Any]", schema)
        target = target_of(found)
        if target is not None:
            return self._referred(target, level, inside)
        written = {**_kind(found), **_words(found), **_bounds(found)}
        written |= self._parts(found, level, inside)
        return written

    def _referred(self, target: str, level: int, inside: tuple[str, ...]) -> dict[str, Any]:
        if target in inside:
            return {"description": f"As {_prose(target.rpartition('/')[2])} above."}
        if self._references is None:
            return {}
        try:
            meant = self._references.at(target, "")
        except DocumentRefused:
            return {}
        return self._plain(meant, level, (*inside, target))

    def _parts(self, schema: Mapping[str, Any], level: int, inside: tuple[str, ...]) -> dict[str, Any]:
        """Return the keywords that hold schemas."""
        parts: dict[str, Any] = {}
        properties = schema.get("properties")
        if isinstance(properties, dict):
            named = cast("dict[str, Any]", properties).items()
            parts["properties"] = {name: self._plain(one, level + 2, inside) for name, one in _first(named)}
        for name in ("allOf", "anyOf", "oneOf", "prefixItems"):
            choices = schema.get(name)
            if isinstance(choices, list) and choices:
                some = cast("list[Any]", choices)[:MAX_CHOICES]
                parts[name] = [self._plain(one, level + 2, inside) for one in some]
        for name in ("items", "additionalProperties"):
            inner = schema.get(name)
            if isinstance(inner, dict):
                parts[name] = self._plain(cast("Any", inner), level + 1, inside)
        if schema.get("additionalProperties") is False:
            parts["additionalProperties"] = False
        return parts


def _first(items: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in items if len(name) <= 200][:MAX_CHOICES]


def _kind(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return `type`, with the null that OpenAPI 3.0 calls `nullable`."""
    kind = schema.get("type")
    named = cast("list[Any]", kind) if isinstance(kind, list) else [kind]
    types = [one for one in dict.fromkeys(str(name) for name in named) if one in TYPES]
    if types and schema.get("nullable") is True and "null" not in types:
        types.append("null")
    if not types:
        return {}
    return {"type": types[0] if len(types) == 1 else types}


def _words(schema: Mapping[str, Any]) -> dict[str, Any]:
    words: dict[str, Any] = {}
    for name in ("title", "description", "format"):
        text = schema.get(name)
        if isinstance(text, str) and text:
            words[name] = _prose(text)
    required = schema.get("required")
    if isinstance(required, list):
        names = [one for one in cast("list[Any]", required) if isinstance(one, str) and len(one) <= 200]
        words["required"] = list(dict.fromkeys(names))[:MAX_CHOICES]
    choices = schema.get("enum")
    if isinstance(choices, list):
        plain = [one for one in cast("list[Any]", choices) if _is_scalar(one)][:MAX_CHOICES]
        if len(plain) == len(cast("list[Any]", choices)) and plain:
            words["enum"] = plain
    for name in ("const", "default"):
        if name in schema and _is_scalar(schema[name]):
            words[name] = schema[name]
    return words


def _bounds(schema: Mapping[str, Any]) -> dict[str, Any]:
    bounds = {name: True for name in _FLAGS if schema.get(name) is True}
    found: dict[str, Any] = dict(bounds)
    for name in _COUNTS:
        count = schema.get(name)
        if isinstance(count, int) and not isinstance(count, bool) and 0 <= count < 2**53:
            found[name] = count
    for name, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        for word in (name, exclusive):
            if _is_number(schema.get(word)):
                found[word] = schema[word]
        # OpenAPI 3.0 says by a flag that the bound itself is out.
        if schema.get(exclusive) is True and name in found:
            found[exclusive] = found.pop(name)
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53


def _is_scalar(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_PROSE
    return value is None or isinstance(value, bool) or _is_number(value)


def _prose(text: str) -> str:
    return text if len(text) <= MAX_PROSE else text[: MAX_PROSE - 1] + "…"
