"""A trivial ASGI application for tests of the servers and of the supervisor: no gateway, no database."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer at once; after three seconds on /slow, five minutes on /long; in six pieces over three seconds on /stream.

    The query, if there is one, names a file to be made when the call has come.
    """
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if mark := scope["query_string"].decode():
        Path(mark).touch()
    pieces = 1
    if scope["path"] == "/slow":
        await asyncio.sleep(3)
    elif scope["path"] == "/long":
        await asyncio.sleep(300)
    elif scope["path"] == "/stream":
        pieces = 6
    headers = [(b"content-type", b"text/plain"), (b"x-worker", str(os.getpid()).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if scope["path"] == "/metrics-directory":
        directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR", "none")
        await send({"type": "http.response.body", "body": directory.encode() + b"\n", "more_body": True})
    for number in range(pieces):
        if pieces > 1:
            await asyncio.sleep(0.5)
        await send({"type": "http.response.body", "body": b"piece %d\n" % number, "more_body": True})
    await send({"type": "http.response.body", "body": b"done\n"})


async def refusing(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Fail to start."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})
