"""What is left of a request body when its answer is known: read on and forgotten.

A server that closes over unread bytes resets the connection, and the caller never reads why it was refused. (Seen on
hypercorn: most 402 answers to uploads of 1 MB were lost.) Guards the paid path and the admin API.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress

from gateway.proxy.exchange import Receive, Send

LIMIT = 8_388_608
SECONDS = 5.0
# Who sends nothing for so long waits for the answer.
PAUSE_SECONDS = 0.2


def may_come(fields: Mapping[bytes, bytes]) -> bool:
    """Return whether a head announces a body that its sender does not hold back (RFC 9110 section 10.1.1)."""
    announced = fields.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in fields
    return announced and b"expect" not in fields


async def end_answer(send: Send, receive: Receive, body: bytes) -> None:
    """Send the last piece of an answer once the caller has sent its body, or has stopped sending.

    Before, because hypercorn hands on nothing of a request whose answer has ended; what comes later still, after it.
    """
    ended = await _discard(receive, PAUSE_SECONDS)
    await send({"type": "http.response.body", "body": body})
    if not ended:
        await _discard(receive, SECONDS)


async def _discard(receive: Receive, pause: float) -> bool:
    """Receive until the body ends (True) or pauses; at most LIMIT bytes and SECONDS: nobody must listen for ever."""
    left = LIMIT
    with suppress(TimeoutError):
        async with asyncio.timeout(SECONDS):
            while left > 0:
                async with asyncio.timeout(pause):
                    message = await receive()
                if not message.get("more_body"):
                    return True
                left -= len(message.get("body", b""))
    return False
