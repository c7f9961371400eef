"""`x402_passthrough`: the upstream sells by x402 itself, and the gateway only relays. Pure.

    the call           goes on with whatever payment its caller sent, and costs nothing here
    the upstream's 402 comes back as it is: its offers name the upstream's own payee
    the payment        is verified and settled by the upstream, whose PAYMENT-RESPONSE comes back as well

So the gateway takes no fee of it (gateway_fee_percent must be 0), keeps no answer for an Idempotency-Key, whose meaning
is the upstream's, and has no receipt: no money moved here.
"""

from __future__ import annotations

RELAYED = frozenset(b"payment-signature x-payment idempotency-key".split())
"""Fields of a request that go on to such an upstream, and to no other."""

RETURNED = frozenset(b"payment-required payment-response x-payment-response".split())
"""Fields of an answer that are such an upstream's own."""
