"""JSON-RPC messages, one at a time: read strictly, written so that what was checked is what goes on.

A message of a caller is refused where two readers could understand it differently: names that occur twice, numbers that
are none, text that is no UTF-8, more nesting than a reader of ours takes. Batches are no messages: MCP has dropped
them, and one request is one price.
"""

from __future__ import annotations

import json
import math
from typing import Any, TypeAlias, cast

from gateway.upstreams.http.errors import UpstreamError

Message: TypeAlias = dict[str, Any]
RequestId: TypeAlias = str | int

MAX_DEPTH = 100


class BadMessage(ValueError):
    """No message. The text says why and repeats nothing of it."""


class BadAnswer(UpstreamError):
    """The publisher's server answered with something that is no MCP."""


class Refused(BadAnswer):
    """The server answered a request of the gateway's own with an error of JSON-RPC, or not with a result."""

    def __init__(self, what: str, response: Message) -> None:
        code = fields_of(response.get("error")).get("code")
        number = f" (JSON-RPC error {code})" if isinstance(code, int) and abs(code) < 100_000 else ""
        super().__init__(f"the server refuses to {what}{number}", sent=True)


class OtherVersion(BadAnswer):
    """The server speaks no version of MCP that the gateway does."""


def parse(body: bytes) -> Message:
    """Return the one JSON object in a body. Raises BadMessage."""
    try:
        found = json.loads(
            body.decode(), parse_float=_finite, parse_constant=_no_constant, object_pairs_hook=_each_once
        )
    except (ValueError, RecursionError):
        raise BadMessage("The body is not strict JSON in UTF-8 with each name once.") from None
    if isinstance(found, list):
        raise BadMessage("Batches are not taken: send one message per request.")
    if not isinstance(found, dict):
        raise BadMessage("The body must be one JSON object.")
    message = cast("Message", found)
    if not _shallow(message):
        raise BadMessage(f"The body is nested more than {MAX_DEPTH} levels deep.")
    return message


def text(value: object) -> bytes:
    """Return the JSON text of what was parsed."""
    return json.dumps(value, separators=(",", ":")).encode()


def canonical(value: object) -> bytes:
    """Return one text for all ways to write a value down, to compare requests by."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def answer_of(data: bytes) -> Message:
    """Return a message of a publisher's server. Raises BadAnswer."""
    try:
        found = json.loads(data, parse_float=_finite, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise BadAnswer("the answer is no JSON", sent=True) from None
    if not isinstance(found, dict) or not _shallow(cast("Message", found)):
        raise BadAnswer("the answer is no JSON-RPC message", sent=True)
    return cast("Message", found)


def fields_of(value: object) -> Message:
    """Return an object as it is, and an empty one for anything else."""
    return cast("Message", value) if isinstance(value, dict) else {}


def is_id(value: object) -> bool:
    """Say whether a value can name a request."""
    return isinstance(value, str | int) and not isinstance(value, bool)


def _shallow(value: object) -> bool:
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        below: list[object] = []
        for one in level:
            if isinstance(one, dict):
                below.extend(cast("Message", one).values())
            elif isinstance(one, list):
                below.extend(cast("list[object]", one))
        if not below:
            return True
        level = below
    return False


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (math.inf, -math.inf):
        raise ValueError(digits)
    return number


def _no_constant(name: str) -> float:
    raise ValueError(name)


def _each_once(pairs: list[tuple[str, Any]]) -> Message:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a name occurs twice")
    return document
