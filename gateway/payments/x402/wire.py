"""Payment headers as text: bounded, strict base64 JSON in; one canonical spelling of every value out.

Whatever can be written in two ways is a way to pay twice or to wedge what comes later, so there is one way: padded
base64 without spare bits, UTF-8 JSON without doubled names or fractions, decimals without signs and leading zeros,
addresses and nonces as bytes. Any other text is a `PaymentRefused` that names the field.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn, cast

from gateway.payments.x402.reasons import PaymentRefused, Reason

MAX_HEADER = 8_192
"""Bytes of a payment header: what common proxies pass, and enough for a smart wallet's signature with its factory."""

MAX_BRACKETS = 64
"""Opening brackets in a payment: bounds depth and breadth before anything is parsed."""

MAX_UINT256 = 2**256 - 1

Fields = Mapping[str, Any]

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}", re.ASCII)
_WORD = re.compile(r"0x[0-9a-fA-F]{64}", re.ASCII)
_HEX = re.compile(r"0x(?:[0-9a-fA-F]{2})*", re.ASCII)
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,77}", re.ASCII)


def malformed(what: str) -> PaymentRefused:
    """Return the refusal of a payment that cannot be read."""
    return PaymentRefused(Reason.PAYLOAD, what)


def decode(header: bytes) -> Fields:
    """Return the JSON object in a payment header. Raises PaymentRefused."""
    if len(header) > MAX_HEADER:
        raise malformed(f"the payment header is longer than {MAX_HEADER} bytes")
    try:
        data = binascii.a2b_base64(header, strict_mode=True)
    except binascii.Error:
        raise malformed("the payment header is not padded base64") from None
    if binascii.b2a_base64(data, newline=False) != header:
        raise malformed("the payment header is not canonical base64")
    return parse(data)


def parse(data: bytes) -> Fields:
    """Return the JSON object in a payment's bytes. Raises PaymentRefused."""
    if data.count(b"{") + data.count(b"[") > MAX_BRACKETS:
        raise malformed("the payment is nested too deeply or has too many parts")
    try:
        value: object = _JSON.decode(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise malformed("the payment is not UTF-8") from None
    except (ValueError, RecursionError):
        raise malformed("the payment is not JSON") from None
    return as_object(value, "the payment")


def encode(document: Fields) -> bytes:
    """Return a header's value for a JSON object: ASCII JSON, because some clients read base64 as Latin-1."""
    return binascii.b2a_base64(json.dumps(document, separators=(",", ":")).encode(), newline=False)


def as_object(value: object, what: str) -> Fields:
    """Return a JSON object as it is. Raises PaymentRefused for any other value."""
    if not isinstance(value, dict):
        raise malformed(f"{what} must be a JSON object")
    return cast("dict[str, Any]", value)


def only(fields: Fields, what: str, required: frozenset[str], optional: frozenset[str] = frozenset()) -> None:
    """Raise PaymentRefused unless an object has these names and no others."""
    names = fields.keys()
    if len(names) == len(required) and required <= names:
        return
    if missing := required - names:
        raise malformed(f"{what} has no {min(missing)}")
    if unknown := names - required - optional:
        raise malformed(f"{what} has the unknown field {min(unknown)[:64]!r}")


def text(value: object, what: str) -> str:
    """Return a string. Raises PaymentRefused."""
    if not isinstance(value, str):
        raise malformed(f"{what} must be a string")
    return value


def address(value: object, what: str) -> bytes:
    """Return an address's 20 bytes; its letters may have any case, `0x` may not. Raises PaymentRefused."""
    if not isinstance(value, str) or not _ADDRESS.fullmatch(value):
        raise malformed(f"{what} must be 0x and 40 hexadecimal digits")
    return bytes.fromhex(value[2:])


def word(value: object, what: str) -> bytes:
    """Return 32 bytes. Raises PaymentRefused."""
    if not isinstance(value, str) or not _WORD.fullmatch(value):
        raise malformed(f"{what} must be 0x and 64 hexadecimal digits")
    return bytes.fromhex(value[2:])


def octets(value: object, what: str) -> bytes:
    """Return the bytes of 0x-prefixed hex of any length. Raises PaymentRefused."""
    if not isinstance(value, str) or not _HEX.fullmatch(value):
        raise malformed(f"{what} must be 0x and an even number of hexadecimal digits")
    return bytes.fromhex(value[2:])


def uint256(value: object, what: str) -> int:
    """Return a non-negative integer that is written as a canonical decimal string. Raises PaymentRefused."""
    if not isinstance(value, str) or not _DECIMAL.fullmatch(value):
        raise malformed(f"{what} must be a string of decimal digits without sign or leading zero")
    number = int(value)
    if number > MAX_UINT256:
        raise malformed(f"{what} does not fit 256 bits")
    return number


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a name stands twice")
    return fields


def _refuse(_: str) -> NoReturn:
    raise ValueError("a number that is not an integer")


_JSON = json.JSONDecoder(object_pairs_hook=_once, parse_float=_refuse, parse_constant=_refuse)
