"""A TCP switch in front of a server: what goes through it can be cut off and let through again."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit


class Switch:
    """Listens on a port of its own and passes bytes on, unless it is off. `url` is the server's with that port."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = str(parts.hostname), int(parts.port or 0)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._url = url
        self.port = 0

    @property
    def url(self) -> str:
        return self._url.replace(f":{self._port}/", f":{self.port}/")

    async def __aenter__(self) -> Switch:
        await self.on()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.off()

    async def on(self) -> None:
        """Listen, on the same port as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def off(self) -> None:
        """Refuse new connections and cut those that there are."""
        if self._server is not None:
            self._server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            await self._server.wait_closed()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.close()
            return
        pair = {writer, far_writer}
        self._writers |= pair
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer), return_exceptions=True)
        self._writers -= pair
        for end in pair:
            end.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(65_536):
            writer.write(piece)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
