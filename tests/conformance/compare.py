"""How the served document falls short of the contract, told per operation. Both sides as shapes.operations makes them.

A client written for the contract must work: we may ask for less and answer more, never the reverse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.conformance.shapes import Facts

Operations = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Fact:
    """A fact, read from its word."""

    always: bool
    types: frozenset[str]
    values: frozenset[str]

    @classmethod
    def read(cls, word: str) -> Fact:
        types, _, values = word.removeprefix("!").partition(" = ")
        return cls(word.startswith("!"), frozenset(types.split("|")), frozenset(values.split()))


def shortfalls(contract: Operations, served: Operations) -> list[str]:
    """Return what a client of the contract would miss."""
    found: list[str] = []
    for name, wanted in contract.items():
        given = served.get(name)
        found += [f"{name}: {what}" for what in (_operation(wanted, given) if given else ["is not served"])]
    return found


def _operation(wanted: dict[str, Any], given: dict[str, Any]) -> list[str]:
    found = [] if wanted["id"] == given["id"] else [f"operation id is {given['id']}"]
    found += _asked("parameter ", wanted["parameters"], given["parameters"])
    if given["body_required"] and not wanted["body_required"]:
        found.append("the request body is required here, optional in the contract")
    for media, facts in wanted["request"].items():
        if media not in given["request"]:
            found.append(f"no request body of type {media}")
        else:
            found += _asked("request ", facts, given["request"][media])
    for status, bodies in wanted["responses"].items():
        if status not in given["responses"]:
            found.append(f"status {status} is not declared")
            continue
        answered = given["responses"][status]
        for media, facts in bodies.items():
            if media in answered:
                found += _answered(f"{status} ", facts, answered[media])
            elif "*/*" not in answered:
                found.append(f"{status} has no body of type {media}")
    return found


def _asked(what: str, wanted: Facts, given: Facts) -> list[str]:
    """We must take whatever the contract lets a client send, and need nothing that it may leave out."""
    found = []
    for place, word in wanted.items():
        fact, ours = Fact.read(word), Fact.read(given.get(place, "missing"))
        if place not in given:
            found.append(f"{what}{place} is missing")
        elif "any" not in ours.types and not _within(fact.types, ours.types):
            found.append(f"{what}{place} takes {_words(ours.types)}, contract {_words(fact.types)}")
        elif ours.values and (not fact.values or fact.values - ours.values):
            found.append(f"{what}{place} takes fewer values than the contract")
        elif ours.always and not fact.always:
            found.append(f"{what}{place} is required here, optional in the contract")
    return found + [
        f"{what}{place} is required here, unknown to the contract"
        for place in sorted(given.keys() - wanted.keys())
        if given[place].startswith("!") and _known(place, wanted)
    ]


def _known(place: str, wanted: Facts) -> bool:
    """Return whether the contract knows what a place is a member of: only then can its absence refuse a request."""
    holder, _, _ = place.rpartition(".")
    return not place.endswith("[]") and (not holder or holder in wanted)


def _answered(what: str, wanted: Facts, given: Facts) -> list[str]:
    """We must send all that the contract promises, and nothing that a client could not read."""
    found = []
    for place, word in wanted.items():
        fact, ours = Fact.read(word), Fact.read(given.get(place, "missing"))
        if place not in given:
            found.append(f"{what}{place} is missing")
        elif "any" not in fact.types and not _within(ours.types, fact.types):
            found.append(f"{what}{place} sends {_words(ours.types)}, contract {_words(fact.types)}")
        elif fact.values - ours.values:
            found.append(f"{what}{place} does not declare the contract's values")
        elif fact.always and not ours.always:
            found.append(f"{what}{place} is always there in the contract, not here")
    return found


def _within(inner: frozenset[str], outer: frozenset[str]) -> bool:
    return all(kind in outer or (kind == "integer" and "number" in outer) for kind in inner)


def _words(types: frozenset[str]) -> str:
    return "|".join(sorted(types))
