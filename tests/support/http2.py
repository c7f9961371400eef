"""An HTTP/2 client for tests that need more than httpx shows: resets, windows, WebSockets (RFC 8441)."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import h2.exceptions

Fields = list[tuple[str, str]]


@dataclass
class Stream:
    """What has come on one stream. `changed` is set with everything that comes."""

    id: int
    status: int = 0
    headers: Fields = field(default_factory=list)
    trailers: Fields = field(default_factory=list)
    body: bytes = b""
    ended: bool = False
    reset: bool = False
    sent: int = 0  # of the request's body
    reads: bool = True  # False: its window is never opened again
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, condition, seconds: float = 60.0) -> None:
        """Wait until a condition on this stream holds."""
        async with asyncio.timeout(seconds):
            while not condition(self):
                self.changed.clear()
                await self.changed.wait()


class Http2Client:
    """One connection. Use as an async context manager; streams are read in the background."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._port, self._tls = port, tls
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="latin-1"))
        self.streams: dict[int, Stream] = {}
        self.closed = False
        self._window = asyncio.Event()

    async def __aenter__(self) -> Http2Client:
        host = "localhost" if self._tls else "127.0.0.1"
        if self._tls:
            self._tls.set_alpn_protocols(["h2"])
        self._reader, self._writer = await asyncio.open_connection(host, self._port, ssl=self._tls)
        self.h2.initiate_connection()
        self.flush()
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        self._writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await self._writer.wait_closed()

    @property
    def protocol(self) -> str | None:
        """What TLS agreed on."""
        tls = self._writer.get_extra_info("ssl_object")
        return tls.selected_alpn_protocol() if tls else None

    def flush(self) -> None:
        self._writer.write(self.h2.data_to_send())

    def send(self, fields: Fields, *, end: bool = True, reads: bool = True) -> Stream:
        """Send the head of a request."""
        stream = Stream(self.h2.get_next_available_stream_id(), reads=reads)
        self.streams[stream.id] = stream
        self.h2.send_headers(stream.id, fields, end_stream=end)
        self.flush()
        return stream

    async def write(self, stream: Stream, data: bytes, *, end: bool = False) -> None:
        """Send a piece of a body within the windows that the server gives. Stops when the stream has ended."""
        while data and not (stream.ended or stream.reset or self.closed):
            room = min(self.h2.local_flow_control_window(stream.id), self.h2.max_outbound_frame_size, len(data))
            if room <= 0:
                self._window.clear()
                await asyncio.wait_for(self._window.wait(), 60)
                continue
            self.h2.send_data(stream.id, data[:room])
            data, stream.sent = data[room:], stream.sent + room
            self.flush()
            await self._writer.drain()
        if end and not (stream.ended or stream.reset or self.closed):
            self.h2.end_stream(stream.id)
            self.flush()

    async def call(self, fields: Fields) -> Stream:
        """Make a call without a body and read its answer."""
        stream = self.send(fields)
        await stream.until(lambda it: it.ended or it.reset)
        return stream

    def reset(self, stream: Stream) -> None:
        self.h2.reset_stream(stream.id)
        self.flush()

    async def _read(self) -> None:
        while data := await self._reader.read(65_536):
            for event in self.h2.receive_data(data):
                self._take(event)
            self.flush()
        self.closed = True
        for stream in self.streams.values():
            stream.reset = stream.reset or not stream.ended
            stream.changed.set()
        self._window.set()

    def _take(self, event: h2.events.Event) -> None:
        self._window.set()
        stream = self.streams.get(getattr(event, "stream_id", None) or 0)
        if stream is None:
            return
        if isinstance(event, h2.events.ResponseReceived):
            stream.headers = list(event.headers)
            stream.status = int(dict(event.headers)[":status"])
        elif isinstance(event, h2.events.DataReceived):
            stream.body += event.data
            if stream.reads:
                with contextlib.suppress(h2.exceptions.ProtocolError):
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            else:  # the connection's window stays open for the others
                self.h2.increment_flow_control_window(event.flow_controlled_length)
        elif isinstance(event, h2.events.TrailersReceived):
            stream.trailers = list(event.headers)
        elif isinstance(event, h2.events.StreamEnded):
            stream.ended = True
        elif isinstance(event, h2.events.StreamReset):
            stream.reset = True
        stream.changed.set()
