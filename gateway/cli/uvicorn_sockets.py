"""Uvicorn's WebSockets, made to hold no more than what the application is ready for.

What uvicorn leaves open: all messages of one read are queued, and tiny ones take a hundred times their size; pongs are
written whether or not the client takes any. Here one message waits, and the rest stays as bytes until it is wanted; a
client that takes nothing is not read either.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import wsproto
from uvicorn.protocols.websockets.wsproto_impl import WSProtocol
from wsproto.events import Event


class PatientConnection(wsproto.WSConnection):
    """Reports what came until a message is whole, then nothing more before the application has taken it."""

    protocol: WSProtocol

    def events(self) -> Generator[Event]:
        """Yield what came."""
        if self.protocol.read_paused:
            return
        for event in super().events():
            yield event
            if self.protocol.read_paused:
                return


class PatientProtocol(WSProtocol):
    """One connection."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.conn = PatientConnection(wsproto.ConnectionType.SERVER)
        self.conn.protocol = self

    def pause_writing(self) -> None:
        """Read nothing from a client that takes nothing: pongs would add up (asyncio callback)."""
        super().pause_writing()
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on (asyncio callback)."""
        super().resume_writing()
        if not self.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    async def receive(self) -> Any:
        """Return the next message (ASGI), and look whether another is here."""
        message = await super().receive()
        self._go_on()
        return message

    async def send(self, message: Any) -> None:
        """Send a message (ASGI). Behind a Close frame only that of the client is of interest."""
        await super().send(message)
        if self.close_sent:
            self._go_on()

    def _go_on(self) -> None:
        if self.disconnected or self.read_paused:
            return
        self.handle_events()
        if not self.writable.is_set() and not self.transport.is_closing():
            self.transport.pause_reading()
