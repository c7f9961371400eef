"""Where a call goes: the origin of a publisher's server, already split and normalised.

Lives here: the value that pools are keyed by and that the egress guard hands out. Not here: whether an origin may be
contacted (egress.py) or how (http/). Keeping scheme, host and port apart prevents the classic confusion in which the
checker and the connector read one URL differently.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Scheme = Literal["http", "https"]
DEFAULT_PORTS: dict[str, int] = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host (lower-case A-labels or an address literal without brackets) and port."""

    scheme: Scheme
    host: str
    port: int
    # Both are read on every call; computing them once keeps the pool lookup at one dict probe.
    authority: bytes = field(init=False, compare=False, repr=False)
    _hash: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse what no pool key may contain and derive the Host field (RFC 9110 section 7.2)."""
        if self.scheme not in DEFAULT_PORTS:
            raise ValueError("scheme must be http or https")
        if not 0 < self.port < 65_536:
            raise ValueError("port must be between 1 and 65535")
        name = f"[{self.host}]" if ":" in self.host else self.host
        if self.port != DEFAULT_PORTS[self.scheme]:
            name = f"{name}:{self.port}"
        object.__setattr__(self, "authority", name.encode("ascii"))
        object.__setattr__(self, "_hash", hash((self.scheme, self.host, self.port)))

    def __hash__(self) -> int:
        """Return the hash computed once at construction."""
        return self._hash

    def __str__(self) -> str:
        """Return the origin as it appears in URLs; safe for logs."""
        return f"{self.scheme}://{self.authority.decode('ascii')}"


@dataclass(frozen=True, slots=True)
class Lane:
    """At most `limit` connections to an origin that serve one publisher alone, because its owner bounds them.

    Another limit is another lane: a change takes effect with the next call, while the old lane's connections run out.
    """

    origin: Origin
    owner: str
    limit: int
