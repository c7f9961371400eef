"""The first fence: bounds on a query's text, before any parser and long before the database sees it.

Each bound stands against something that was measured: a parser that ends the process on deep nesting (tree.py), a
server that lexes nested comments in quadratic time without an interrupt, megabytes of select list. What does not live
here: what a query means (policy.py).
"""

from __future__ import annotations

from pricing.sql.lexer import Kind, Token, Unreadable, folded, tokens

MAX_BYTES = 32_768
MAX_TOKENS = 8_000
MAX_DEPTH = 40
MAX_SELECTS = 50
MAX_ARMS = 100
MAX_COMMENTS = 20
MAX_RUN = 200
"""Operators in a row at one level, such as 1+1+1…: trees of binary operators are as deep as their chain is long."""

_OPEN = frozenset("([")
_CLOSE = {")": "(", "]": "["}
_SET_OPERATORS = frozenset({"union", "intersect", "except"})
_CHAINING = frozenset(
    {"and", "or", "not", "is", "in", "like", "ilike", "between", "collate", "case", "when", "at", "operator", "similar"}
    | {"join", "overlaps", "isnull", "notnull"}
)


MAX_NESTING = 300
"""Open brackets, operators and joins before one place of the text, and set operations: about the depth of the tree."""


class QueryRefused(ValueError):
    """A query that is not sold. `code` is a stable word for programs, the message says what to change.

    `place` is where in the text, in bytes, the fault stands; the message names it once `placed` has read the text.
    """

    def __init__(self, code: str, message: str, place: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.place = place

    def placed(self, query: str) -> QueryRefused:
        """Return the refusal with the place of its fault in the message, counted in characters from 1."""
        if self.place is None:
            return self
        character = len(query.encode()[: self.place].decode(errors="ignore")) + 1
        return QueryRefused(self.code, f"{self} It stands at character {character}.")


def guard(query: str) -> list[Token]:
    """Return the query's tokens without comments and the closing semicolon. Raises QueryRefused."""
    _characters(query)
    bounds = _Bounds()
    kept: list[Token] = []
    try:
        for token in tokens(query):
            if token.kind is Kind.COMMENT:
                bounds.comment(token)
                continue
            bounds.count(token)
            if kept and _is_escaped_part(kept[-1], token):
                # The server reads the second by the rules of the first: its end may be another than this lexer's.
                raise QueryRefused("syntax", "Two strings with backslashes follow each other: join them with ||.")
            kept.append(token)
    except Unreadable as error:
        raise QueryRefused("syntax", f"The query cannot be read: {error}.") from None
    bounds.finish()
    while kept and kept[-1].text == ";":
        kept.pop()
    if not kept:
        raise QueryRefused("empty", "There is no statement in the query.")
    if any(token.text == ";" and token.kind is Kind.PUNCTUATION for token in kept):
        raise QueryRefused("several_statements", "Send one statement per call.")
    return kept


def _is_escaped_part(before: Token, token: Token) -> bool:
    both = before.kind is Kind.STRING and token.kind is Kind.STRING
    return both and before.text[0] in "eE" and "\\" in token.text


def _characters(query: str) -> None:
    try:
        size = len(query.encode())
    except UnicodeEncodeError:
        raise QueryRefused("encoding", "The query contains half of a surrogate pair.") from None
    if size > MAX_BYTES:
        raise QueryRefused("too_large", f"A query may have {MAX_BYTES} bytes; this one has {size}.")
    for character in query:
        if (character < " " and character not in "\t\n\r") or character == "\x7f" or "\x80" <= character < "\xa0":
            raise QueryRefused("encoding", "The query contains a control character.")


class _Bounds:
    """Counts while tokens go by."""

    def __init__(self) -> None:
        self._open: list[str] = []
        self._runs: list[int] = [0]
        self._tokens = self._selects = self._arms = self._comments = 0
        self._before = ""

    def comment(self, token: Token) -> None:
        self._comments += max(1, token.text.count("/*"))
        if self._comments > MAX_COMMENTS:
            raise QueryRefused("too_complex", f"A query may hold {MAX_COMMENTS} comments.")

    def count(self, token: Token) -> None:
        self._tokens += 1
        if self._tokens > MAX_TOKENS:
            raise QueryRefused("too_complex", f"A query may have {MAX_TOKENS} words and signs.")
        if token.kind is Kind.PUNCTUATION:
            self._punctuation(token.text)
        elif token.kind is Kind.OPERATOR:
            # The server takes signs at the end of an operator for operators of their own: `+-+-1` are four.
            self._chain(1 + len(token.text[1:]) - len(token.text[1:].rstrip("+-")))
        elif token.kind is Kind.NAME:
            if not token.text.isprintable():
                # The server takes a no-break space for a letter, other readers for a space.
                raise QueryRefused("syntax", "The query has an invisible character outside of strings.")
            self._word(folded(token.text))
        elif token.kind is Kind.QUOTED_NAME:
            _check_name(token.text)
        self._before = folded(token.text)

    def finish(self) -> None:
        if self._open:
            raise QueryRefused("syntax", f"A {self._open[-1]} is not closed.")

    def _punctuation(self, text: str) -> None:
        if text in _OPEN:
            self._open.append(text)
            self._runs.append(0)
            if len(self._open) > MAX_DEPTH:
                raise QueryRefused("too_deep", f"Brackets may be nested {MAX_DEPTH} deep.")
            self._nest()
        elif text in _CLOSE:
            if not self._open or self._open.pop() != _CLOSE[text]:
                raise QueryRefused("syntax", f"A {text} closes nothing.")
            self._runs.pop()
        elif text in ("::", "."):
            self._chain()
        elif text == ",":
            self._runs[-1] = 0

    def _word(self, word: str) -> None:
        if word == "select":
            self._selects += 1
            if self._before not in (".", "as"):  # there it is a name
                self._runs[-1] = 0
            if self._selects > MAX_SELECTS:
                raise QueryRefused("too_complex", f"A query may have {MAX_SELECTS} SELECTs.")
        elif word in _SET_OPERATORS:
            self._arms += 1
            if self._arms > MAX_ARMS:
                raise QueryRefused("too_complex", f"A query may have {MAX_ARMS} UNION, INTERSECT and EXCEPT.")
        elif word in _CHAINING:
            self._chain()

    def _chain(self, operators: int = 1) -> None:
        self._runs[-1] += operators
        if self._runs[-1] > MAX_RUN:
            raise QueryRefused("too_complex", f"An expression may chain {MAX_RUN} operators; use IN or a join.")
        self._nest()

    def _nest(self) -> None:
        if sum(self._runs) + len(self._open) + self._arms > MAX_NESTING:
            raise QueryRefused("too_deep", f"Brackets and operators may be nested {MAX_NESTING} deep together.")


def _check_name(text: str) -> None:
    if len(text.encode()) > 65:  # 63 bytes and two quotes: the server would cut a longer one
        raise QueryRefused("name_too_long", "A name may have 63 bytes; PostgreSQL would cut a longer one.")
