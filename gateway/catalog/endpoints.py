"""Which documented endpoints a request may name: exact for pricing, suspicious of every other reading.

Price and protection must follow from what the upstream will do, but an upstream may read a path in its own way: decode
%2F or decode twice, ignore case, collapse //, drop ;parameters or a trailing slash, take a backslash for a slash. So a
path is read in every combination of these (readings.py), and every endpoint that some reading names counts: the dearest
price is charged and any protection applies, so that no spelling of a path is cheaper than another. A reading that names
no endpoint counts as well, as None: what is sold must be documented, or priced, whichever way the upstream reads it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

from gateway.catalog.delivery import Refunds
from gateway.catalog.readings import Reading, Segments, is_plain, loosened
from gateway.settings import SettlementPolicy

VARIABLE = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*\}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One documented endpoint. `price` is atomic units of the publisher's primary asset, None to use method prices."""

    method: str
    path: str
    price: int | None
    is_protected: bool = False
    protection_reason: str | None = None
    settlement: SettlementPolicy | None = None
    required_headers: tuple[str, ...] = ()
    required_params: tuple[str, ...] = ()
    refunds: Refunds | None = field(default=None, compare=False)
    """What it gives back, None for what its publisher does."""

    @property
    def requires(self) -> bool:
        """Return whether a request must bring something."""
        return bool(self.required_headers or self.required_params)


Candidates = tuple[Endpoint | None, ...]
UNDOCUMENTED: Candidates = (None,)


def template_segments(path: str) -> Segments:
    """Return the decoded segments of a template such as "/v1/items/{id}"; a variable is kept as "{}"."""
    return tuple("{}" if VARIABLE.fullmatch(segment) else unquote(segment) for segment in path.split("/")[1:])


class EndpointTable:
    """A publisher's documented endpoints, indexed once when the snapshot is built."""

    __slots__ = ("_all_plain", "_exact", "_loose", "listed")

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self.listed = tuple(endpoints)
        self._exact, self._loose = _Index(), _Index()
        for endpoint in self.listed:
            segments = template_segments(endpoint.path)
            self._exact.add(endpoint.method, segments, endpoint)
            self._loose.add(endpoint.method, loosened(segments), endpoint)
        # A slash at the end tells endpoints apart only where both spellings are documented.
        for endpoint in self.listed:
            segments = template_segments(endpoint.path)
            other = segments[:-1] if segments[-1:] == ("",) else (*segments, "")
            self._exact.add_if_absent(endpoint.method, other, endpoint)
        self._all_plain = all(is_plain(VARIABLE.sub("x", endpoint.path).encode()) for endpoint in self.listed)

    def __bool__(self) -> bool:
        return bool(self.listed)

    def match(self, method: str, reading: Reading) -> Candidates:
        """Return what the request may name, the literal reading's endpoint first. None is "undocumented"."""
        wanted = "GET" if method == "HEAD" else method
        if reading.is_plain and self._all_plain:
            return (*self._exact.find(wanted, reading.literal)[:1],) or UNDOCUMENTED
        named: list[Endpoint | None] = []
        for segments in reading.exact:
            named += self._exact.find(wanted, segments) or UNDOCUMENTED
        for segments in reading.loose:  # what only these name counts, that they name nothing does not
            named += self._loose.find(wanted, segments)
        return tuple(endpoint for place, endpoint in enumerate(named) if not _stands_in(endpoint, named[:place]))


def _stands_in(endpoint: Endpoint | None, earlier: Iterable[Endpoint | None]) -> bool:
    return any(endpoint is other for other in earlier)


class _Index:
    """Endpoints by method and segments; a key has several where templates differ only in what the key leaves out."""

    __slots__ = ("_fixed", "_templates")

    def __init__(self) -> None:
        self._fixed: dict[tuple[str, Segments], list[Endpoint]] = {}
        self._templates: dict[tuple[str, int], list[tuple[Segments, list[Endpoint]]]] = {}

    def add(self, method: str, segments: Segments, endpoint: Endpoint) -> None:
        if "{}" not in segments:
            self._fixed.setdefault((method, segments), []).append(endpoint)
            return
        rows = self._templates.setdefault((method, len(segments)), [])
        for known, endpoints in rows:
            if known == segments:
                endpoints.append(endpoint)
                return
        rows.append((segments, [endpoint]))
        rows.sort(key=lambda row: tuple(segment == "{}" for segment in row[0]))

    def add_if_absent(self, method: str, segments: Segments, endpoint: Endpoint) -> None:
        known = (pattern for pattern, _ in self._templates.get((method, len(segments)), ()))
        if (method, segments) not in self._fixed and segments not in known:
            self.add(method, segments, endpoint)

    def find(self, method: str, segments: Segments) -> Sequence[Endpoint]:
        """Return the endpoints of these segments, the most specific template's where no fixed path fits."""
        fixed = self._fixed.get((method, segments))
        if fixed is not None:
            return fixed
        for pattern, endpoints in self._templates.get((method, len(segments)), ()):
            if all(
                part == segment or (part == "{}" and segment) for part, segment in zip(pattern, segments, strict=True)
            ):
                return endpoints
        return ()
