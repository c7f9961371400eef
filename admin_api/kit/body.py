"""Reading JSON bodies strictly: one meaning or none.

A body that two parsers would read differently is refused before anyone acts on it: duplicate keys, NaN, invalid UTF-8,
lone surrogates, control characters other than line ends and tabs, and nesting that would exhaust a recursive reader.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from admin_api.kit import once
from gateway.errors import InvalidRequest, UnsupportedMediaType
from gateway.request_body import UNSTORABLE

MAX_DEPTH = 64
# A string is matched even without its end, so that an endless one is read once and not once per quotation mark.
_STRINGS = re.compile(rb'"(?:[^"\\]+|\\.)*"?', re.S)
_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_REFUSED_TEXT = "a text contains a control character or half a character"


def _refused(what: str, field: str = "") -> InvalidRequest:
    return InvalidRequest(f"The body is not acceptable JSON: {what}.", errors=[{"field": field, "message": what}])


def parse(raw: bytes) -> Any:
    """Return the value of a JSON text. Raises InvalidRequest saying why it has none."""
    _check_depth(raw)
    try:
        value = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
        )
    except UnicodeDecodeError:
        raise _refused("it is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise _refused(f"{error.msg} at character {error.pos}") from None
    except (ValueError, RecursionError):
        raise _refused("a number has too many digits") from None
    _check_items([value])
    return value


def _check_depth(raw: bytes) -> None:
    # Strings and all else go in two sweeps of C, and only brackets are looked at one by one: a megabyte of quotation
    # marks must not hold up the others.
    depth = 0
    for mark in _STRINGS.sub(b"", raw).translate(None, _BUT_BRACKETS):
        if mark in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise _refused(f"it is nested deeper than {MAX_DEPTH} levels")
        else:
            depth -= 1


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _refused("an object has the same key twice")
    for key, value in pairs:
        if UNSTORABLE.search(key):
            raise _refused(_REFUSED_TEXT)
        if isinstance(value, str) and UNSTORABLE.search(value):
            raise _refused(_REFUSED_TEXT, key)
        if isinstance(value, list):
            _check_items(value)  # pyright: ignore[reportUnknownArgumentType]
    return found


def _check_items(items: list[Any]) -> None:
    for item in items:
        if isinstance(item, str) and UNSTORABLE.search(item):
            raise _refused(_REFUSED_TEXT)
        if isinstance(item, list):
            _check_items(item)  # pyright: ignore[reportUnknownArgumentType]


def _no_constant(name: str) -> NoReturn:
    raise _refused(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise _refused("a number is too large")
    return value


class StrictRequest(Request):
    """A request whose JSON is read by `parse`."""

    async def json(self) -> Any:
        """Return the body's value. Raises InvalidRequest, or UnsupportedMediaType for a compressed body."""
        if self.headers.get("content-encoding", "identity").strip().lower() not in ("identity", ""):
            raise UnsupportedMediaType(
                "The body must be sent without Content-Encoding.", headers={"Accept-Encoding": "identity"}
            )
        return parse(await self.body())


class StrictRoute(APIRoute):
    """A route whose handler gets a StrictRequest, and runs once per Idempotency-Key where it has a `Once` (once.py)."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's handler."""
        handler = super().get_route_handler()
        takes_body = self.body_field is not None

        async def strict(request: Request) -> Response:
            ours = StrictRequest(request.scope, request.receive)
            if takes_body:
                # Kept by the request, and read here because FastAPI wraps what goes wrong in an exception that its own
                # frame holds on to: such a ring keeps `receive`, and with it the connection, until
                # the garbage collection.
                await ours.body()
            return await once.finish(ours, handler)

        return strict
