"""Where hypercorn differs on the wire, as data: the tests hold it to what stands here, and to nothing less.

Everything else in this folder must hold on our own server (tollway) and on hypercorn alike; docs/operations.md repeats
this list. Our own has no entry in FRAMING: it refuses all of them.
On both ASGI leaves no way for: interim answers of an upstream (103), trailers, reason phrases, the case of field
names, and a bare "?" at the end of a target.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Difference:
    """What a server does with a request that the others refuse, where no second reading of it is left.

    `one by one`: it is served as `line` says, and then what follows, each paid for; `waits`: nothing is answered and
    nothing whole is forwarded.
    """

    kind: Literal["one by one", "waits"]
    line: str
    reason: str

    def holds(self, status: int, seen: list[str], closed: bool, whole: list[str]) -> bool:
        """Return whether that is what happened. `whole` has the digests of the bodies that arrived whole."""
        if self.kind == "waits":
            return status in (-1, 0) and not whole
        return (status, seen, closed) == (200, [self.line, "GET /smuggled"], False)

    @property
    def paid(self) -> int:
        """Return how many calls were paid for."""
        return {"waits": 0, "one by one": 2}[self.kind]


FRAMING: dict[tuple[str, str], Difference] = {
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

# hypercorn answers 100 (Continue) before the application has looked at the request; our own when its body is wanted.
CONTINUES_UNASKED = {"hypercorn"}
# An Expect other than 100-continue is answered 417 (RFC 9110 section 10.1.1); hypercorn ignores it.
REFUSES_UNKNOWN_EXPECTATIONS = {"tollway"}
