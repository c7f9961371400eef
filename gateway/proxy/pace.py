"""How fast a request body must come: a bucket of seconds that waiting empties and bytes refill. Pure, no clock.

A caller may fall `patience` seconds behind the least rate, so a burst after a pause is fine and one byte now and then
is not. Only the time that the gateway waits for the caller counts: what an upstream does not take is not his fault.
"""

from __future__ import annotations

from gateway.errors import RequestTimeout
from gateway.proxy.framing import CLOSE
from gateway.settings import ProxySettings


class Pace:
    """One upload. Times are seconds of one clock."""

    __slots__ = ("_ends", "_patience", "_rate", "_slack", "_total")

    def __init__(self, settings: ProxySettings, now: float) -> None:
        self._rate = settings.upload_min_rate
        self._patience = self._slack = settings.body_timeout
        self._total = settings.upload_timeout
        self._ends = now + self._total

    def wait(self, now: float) -> float:
        """Return for how long the next piece may be waited for."""
        return min(self._slack, self._ends - now)

    def took(self, waited: float, size: int) -> None:
        """Note that a piece of `size` bytes came after so long."""
        refilled = self._slack - waited + size / self._rate if self._rate else self._patience
        self._slack = min(refilled, self._patience)

    def refusal(self, now: float) -> RequestTimeout:
        """Return why an upload ends whose wait is over."""
        if now >= self._ends:
            why = f"The request body did not come within {self._total:g} s"
        elif self._rate:
            why = (
                f"The request body came more slowly than {self._rate} bytes a second"
                f" and fell {self._patience:g} s behind"
            )
        else:
            why = f"Nothing of the request body came for {self._patience:g} s"
        return RequestTimeout(f"{why}; you were not charged.", headers=CLOSE)
