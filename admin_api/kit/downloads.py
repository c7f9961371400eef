"""Long files that are sent as they are made, and only to who takes them.

A file in the making holds things that others need too, such as a connection of the database. So who takes nothing for
`patience` seconds, or is not done after `LONGEST`, is cut off, and whatever the end is, the source is closed at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from gateway.proxy.cut import cut_connection

LONGEST = 3600.0


class Download(StreamingResponse):
    """`lines` as a file of that name."""

    def __init__(self, lines: AsyncGenerator[bytes], name: str, media_type: str, patience: float) -> None:
        headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
        super().__init__(lines, media_type=media_type, headers=headers)
        self._lines, self._patience = lines, patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it. Raises ClientDisconnect when it was not taken."""

        async def send_in_time(message: Message) -> None:
            try:
                async with asyncio.timeout(self._patience):
                    await send(message)
            except TimeoutError:
                cut_connection(scope)
                raise ClientDisconnect from None

        whole = asyncio.timeout(LONGEST)
        try:
            async with aclosing(self._lines), whole:
                await super().__call__(scope, receive, send_in_time)
        except TimeoutError:
            if not whole.expired():  # its source took too long
                raise
            cut_connection(scope)
            raise ClientDisconnect from None
