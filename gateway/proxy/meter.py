"""What one call costs by what passes: reads along with the answer, and never changes or holds up a byte of it."""

from __future__ import annotations

from typing import TypeAlias

from gateway.upstreams.http.response import UpstreamResponse
from pricing.quote import Quote
from pricing.reported import MOST, Reader, Reading, Watch, number, reader_for
from pricing.tariffs.pay_per_use import UsageRate
from pricing.tariffs.per_byte import ByteRate
from pricing.tariffs.x402_passthrough import PurchaseRate

Rate: TypeAlias = UsageRate | ByteRate | PurchaseRate
# What would make an upstream answer in a form that is not read, or only in part.
NOT_ASKED = frozenset(b"accept-encoding range if-range".split())
AT_ONCE_SECONDS = 2.0
"""How long an answer that is no stream may take to be whole after its head, so that its head can say what it cost."""


class Meter:
    """Made when the price is quoted. `whole`: nothing that is still to come changes the cost."""

    def __init__(self, rate: Rate, watch: Watch) -> None:
        self.rate = rate
        self.whole = False
        self._watch = watch
        self._reading = Reading()
        self._reader: Reader | None = None

    @property
    def reads(self) -> bool:
        """Return whether the cost is in the answer, rather than its size."""
        return isinstance(self.rate, UsageRate)

    @property
    def due(self) -> Quote:
        """Return what the call costs by now."""
        return self.rate.quote(self._reading)

    async def begin(self, answer: UpstreamResponse) -> None:
        """Look at the head, and at the body if that is here within a moment. Raises UpstreamError."""
        fields = {name.lower(): value.decode("latin-1") for name, value in answer.headers}
        if self._watch.header is not None:
            self._reading.header = number(fields.get(self._watch.header, "").strip())
            self.whole = self.reads
        kind = fields.get(b"content-type", "")
        self._reader = reader_for(self._watch, kind, fields.get(b"content-encoding", ""), self._reading)
        if not self.whole and not kind.startswith("text/event-stream") and answer.complete_body is None:
            await answer.gather(MOST, AT_ONCE_SECONDS)
        body = answer.complete_body
        if body is not None:
            self.feed(body)
            self.end()

    def pay(self, amount: int) -> None:
        """Note what an upstream was paid for its answer, in atomic units."""
        self._reading.paid = amount

    @property
    def bought(self) -> bool:
        """Return whether an upstream was paid for the answer."""
        return self._reading.paid > 0

    def feed(self, piece: bytes) -> None:
        """Read a piece of the body, as it was sent."""
        if not self.whole:
            self._reading.size += len(piece)
            if self._reader is not None:
                self._reader.feed(piece)

    def end(self) -> None:
        """Note that the body is whole."""
        if not self.whole and self._reader is not None:
            self._reader.end()
        self.whole = True
