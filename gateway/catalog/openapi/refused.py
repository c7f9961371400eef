"""Why a document is not taken, and where in it."""

from __future__ import annotations


class DocumentRefused(ValueError):
    """The document cannot be imported. `place` is a JSON pointer into it, or a line; "" is the whole."""

    def __init__(self, message: str, place: str = "") -> None:
        super().__init__(message)
        self.place = place

    @property
    def detail(self) -> str:
        """Return place and message in one line."""
        return f"{self.place}: {self}" if self.place else str(self)


def pointer(*parts: object) -> str:
    """Return a JSON pointer (RFC 6901) as a place in a message: escaped, printable, and not endless."""
    escaped = (str(part).replace("~", "~0").replace("/", "~1") for part in parts)
    text = "#/" + "/".join(escaped)
    shown = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    return shown if len(shown) <= 300 else shown[:299] + "…"
