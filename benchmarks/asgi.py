"""The gateway without its admin API, for measuring a checkout in which that cannot be imported."""

from __future__ import annotations

from gateway.app import Application, Gateway
from gateway.proxy.exchange import Receive, Scope, Send
from gateway.services import Services
from gateway.settings import load


def no_admin(_services: Services) -> Application:
    """Return an application that answers 404 to everything."""

    async def application(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    return application


application = Gateway(load(), no_admin)
