"""What we tell a payer, before either version of the wire puts it into words: the resource, and how a payment ended."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.networks import Network
from gateway.payments.evm.encoding import show_address

MAX_URL = 1_024
MAX_DESCRIPTION = 200
MAX_ERROR = 300


@dataclass(frozen=True, slots=True)
class Resource:
    """What is sold. Build it with `resource`, so that no long path makes a header that clients cannot take."""

    url: str
    description: str
    mime_type: str = "application/json"


def resource(url: str, description: str) -> Resource:
    """Return a resource whose texts are cut to lengths that fit a header."""
    return Resource(url[:MAX_URL], description[:MAX_DESCRIPTION])


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a payment ended: `transaction` (32 bytes) when it is on the chain, `reason` (a protocol code) when not.

    `amount` is what moved, in atomic units; it differs from what was signed only for `upto`.
    """

    network: Network
    payer: bytes
    transaction: bytes | None = None
    amount: int | None = None
    reason: str | None = None

    @property
    def transaction_text(self) -> str:
        """Return the transaction's hash as the wire has it: "" when nothing was settled."""
        return "" if self.transaction is None else "0x" + self.transaction.hex()

    @property
    def payer_text(self) -> str:
        """Return the payer in EIP-55."""
        return show_address(self.payer)
