"""What a publisher gives back beyond the refund rule, by what its answer says: decided of the answer alone. Pure.

    late      the head of the answer came later than promised
    error     a member that tells of a failure has something in it, inside of a 2xx
    empty     there is nothing where the result should be
    schema    the answer is not of the promised form

A form is a part of JSON Schema that is checked in one pass over the answer: no references, no patterns, no
combinations. So no schema of a publisher can hold a gateway up: at most MOST_VALUES values of an answer are looked at,
each in a time that grows with what is in it, not with the schema.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from pricing.response_path import look_up, pick

Reason = Literal["refund_rule_late", "refund_rule_error", "refund_rule_empty", "refund_rule_schema"]
MOST_BYTES = 1 << 20
"""Bytes of an answer that is judged by what is in it."""
WHOLE_SECONDS = 10.0
"""How long such an answer may take to be whole after its head."""
MOST_VALUES = 20_000
MOST_DEPTH = 16
MOST_SCHEMAS = 500
WHOLE = "$"
"""The path of the whole answer."""
TYPES: Mapping[str, tuple[type, ...]] = {
    "null": (type(None),), "boolean": (bool,), "integer": (int,), "number": (int, float), "string": (str,),
    "array": (list,), "object": (dict,),
}  # fmt: skip
COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
ANNOTATIONS = frozenset(("title", "description", "examples", "default", "deprecated", "$comment", "$schema"))


@dataclass(frozen=True, slots=True)
class Form:
    """One schema. What is None or empty asks for nothing."""

    types: frozenset[str] = frozenset()
    values: frozenset[tuple[type, object]] | None = None
    required: tuple[str, ...] = ()
    members: Mapping[str, Form] = field(default_factory=dict[str, "Form"])
    closed: bool = False
    items: Form | None = None
    least: float | None = None
    most: float | None = None
    counts: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, slots=True)
class RefundRules:
    """The rules that a publisher switched on; WHOLE is the path of the answer itself. `later_than` in seconds."""

    later_than: float | None = None
    error_at: str | None = None
    empty_at: str | None = None
    form: Form | None = None

    @property
    def reads(self) -> bool:
        """Return whether the answer's body has to be read."""
        return self.error_at is not None or self.empty_at is not None or self.form is not None

    def of_time(self, seconds: float) -> Reason | None:
        """Return why an answer whose head took so long costs nothing, or None."""
        return "refund_rule_late" if self.later_than is not None and seconds > self.later_than else None

    def of_body(self, body: bytes) -> Reason | None:
        """Return why an answer with this JSON body costs nothing, or None.

        A path that the answer does not have is not empty: it may be another kind of answer, which was delivered. One
        without any content is empty, whatever the path.

        NaN and its like, which some servers send, are no JSON: a form they break, to the other rules they are null.
        """
        if not body.strip():
            if self.empty_at is not None:
                return "refund_rule_empty"
            return None if self.form is None else "refund_rule_schema"
        foreign: list[str] = []
        try:
            value: Any = json.loads(body, parse_constant=foreign.append)
        except (ValueError, RecursionError):
            return None if self.form is None else "refund_rule_schema"
        if self.error_at is not None and pick(value, self.error_at):
            return "refund_rule_error"
        if self.empty_at is not None and look_up(value, self.empty_at) in (None, "", [], {}):
            return "refund_rule_empty"
        return None if self.form is None or (not foreign and fits(self.form, value)) else "refund_rule_schema"


def fits(form: Form, value: Any) -> bool:
    """Return whether a value has a form, as far as MOST_VALUES of it say so."""
    waiting: list[tuple[Form, Any]] = [(form, value)]
    for _ in range(MOST_VALUES):
        if not waiting:
            return True
        asked, one = waiting.pop()
        if not _fits_alone(asked, one):
            return False
        if isinstance(one, list) and asked.items is not None:
            room = max(MOST_VALUES - len(waiting), 0)
            waiting += [(asked.items, item) for item in cast("list[Any]", one)[:room]]
        elif isinstance(one, dict) and asked.members:
            held = cast("dict[str, Any]", one)
            names = asked.members.keys() & held.keys() if len(held) < len(asked.members) else asked.members.keys()
            waiting += [(asked.members[name], held[name]) for name in names if name in held]
    return True


def _fits_alone(form: Form, value: Any) -> bool:
    """Return whether a value fits, leaving out what is in it."""
    if form.types and not _is_of(value, form.types):
        return False
    if form.values is not None and _word(value) not in form.values:
        return False
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return (form.least is None or value >= form.least) and (form.most is None or value <= form.most)
    if isinstance(value, str):
        return _counts(form, "Length", len(value))
    if isinstance(value, list):
        return _counts(form, "Items", len(cast("list[Any]", value)))
    if isinstance(value, dict):
        held = cast("dict[str, Any]", value)
        if any(name not in held for name in form.required) or not _counts(form, "Properties", len(held)):
            return False
        return not form.closed or held.keys() <= form.members.keys()
    return True


def _is_of(value: Any, types: frozenset[str]) -> bool:
    if isinstance(value, bool):
        return "boolean" in types
    if isinstance(value, float) and "integer" in types and value.is_integer():
        return True
    return any(isinstance(value, TYPES[name]) for name in types)


def _counts(form: Form, what: str, number: int) -> bool:
    least, most = form.counts.get(f"min{what}"), form.counts.get(f"max{what}")
    return (least is None or number >= least) and (most is None or number <= most)


def _word(value: Any) -> tuple[type, object]:
    """Return a scalar as it is compared: true is not 1, and 1.0 is. What is no scalar gives what equals none."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return type(value), value
    return (float, value) if isinstance(value, (int, float)) else (object, None)


def read_form(schema: Any) -> Form:
    """Return the form that a schema asks for. Raises ValueError naming what is not taken."""
    return _read(schema, MOST_DEPTH, [MOST_SCHEMAS])


def _read(schema: Any, depth: int, left: list[int]) -> Form:
    left[0] -= 1
    if left[0] < 0 or depth < 0:
        raise ValueError(f"is too large: at most {MOST_SCHEMAS} schemas, {MOST_DEPTH} deep")
    if schema is True:
        return Form()
    if not isinstance(schema, dict):
        raise ValueError("has a part that is no schema object")
    given = cast("dict[str, Any]", schema)
    known = {"type", "enum", "const", "required", "properties", "additionalProperties", "items", "minimum", "maximum"}
    for name in given:
        if name not in known and name not in COUNTS and name not in ANNOTATIONS:
            raise ValueError(f"has the keyword {name[:40]!r}, which is not taken here")
    members = given.get("properties", {})
    if not isinstance(members, dict):
        raise ValueError("has properties that are no object")
    held = cast("dict[str, Any]", members)
    closed = given.get("additionalProperties", True)
    if not isinstance(closed, bool):
        raise ValueError("has additionalProperties that are not true or false")
    return Form(
        types=_types(given),
        values=_values(given),
        # Each name once: an answer that has them all has so much in it, and one that has not is done with the first.
        required=tuple(dict.fromkeys(_texts(given.get("required", []), "required"))),
        members={name: _read(part, depth - 1, left) for name, part in held.items()},
        closed=not closed,
        items=_read(given["items"], depth - 1, left) if "items" in given else None,
        least=_number(given, "minimum"),
        most=_number(given, "maximum"),
        counts={name: _count(given[name], name) for name in COUNTS if name in given},
    )


def _types(given: Mapping[str, Any]) -> frozenset[str]:
    said = given.get("type", [])
    names = frozenset([said] if isinstance(said, str) else _texts(said, "type"))
    if not names <= TYPES.keys():
        raise ValueError(f"has a type that is none of {', '.join(TYPES)}")
    return names


def _values(given: Mapping[str, Any]) -> frozenset[tuple[type, object]] | None:
    if "enum" not in given and "const" not in given:
        return None
    listed = given["enum"] if "enum" in given else [given["const"]]
    if not isinstance(listed, list):
        raise ValueError("has an enum that is no list")
    words = [_word(one) for one in cast("list[Any]", listed)]
    if (object, None) in words or ("enum" in given and "const" in given):
        raise ValueError("may have one of enum and const, of texts, numbers, true, false and null")
    return frozenset(words)


def _texts(value: Any, name: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in cast("list[Any]", value)):
        raise ValueError(f"has a {name} that is no list of texts")
    return cast("list[str]", value)


def _number(given: Mapping[str, Any], name: str) -> float | None:
    value = given.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise ValueError(f"has a {name} that is no number")
    return value


def _count(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"has a {name} that is no whole number of at least 0")
    return value
