"""A payment that does not buy the call: answered by 402, with the protocol's reason and every offer that there is."""

from __future__ import annotations

from gateway.payments.examine import refused
from gateway.payments.x402.answers import Settlement
from gateway.payments.x402.reasons import PaymentRefused
from gateway.proxy.purses.wallets import Shortfall


class Declined(Shortfall):
    """`reason` is a code of the protocol; `settlement` how a payment that was sent to its chain ended there.

    The detail is for the payer and holds no secret.
    """

    def __init__(
        self, reason: str, detail: str = "", *, version: int = 2, settlement: Settlement | None = None
    ) -> None:
        super().__init__(detail or refused(reason).detail, 0)
        self.reason = reason
        self.version = version
        self.settlement = settlement

    @classmethod
    def of(cls, refusal: PaymentRefused) -> Declined:
        """Return the answer to a payment that was refused before anything was promised on it."""
        return cls(str(refusal.reason), refusal.detail)
