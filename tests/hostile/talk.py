"""Short ways to say what nearly every test says: serve this and show what arrived; answer this and show what came."""

from __future__ import annotations

from tests.hostile.shops import Market
from tests.hostile.wire import Answer, ScriptedUpstream, ask
from tests.support.gateway import RunningGateway
from tests.support.upstream import Recorded, RecordingUpstream

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def seen_by(upstream: RecordingUpstream, wired: RunningGateway, raw: bytes) -> Recorded:
    """Send a request that must be served and return what arrived."""
    upstream.forget()
    answer = await ask(wired.port, raw)
    assert answer.status == 200, answer
    (seen,) = upstream.requests
    return seen


async def told(
    wired: RunningGateway, market: Market, scripted: ScriptedUpstream, answer: bytes, method: str = "GET"
) -> Answer:
    """Let the publisher's server answer with these bytes and return what the caller reads."""
    scripted.answers["told"] = answer
    return await ask(wired.port, market.ask(method, "/told", shop=market.scripted), head=method == "HEAD")
