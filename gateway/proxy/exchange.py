"""One paid call from its first byte to its booked end: the object that every step fills in further."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from gateway.catalog.delivery import Refunds
from gateway.catalog.snapshot import AssetPrice, Publisher
from gateway.ids import uuid7
from gateway.proxy.purses.purse import UNPAID, Purse
from pricing.quote import FREE, Quote

if TYPE_CHECKING:
    from gateway.billing.prepaid_credits import Ending
    from gateway.catalog.endpoints import Endpoint
    from gateway.identity.principals import Principal
    from gateway.limits.policy import Verdict
    from gateway.proxy.destination import Destination
    from gateway.proxy.meter import Meter
    from gateway.proxy.pace import Pace
    from gateway.proxy.peeked import Peeked
    from gateway.settings import ProxySettings
    from gateway.upstreams.auth.authenticator import Authenticator
    from gateway.upstreams.postgres.queries import Rows
    from gateway.upstreams.turnstile import Turnstile
    from pricing.sql.budget import Budget
    from pricing.tariffs.tiered import TierRate


@dataclass(slots=True)
class Keyed:
    """A claimed Idempotency-Key and what is gathered for its stored answer."""

    owner_id: UUID
    key: str
    request_hasher: Any = field(default_factory=hashlib.sha256)


Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
HeaderPairs = list[tuple[bytes, bytes]]
NO_STATUSES: frozenset[int] = frozenset()
NO_REFUNDS = Refunds()


class Exchange:
    """The state of one call. Steps run in order; each field is set by the step that its comment names."""

    __slots__ = (
        "ahead",
        "answered",
        "asset_price",
        "body_at",
        "body_ended",
        "body_hasher",
        "bounds",
        "budget",
        "by_trusted_proxy",
        "bytes_in",
        "bytes_out",
        "candidates",
        "ending",
        "fields",
        "handed",
        "head_sent",
        "id",
        "judged",
        "keyed",
        "lag",
        "limit",
        "marks",
        "meter",
        "method",
        "named",
        "outcome",
        "own",
        "pace",
        "path",
        "peeked",
        "place",
        "principal",
        "publisher",
        "purse",
        "query",
        "quote",
        "read_body",
        "receive",
        "rows",
        "scope",
        "send",
        "sent",
        "slug",
        "stalled",
        "started",
        "status",
        "tiers",
        "to",
        "token",
        "upload_place",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.id: UUID = uuid7()
        self.scope = scope
        self.receive = receive
        self.send = send
        self.started = time.perf_counter()
        self.lag = 0.0  # admission: for how long its bytes had been here by then
        self.marks: list[tuple[str, float]] = []
        self.method: str = scope["method"]
        self.slug = ""  # intake
        self.path = b""  # intake: raw bytes below the slug
        self.query = b""  # intake: raw query string
        self.bounds: ProxySettings | None = None  # intake
        self.fields: dict[bytes, bytes] = {}  # intake: the few request fields that we read ourselves
        self.publisher: Publisher | None = None  # match
        self.principal: Principal | None = None  # identify
        self.by_trusted_proxy = False  # identify: whether the peer's X-Forwarded-* are believed
        self.limit: Verdict | None = None  # limit
        self.candidates: Sequence[Endpoint | None] = ()  # quote: the endpoints that the request may name
        self.asset_price: AssetPrice | None = None  # quote
        self.quote: Quote = FREE  # quote
        self.meter: Meter | None = None  # quote: reads what the call costs, where that is known afterwards
        self.tiers: TierRate | None = None  # quote: what the call costs by its caller's month, where that decides
        self.read_body: bytes | None = None  # query, purchase: its body, read before it is known who pays for it
        self.named: str | None = None  # query, tool: what is called, where it is no documented path
        self.rows: Rows | None = None  # query: what was read for it
        self.budget: Budget | None = None  # query: what a planned query may come to, in rows
        self.own: Authenticator | None = None  # admit: the caller's own token, where the publisher asks for it
        self.place: Turnstile | None = None  # admit: where the call holds one of the publisher's places
        self.purse: Purse = UNPAID  # claim: what pays the call
        self.to: Destination | None = None  # forward: where it was sent
        self.token: bytes | None = None  # forward: by which token it was let in there
        self.status: int | None = None  # forward: what the upstream answered
        self.judged: str | None = None  # judge: why the publisher's rules give this answer back
        self.answered = 0  # deliver: the status that the caller got
        self.ending: Ending = "delivered"  # deliver: how the answer that is kept ended
        self.pace: Pace | None = None  # body: how fast it has come so far
        self.ahead: bytearray | None = None  # admit: the beginning of the body, read before there was a place
        self.peeked: Peeked | None = None  # admit: what is waited for from the caller, where that was looked at
        self.upload_place: Turnstile | None = None  # admit: where the call holds a place while its body comes
        self.body_ended = False  # body: whether the whole request body is here
        self.body_at = 0.0  # body: since when it is; infinite while it is on its way
        self.bytes_in = 0  # meter
        self.bytes_out = 0  # meter
        self.body_hasher: Any = None  # meter: sha256 of the response body, for paid calls
        self.keyed: Keyed | None = None  # idempotency: set when this call has claimed an Idempotency-Key
        self.sent = False  # forward: whether the upstream may have seen the call
        self.head_sent = False  # deliver
        self.handed = 0.0  # deliver: when a whole answer was handed to the server, while the server has not taken it
        self.stalled = False  # live: the caller has not taken it for too long
        self.outcome = "refused"  # settle: free, settled, refunded, refused

    def took_in(self, piece: bytes) -> None:
        """Meter a piece of the request body; calls with a key hash it as well."""
        self.bytes_in += len(piece)
        if self.keyed is not None:
            self.keyed.request_hasher.update(piece)

    def end_upload(self) -> None:
        """Give the place of an upload back: the body is here, or nobody wants the rest."""
        if self.upload_place is not None:
            self.upload_place.leave()
            self.upload_place = None

    def gave_out(self, piece: bytes) -> None:
        """Meter a piece of the response body, and hash it for the receipt of a paid call."""
        self.bytes_out += len(piece)
        if self.meter is not None:
            self.meter.feed(piece)
        if self.body_hasher is not None:
            self.body_hasher.update(piece)
        elif self.purse.paid:
            self.body_hasher = hashlib.sha256(piece)

    @property
    def bought(self) -> bool:
        """Return whether the publisher's server was paid for the answer: then that money is gone."""
        return self.meter is not None and self.meter.bought

    @property
    def refunded_statuses(self) -> frozenset[int]:
        """Return the statuses that its publisher gives back: none of what was bought."""
        return NO_STATUSES if self.bought else self.refunds.statuses

    @property
    def refunds(self) -> Refunds:
        """Return what is given back of this call: what its endpoint says, else its publisher.

        Where its path may name several endpoints that differ in it, nothing is promised: no spelling of a path makes an
        answer free.
        """
        own, chosen = self.sold.delivery.refunds, None
        for endpoint in self.candidates:
            refunds = own if endpoint is None or endpoint.refunds is None else endpoint.refunds
            if chosen is not None and refunds != chosen:
                return NO_REFUNDS
            chosen = refunds
        return own if chosen is None else chosen

    def mark(self, stage: str) -> None:
        """Note that a stage ended now, for the latency-by-stage metric."""
        self.marks.append((stage, time.perf_counter()))

    @property
    def bounded_by(self) -> ProxySettings:
        """Return the bounds of the paid path."""
        if self.bounds is None:
            raise RuntimeError("intake has not run")
        return self.bounds

    @property
    def sold(self) -> Publisher:
        """Return the matched publisher."""
        if self.publisher is None:
            raise RuntimeError("match has not run")
        return self.publisher


async def nobody(_message: Message) -> None:
    """Send to a caller who has left."""
