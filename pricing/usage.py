"""What a call used, as far as it is known: the input of a tariff. Before the call a field may be an upper bound."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """Counts of one exchange. `requests` is 1 for a proxied call; the others are 0 where they do not apply."""

    method: str = "GET"
    requests: int = 1
    rows: int = 0
    bytes_out: int = 0


@dataclass(frozen=True, slots=True)
class PriceList:
    """One publisher's prices in one asset. Amounts are atomic units of that asset; None means "not set"."""

    per_call: int | None = None
    per_method: tuple[tuple[str, int], ...] = ()
    minimum: int = 0
    maximum: int | None = None
    fee_ppm: int = 0
    priced_elsewhere: bool = False
    """Whether the publisher states a price that is not in this list: of an endpoint, in another asset, of rows."""

    def for_method(self, method: str) -> int | None:
        """Return the price of a method, if there is one. HEAD is sold as GET: it is the same resource."""
        wanted = "GET" if method == "HEAD" else method
        for name, price in self.per_method:
            if name == wanted:
                return price
        return None

    def sells(self, method: str) -> bool:
        """Return whether a call of this method has a price here, 0 included; where nothing has one, all are sold."""
        return (
            self.per_call is not None
            or bool(self.minimum)
            or self.for_method(method) is not None
            or not (self.per_method or self.priced_elsewhere)
        )
