"""From the text of a document to plain values: JSON, or YAML 1.2 with its core schema. Never objects, never code.

The text comes from strangers. So YAML is built from the parser's events without recursion and without its loaders: no
tags, no merge keys, and an alias counts with all that it stands for, so that a few lines cannot mean a billion nodes.
A document with two readings (a key that stands twice) has none here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn, cast

import yaml

from gateway.catalog.openapi.refused import DocumentRefused, pointer
from gateway.request_body import UNSTORABLE

MAX_DOCUMENT = 2_000_000
"""Bytes of a document. Larger ones are generated, and describe more than a publisher may have endpoints."""
MAX_NODES = 200_000
MAX_DEPTH = 64

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # its parser: libyaml's where it is there, four times as fast
_CORE_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "map", "seq"))
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]{1,40}|[0-9]{1,40}(?:\.[0-9]{0,40})?)(?:[eE][-+]?[0-9]{1,2})?", re.ASCII)
_WORDS: dict[str, bool | None] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
# Prose, which may have been pasted from anywhere: it is stored without its control characters (importing.py).
_PROSE = frozenset({"description", "summary"})
_HALF = re.compile("[\x00\ud800-\udfff]")


def read_document(raw: bytes) -> dict[str, Any]:
    """Return the document's root object. Raises DocumentRefused."""
    if len(raw) > MAX_DOCUMENT:
        raise DocumentRefused(f"has more than {MAX_DOCUMENT} bytes")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DocumentRefused(f"is not UTF-8 at byte {error.start}") from None
    value = _from_json(text) if text.lstrip()[:1] == "{" and not _is_flow_yaml(text) else _from_yaml(text)
    _check(value)
    if not isinstance(value, dict):
        raise DocumentRefused("must be a JSON or YAML object")
    return cast("dict[str, Any]", value)


def _is_flow_yaml(text: str) -> bool:
    """Return whether a text that begins like JSON is YAML in flow style: its first key stands without quotes."""
    return text.lstrip()[1:].lstrip()[:1] not in ('"', "}")


def _from_json(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise DocumentRefused(f"is no JSON: {error.msg}", f"line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise DocumentRefused(f"is nested deeper than {MAX_DEPTH} levels") from None
    except DocumentRefused:
        raise
    except ValueError:
        raise DocumentRefused("has a number with too many digits") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise DocumentRefused(f"has the key {pointer(twice)[2:]} twice in one object")
    return found


def _no_constant(name: str) -> NoReturn:
    raise DocumentRefused(f"has {name}, which is no JSON number")


@dataclass(slots=True)
class _Open:
    """A collection that is being built; `size` and `depth` count what its aliases stand for."""

    value: dict[str, Any] | list[Any]
    anchor: str | None
    size: int = 1
    depth: int = 1
    key: str | None = None


class _Builder:
    """Builds one value from YAML events."""

    def __init__(self) -> None:
        self.root: Any = None
        self._stack: list[_Open] = []
        self._anchors: dict[str, tuple[Any, int, int]] = {}
        self._total = 0
        self._documents = 0

    def take(self, event: Any) -> None:
        """Take one event of the parser. Raises DocumentRefused."""
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise DocumentRefused("has more than one YAML document", _line(event))
        elif isinstance(event, yaml.ScalarEvent):
            self._add(event, _scalar(event), 1, 0, event.anchor)
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise DocumentRefused("has an alias of something that is not complete", _line(event))
            self._add(event, *self._anchors[event.anchor], None)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._open(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            done = self._stack.pop()
            self._add(event, done.value, done.size, done.depth, done.anchor)

    def _open(self, event: Any) -> None:
        if event.tag is not None and event.tag not in _CORE_TAGS:
            raise DocumentRefused("has a YAML tag; only plain values are taken", _line(event))
        if len(self._stack) >= MAX_DEPTH:
            raise DocumentRefused(f"is nested deeper than {MAX_DEPTH} levels", _line(event))
        self._stack.append(_Open({} if isinstance(event, yaml.MappingStartEvent) else [], event.anchor))

    def _add(self, event: Any, value: Any, size: int, depth: int, anchor: str | None) -> None:
        """Put a complete value where it belongs."""
        if anchor is not None:
            self._anchors[anchor] = (value, size, depth)
        if not self._stack:
            self.root = value
            return
        place = self._stack[-1]
        if isinstance(place.value, dict) and place.key is None:
            place.key = _key(event, place.value)
            return
        place.size, place.depth = place.size + size, max(place.depth, depth + 1)
        self._total = max(self._total, place.size)
        if self._total > MAX_NODES:
            raise DocumentRefused(f"means more than {MAX_NODES} values, its aliases counted", _line(event))
        if len(self._stack) + depth > MAX_DEPTH:
            raise DocumentRefused(f"is nested deeper than {MAX_DEPTH} levels", _line(event))
        if isinstance(place.value, list):
            place.value.append(value)
        else:
            place.value[place.key or ""] = value
            place.key = None


def _key(event: Any, mapping: dict[str, Any]) -> str:
    if not isinstance(event, yaml.ScalarEvent):
        raise DocumentRefused("has a key that is no plain text", _line(event))
    key = str(event.value)  # as it is written: 200 and "200" are one response code
    if key == "<<" and not event.style:
        raise DocumentRefused("has a merge key (<<), which YAML 1.2 does not know; write it out", _line(event))
    if key in mapping:
        raise DocumentRefused("has a key twice in one object", _line(event))
    return key


def _scalar(event: Any) -> Any:
    """Return a scalar by the core schema of YAML 1.2: `on`, `yes` and dates are text."""
    text = str(event.value)
    if event.tag is not None:
        if event.tag != "tag:yaml.org,2002:str":
            raise DocumentRefused("has a YAML tag; only plain values are taken", _line(event))
        return text
    if not event.implicit[0] or event.style in ("'", '"', "|", ">"):
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _line(event: Any) -> str:
    return f"line {event.start_mark.line + 1}"


def _from_yaml(text: str) -> Any:
    builder = _Builder()
    try:
        for event in cast("Iterator[Any]", yaml.parse(text, Loader=_LOADER)):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise DocumentRefused("is neither JSON nor YAML", place) from None
    except yaml.YAMLError:
        raise DocumentRefused("is neither JSON nor YAML: it has characters that YAML does not allow") from None
    return builder.root


def _check(root: Any) -> None:
    """Raise DocumentRefused for what is too large or deep, or cannot be stored; shared values are looked at once."""
    seen: set[int] = set()
    waiting: list[tuple[Any, int]] = [(root, 1)]
    nodes = 0
    while waiting:
        value, depth = waiting.pop()
        nodes += 1
        if nodes > MAX_NODES or depth > MAX_DEPTH:
            raise DocumentRefused(f"has more than {MAX_NODES} values, or more than {MAX_DEPTH} levels")
        if isinstance(value, float) and not math.isfinite(value):
            raise DocumentRefused("has a number that is too large")
        if isinstance(value, str) and _HALF.search(value):
            raise DocumentRefused("has a text with NUL or half a character")
        if isinstance(value, dict | list) and id(cast("Any", value)) not in seen:
            seen.add(id(cast("Any", value)))
            children = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
            for name, child in children.items():
                _storable(name)
                if isinstance(child, str) and name not in _PROSE:
                    _storable(child)
            below = list(children.values()) if children else list(cast("list[Any]", value))
            for child in () if children else below:
                if isinstance(child, str):
                    _storable(child)
            waiting.extend((child, depth + 1) for child in below)


def _storable(text: str) -> None:
    if UNSTORABLE.search(text):
        raise DocumentRefused("has a name or a text with a control character or half a character")
