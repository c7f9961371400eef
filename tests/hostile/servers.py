"""Where the servers differ on the wire, as data: the tests hold each to what stands here, and to nothing less.

Everything else in this folder must hold on our own server (tollway), granian, uvicorn and hypercorn alike;
docs/operations.md repeats this list. Our own has no entry of its own in FRAMING: it refuses all of them.
On all four ASGI leaves no way for: interim answers of an upstream (103), trailers, reason phrases, the case of field
names, and a bare "?" at the end of a target.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Difference:
    """What a server does with a request that the others refuse, where no second reading of it is left.

    `once`: it is served as `line` says, and the connection ends; `one by one`: it and then what follows, each paid for;
    `waits`: nothing is answered and nothing whole is forwarded.
    """

    kind: Literal["once", "one by one", "waits"]
    line: str
    reason: str

    def holds(self, status: int, seen: list[str], closed: bool, whole: list[str]) -> bool:
        """Return whether that is what happened. `whole` has the digests of the bodies that arrived whole."""
        if self.kind == "waits":
            return status in (-1, 0) and not whole
        expected = [self.line] if self.kind == "once" else [self.line, "GET /smuggled"]
        return (status, seen, closed) == (200, expected, self.kind == "once")

    @property
    def paid(self) -> int:
        """Return how many calls were paid for."""
        return {"waits": 0, "once": 1, "one by one": 2}[self.kind]


FRAMING: dict[tuple[str, str], Difference] = {
    ("granian", "TE and CL"): Difference("once", "POST /x", "hyper drops Content-Length and closes (RFC 9112 6.3)"),
    ("granian", "CL and TE"): Difference("once", "POST /x", "hyper drops Content-Length and closes (RFC 9112 6.3)"),
    ("granian", "CL twice, equal"): Difference("one by one", "POST /x", "hyper makes one of them (RFC 9112 6.3)"),
    ("granian", "bare LF for line ends"): Difference("one by one", "GET /x", "hyper takes LF (RFC 9112 2.2)"),
    ("granian", "bare LF in a value"): Difference("one by one", "POST /x", "hyper ends a line there, for all readers"),
    ("granian", "fragment in the target"): Difference("one by one", "GET /x", "hyper drops the fragment"),
    ("uvicorn", "fragment in the target"): Difference("one by one", "GET /x", "llhttp drops the fragment"),
    ("uvicorn", "two blanks"): Difference("one by one", "GET /x", "llhttp skips blanks (RFC 9112 section 3)"),
    ("hypercorn", "CL twice, equal"): Difference("one by one", "POST /x", "h11 makes one of them (RFC 9112 6.3)"),
    ("hypercorn", "bare LF for line ends"): Difference("one by one", "GET /x", "h11 takes LF (RFC 9112 2.2)"),
    ("hypercorn", "bare LF in a value"): Difference("one by one", "POST /x", "h11 ends a line there, for all readers"),
    ("hypercorn", "DEL in a value"): Difference("one by one", "POST /x", "h11 refuses CR, LF and NUL only"),
    ("hypercorn", "chunk extension with bare CR"): Difference("one by one", "POST /x", "h11 drops extensions unread"),
    ("hypercorn", "obs-fold"): Difference("one by one", "POST /x", "h11 unfolds to blanks (RFC 9112 section 5.2)"),
    ("hypercorn", "control in a value"): Difference("one by one", "POST /x", "h11 refuses CR, LF and NUL only"),
    ("hypercorn", "small-letter method"): Difference(
        "one by one", "GET /x", "hypercorn capitalises it for all readers"
    ),
    ("hypercorn", "mixed-case method"): Difference("one by one", "POST /x", "hypercorn capitalises it for all readers"),
    ("hypercorn", "chunk size overflows"): Difference("waits", "POST /x", "h11 reads sizes of up to 20 digits"),
    ("hypercorn", "HTTP/2 preface"): Difference("waits", "", "hypercorn speaks HTTP/2 here"),
}

# The order of fields of different names (RFC 9110 section 5.3: without meaning) as it was sent; granian groups equal
# names. The order of fields of one name is kept everywhere.
ORDER_KEPT = {"tollway", "uvicorn", "hypercorn"}
# A target that ends in a bare "?": none of the three tells the application, so the mark is lost.
BARE_QUESTION_MARK_KEPT: set[str] = set()
# hypercorn answers 100 (Continue) before the application has looked at the request; the others when its body is wanted.
CONTINUES_UNASKED = {"hypercorn"}
# A request that asks for an Upgrade other than websocket and has a body: uvicorn's parser would not read the body.
REFUSES_BODY_BEHIND_UPGRADE = {"uvicorn"}
# An Expect other than 100-continue is answered 417 (RFC 9110 section 10.1.1); the others ignore it.
REFUSES_UNKNOWN_EXPECTATIONS = {"tollway"}
# An answer that breaks off before its first body byte: granian has not sent our head by then and answers 500 itself;
# the others send the head and cut the connection. Nothing is charged.
CUT_HEADS_ARE_500 = {"granian"}
# How 110 fields are answered: granian reads at most 100 (431); the others know only the size of the section.
MANY_FIELDS = {"granian": 431}
