"""What is left of a request body once its answer is out: read on and forgotten.

A server that closes over unread bytes resets the connection, and the caller never reads why it was refused. (Seen on
granian: most 402 answers to uploads of 1 MB were lost.) Guards the paid path and the admin API.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress

from gateway.proxy.exchange import Receive

LIMIT = 8_388_608
SECONDS = 5.0


def may_come(fields: Mapping[bytes, bytes]) -> bool:
    """Return whether a head announces a body that its sender does not hold back (RFC 9110 section 10.1.1)."""
    announced = fields.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in fields
    return announced and b"expect" not in fields


async def discard(receive: Receive) -> None:
    """Receive until the body ends; at most LIMIT bytes and SECONDS, because nobody has to listen for ever."""
    left = LIMIT
    with suppress(TimeoutError):
        async with asyncio.timeout(SECONDS):
            while left > 0:
                message = await receive()
                if not message.get("more_body"):
                    return
                left -= len(message.get("body", b""))
