"""The caller of a WebSocket handshake. Towards the steps it is one of HTTP."""

from __future__ import annotations

from gateway.proxy.exchange import HeaderPairs, Message, Receive, Scope, Send

OWN_FIELDS = b"sec-websocket-"  # of the caller's handshake with us; the upstream gets one of its own
DENIAL = "websocket.http.response"
POLICY_VIOLATION = 1008


class Caller:
    """Answers before the upgrade become denials."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: HeaderPairs = scope["headers"]
        offered: list[str] = list(scope.get("subprotocols") or ())  # not every server leaves them in the headers
        self.protocols = [", ".join(offered).encode("latin-1")] if offered else []
        self.receive, self.raw_send = receive, send
        self._denial = DENIAL in (scope.get("extensions") or {})
        self._start: Message = {}
        self._body = b""
        self.scope: Scope = {
            **scope,
            "method": "GET",
            "scheme": "https" if scope.get("scheme") in ("wss", "https") else "http",
            "headers": [pair for pair in headers if not pair[0].startswith(OWN_FIELDS)],
            "caller": self,
        }

    async def no_body(self) -> Message:
        """Return the body of a handshake: there is none."""
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: Message) -> None:
        """Send an HTTP answer instead of the upgrade, in one piece: not every ASGI server takes more."""
        if message["type"] == "http.response.start":
            self._start = message
            return
        self._body += message.get("body", b"")
        if message.get("more_body"):
            return
        if self._denial:
            headers = [pair for pair in self._start["headers"] if pair[0] != b"connection"]
            await self.raw_send({"type": f"{DENIAL}.start", "status": self._start["status"], "headers": headers})
            await self.raw_send({"type": f"{DENIAL}.body", "body": self._body, "more_body": False})
        else:
            await self.raw_send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": "refused"})

    async def accept(self, subprotocol: str | None, headers: HeaderPairs) -> None:
        """Upgrade the caller's connection."""
        await self.raw_send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": headers})
