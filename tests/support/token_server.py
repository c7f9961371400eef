"""A publisher's API with its token server: checks what calls carry, and counts what it was asked for.

POST /oauth/token gives client-credentials tokens, POST or GET /trade trades a key; calls to anything else are answered
with what they carried, or 401 when the token is none that is good now.
"""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass, field
from urllib.parse import parse_qs

import orjson

from tests.support.upstream import Recorded, RecordingUpstream

CLIENT, SECRET, KEY = "client-1", "s3cret/+ä"[:7], "publisher-key"


@dataclass
class TokenServer(RecordingUpstream):
    """`good` are the tokens that calls may carry; None takes every token. `page` is what a token server in trouble says."""

    good: set[str] | None = field(default_factory=set)
    given: int = 0
    lifetime: object = 3600
    status: int = 200
    pause: float = 0.05
    takes_basic: bool = True
    page: bytes | None = None

    async def _answer(self, request: Recorded, writer: asyncio.StreamWriter) -> bool:
        path = request.target.partition("?")[0]
        if path in ("/oauth/token", "/trade"):
            await asyncio.sleep(self.pause)
            status, document = self._oauth(request) if path == "/oauth/token" else self._trade(request)
        else:
            status, document = self._call(request)
        body = orjson.dumps(document) if self.page is None or path != "/oauth/token" else self.page
        writer.write(
            b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % (status, len(body))
            + body
        )
        await writer.drain()
        return True

    def _new(self) -> str:
        self.given += 1
        token = f"token-{self.given}"
        if self.good is not None:
            self.good.add(token)
        return token

    def _oauth(self, request: Recorded) -> tuple[int, object]:
        form = parse_qs(request.body.decode())
        basic = "Basic " + base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        shown = request.all("authorization") == [basic] if self.takes_basic else form.get("client_secret") == [SECRET]
        if self.status != 200:
            return self.status, {"error": "server_error"}
        if not shown:
            return 401, {"error": "invalid_client"}
        if form.get("grant_type") != ["client_credentials"] or form.get("scope") != ["read write"]:
            return 400, {"error": "invalid_scope"}
        return 200, {"access_token": self._new(), "token_type": "bearer", "expires_in": self.lifetime}

    def _trade(self, request: Recorded) -> tuple[int, object]:
        if self.status != 200:
            return self.status, {}
        query = parse_qs(request.target.partition("?")[2])
        body = orjson.loads(request.body) if request.body else {}
        shown = (request.all("x-key"), request.all("authorization"), body.get("api_key"), query.get("key"))
        if not ([KEY] in shown[:1] or [f"Bearer {KEY}"] in shown[1:2] or KEY in shown[2:3] or [KEY] in shown[3:]):
            return 403, {}
        return 200, {"session": {"tokens": [self._new()]}, "expires_in": self.lifetime}

    def _call(self, request: Recorded) -> tuple[int, object]:
        carried = request.all("authorization")
        token = carried[0].removeprefix("Bearer ") if len(carried) == 1 else ""
        if self.good is not None and token not in self.good:
            return 401, {"carried": carried}
        return 200, {"carried": carried, "headers": request.headers, "body": request.body_size}
