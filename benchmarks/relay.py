"""A TCP relay that counts the round trips that pass through it: how often a client speaks after it was answered."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from benchmarks.plain_http import HOST


class Relay:
    """Forwards connections to one port. `trips` counts requests over all connections."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.port = 0
        self.trips = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection both ways until either side ends it."""
        there, back = await asyncio.open_connection(HOST, self._target)
        answered = asyncio.Event()
        answered.set()

        async def requests() -> None:
            while data := await reader.read(65_536):
                self.trips += answered.is_set()
                answered.clear()
                back.write(data)

        async def answers() -> None:
            while data := await there.read(65_536):
                answered.set()
                writer.write(data)

        ways = [asyncio.ensure_future(requests()), asyncio.ensure_future(answers())]
        with contextlib.suppress(OSError):
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        writer.close()
        back.close()


@contextlib.asynccontextmanager
async def relayed(target: int) -> AsyncGenerator[Relay]:
    """Serve a relay to a port of this machine."""
    relay = Relay(target)
    server = await asyncio.start_server(relay.serve, HOST, 0)
    relay.port = int(server.sockets[0].getsockname()[1])
    try:
        yield relay
    finally:
        server.close()
