"""Tokens of a PostgreSQL statement, in one pass over the text, whatever the text is.

Follows the server's own rules (PostgreSQL documentation, section 4.1, "Lexical Structure"; standard_conforming_strings
on) for what begins and ends a string, a comment or a quoted name: that is where a reader and the server must never
differ. What does not live here: bounds (guard.py) and meaning (policy.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    """What a token is. Names are lower-cased as the server does it; quoted names are as they stand."""

    NAME = "name"
    QUOTED_NAME = "quoted name"
    STRING = "string"
    NUMBER = "number"
    PARAMETER = "parameter"
    OPERATOR = "operator"
    PUNCTUATION = "punctuation"
    COMMENT = "comment"


class Token(NamedTuple):
    """One token; `text` of a string or comment is the source text with its quotes."""

    kind: Kind
    text: str


class Unreadable(ValueError):
    """The text is no sequence of SQL tokens. The message says what is wrong, in words for the caller."""


_SPACE = re.compile(r"[ \t\n\r\f\v]+")
_NAME = re.compile(r"[A-Za-z_\u0080-\U0010ffff][A-Za-z0-9_$\u0080-\U0010ffff]*")
_DIGITS = r"[0-9](?:_?[0-9])*"
_NUMBER = re.compile(
    r"(?:0[xX](?:_?[0-9A-Fa-f])+|0[oO](?:_?[0-7])+|0[bB](?:_?[01])+"
    rf"|(?:{_DIGITS}(?:\.(?!\.)(?:{_DIGITS})?)?|\.{_DIGITS})(?:[eE][+-]?{_DIGITS})?)"
)
_PARAMETER = re.compile(r"\$[0-9]+")
_DOLLAR = re.compile(r"\$(?:[A-Za-z_\u0080-\U0010ffff][A-Za-z0-9_\u0080-\U0010ffff]*)?\$")
_LINE_COMMENT = re.compile(r"--[^\r\n]*")
_PLAIN_STRING = re.compile(r"'(?:[^']|'')*'")
_ESCAPE_STRING = re.compile(r"'(?:[^'\\]|\\[\s\S]|'')*'")
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_COMMENT_PART = re.compile(r"/\*|\*/")
_OPERATOR_CHARACTERS = frozenset("+-*/<>=~!@#%^&|`?")
_PUNCTUATION = frozenset("()[],;.:")
_UPPER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


def folded(name: str) -> str:
    """Return an unquoted name as the server reads it: ASCII letters in lower case, the rest unchanged."""
    return name.translate(_UPPER)


def tokens(text: str) -> Iterator[Token]:
    """Yield every token of `text`, comments included. Linear in its length. Raises Unreadable."""
    position = 0
    end = len(text)
    while position < end:
        character = text[position]
        if space := _SPACE.match(text, position):
            position = space.end()
            continue
        token = _comment(text, position) if character in "-/" else None
        token = token or _word(text, position) or _rest(text, position)
        yield token
        position += len(token.text)


def _comment(text: str, position: int) -> Token | None:
    if text.startswith("--", position):
        match = _LINE_COMMENT.match(text, position)
        return Token(Kind.COMMENT, match[0]) if match else None
    if not text.startswith("/*", position):
        return None
    depth = 0
    for part in _COMMENT_PART.finditer(text, position):
        depth += 1 if part[0] == "/*" else -1
        if depth == 0:
            return Token(Kind.COMMENT, text[position : part.end()])
    raise Unreadable("a comment is not closed")


def _word(text: str, position: int) -> Token | None:
    """Return a name, or the string or name that a prefix introduces (E'', B'', X'', N'', U&'', U&"")."""
    match = _NAME.match(text, position)
    if match is None:
        return None
    name, after = match[0], match.end()
    if len(name) == 1 and name in "eEbBxXnN" and text.startswith("'", after):
        body = (_ESCAPE_STRING if name in "eE" else _PLAIN_STRING).match(text, after)
        if body is None:
            raise Unreadable("a string is not closed")
        return Token(Kind.STRING, name + body[0])
    if name in ("u", "U") and text.startswith(("&'", '&"'), after):
        rest = _rest(text, after + 1)
        return Token(rest.kind, f"{name}&{rest.text}")
    return Token(Kind.NAME, name)


def _rest(text: str, position: int) -> Token:
    character = text[position]
    if character == "'":
        return _matched(_PLAIN_STRING, text, position, Kind.STRING, "a string is not closed")
    if character == '"':
        return _matched(_QUOTED, text, position, Kind.QUOTED_NAME, "a quoted name is not closed")
    if character == "$":
        return _dollar(text, position)
    if number := _NUMBER.match(text, position):
        if _NAME.match(text, number.end()):
            raise Unreadable("a number runs into a name: put a space between them")
        return Token(Kind.NUMBER, number[0])
    if character in _PUNCTUATION:
        return Token(Kind.PUNCTUATION, "::" if text.startswith("::", position) else character)
    if character in _OPERATOR_CHARACTERS:
        return Token(Kind.OPERATOR, _operator(text, position))
    raise Unreadable(f"the character {character!r} has no meaning here")


def _operator(text: str, position: int) -> str:
    """Return the longest operator; one ends where a comment begins."""
    end = position
    while end < len(text) and text[end] in _OPERATOR_CHARACTERS:
        if end > position and text.startswith(("--", "/*"), end):
            break
        end += 1
    return text[position:end]


def _dollar(text: str, position: int) -> Token:
    if parameter := _PARAMETER.match(text, position):
        return Token(Kind.PARAMETER, parameter[0])
    tag = _DOLLAR.match(text, position)
    if tag is None:
        raise Unreadable("a $ stands alone")
    close = text.find(tag[0], tag.end())
    if close < 0:
        raise Unreadable("a dollar-quoted string is not closed")
    return Token(Kind.STRING, text[position : close + len(tag[0])])


def _matched(pattern: re.Pattern[str], text: str, position: int, kind: Kind, otherwise: str) -> Token:
    match = pattern.match(text, position)
    if match is None:
        raise Unreadable(otherwise)
    return Token(kind, match[0])
