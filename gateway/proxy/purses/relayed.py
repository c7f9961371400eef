"""A call to a server that sells by x402 itself: its callers pay it, and what a key or a payment means is its own."""

from __future__ import annotations

from gateway.proxy.purses.purse import Purse


class RelayedPurse(Purse):
    """Pays nothing here. The payment passes through, and so does what the server says of it."""

    __slots__ = ()

    relays = True
    without_key = True


RELAYED = RelayedPurse()
