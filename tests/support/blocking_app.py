"""The gateway with a path that blocks its event loop for good, as a bad pattern or a blocking call would."""

from __future__ import annotations

import re

from admin_api.app import build
from gateway.app import Gateway
from gateway.cli.context import settings_for_cli
from gateway.proxy.exchange import Receive, Scope, Send

ENDLESS = re.compile(r"(a+)+b")


class Blocking(Gateway):
    """Hangs at /block in C code that keeps the GIL."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request (ASGI)."""
        if scope["type"] == "http" and scope["path"] == "/block":
            ENDLESS.match("a" * 64)
        await super().__call__(scope, receive, send)


application = Blocking(settings_for_cli(), build)
