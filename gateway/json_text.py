"""JSON of our own answers, integers of any size included.

orjson refuses integers of more than 64 bits, and an amount of an asset with 18 decimals is one from 18.5 units on.
"""

from __future__ import annotations

import json

import orjson


def json_text(value: object) -> bytes:
    """Return the JSON text of plain data in UTF-8."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
