"""Bind parameters: JSON values in, text that the server parses by the parameter's own type.

The server is asked which type each `$n` has; the value goes to it as text and is cast there. So a value is never part
of the query's text, and every type that PostgreSQL can read works without a codec of ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, cast

import orjson

from pricing.sql.lexer import Kind, tokens

MAX_VALUE = 65_536
_TYPE = re.compile(r"[a-z][a-z0-9_]{0,62}(?:\[\])?")


class BadParameter(ValueError):
    """A parameter's value cannot be used. The message names its place."""


def typed(text: str, types: Sequence[str]) -> str:
    """Return a checked query with every `$n` cast from text to the type that the server gave it."""
    for name in types:
        if not _TYPE.fullmatch(name):
            raise BadParameter("a parameter has a type that cannot be written here")
    written: list[str] = []
    for token in tokens(text):
        if token.kind is Kind.PARAMETER:
            written.append(f"CAST(CAST({token.text} AS text) AS {types[int(token.text[1:]) - 1]})")
        else:
            written.append(token.text)
    return " ".join(written)


def texts(values: Sequence[Any], types: Sequence[str]) -> list[str | None]:
    """Return the values as the texts that the server parses. Raises BadParameter."""
    if len(values) != len(types):
        raise BadParameter(f"the query has {len(types)} parameters, and {len(values)} values were sent")
    found: list[str | None] = []
    for place, (value, name) in enumerate(zip(values, types, strict=True), 1):
        try:
            text = _text(value, name)
        except BadParameter as error:
            raise BadParameter(f"${place} {error}") from None
        if text is not None and (len(text) > MAX_VALUE or "\x00" in text):
            raise BadParameter(f"${place} is longer than {MAX_VALUE} characters or contains a NUL")
        found.append(text)
    return found


def _text(value: Any, name: str) -> str | None:
    if value is None:
        return None
    if name in ("json", "jsonb"):
        try:
            return orjson.dumps(value, default=_plain).decode()
        except TypeError:
            raise BadParameter("holds a number that JSON cannot carry here: send it as a text") from None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, int | float | Decimal):
        return str(value)
    if isinstance(value, list) and name.endswith("[]"):
        return _array(cast("list[Any]", value))
    raise BadParameter(f"takes a {name}, not an array or object")


def _plain(value: object) -> object:
    """Return a number inside of a document, which has the digits of a double."""
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError


def _array(values: list[Any], depth: int = 0) -> str:
    """Return an array literal (PostgreSQL documentation, section 8.15.2), every element quoted."""
    if depth > 4:
        raise BadParameter("is nested too deeply")
    parts: list[str] = []
    for value in values:
        if isinstance(value, list):
            parts.append(_array(cast("list[Any]", value), depth + 1))
        else:
            text = _text(value, "element")
            parts.append("NULL" if text is None else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"')
    return "{" + ",".join(parts) + "}"
