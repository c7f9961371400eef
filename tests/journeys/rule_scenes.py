"""The rows of docs/who-pays.md about what publishers promise to give back, and the answers that play them."""

from __future__ import annotations

from tests.hostile.wire import CLOSE
from tests.journeys.scenes import Seen, Stage, leave_before, row

HALF = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"


def _json(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


ANSWERS = {
    "nothing": _json(b'{"results": []}'),
    "failed": _json(b'{"results": [1], "error": {"code": 7}}'),
    "other-form": _json(b'{"results": "many"}'),
    "results": _json(b'{"results": [1], "error": null}'),
    "too-large": _json(b'{"results": [], "filling": "' + b"x" * (1 << 20) + b'"}'),
    "half-json": HALF + CLOSE,
}
PROMISED = {
    "empty_result": "results",
    "error_at": "error",
    "schema": {"required": ["results"], "properties": {"results": {"type": "array"}}},
}


@row("rule-empty", refund_rules=PROMISED)
async def _(stage: Stage) -> Seen:
    return await stage.call("/nothing")


@row("rule-error", refund_rules=PROMISED)
async def _(stage: Stage) -> Seen:
    return await stage.call("/failed")


@row("rule-schema", refund_rules=PROMISED)
async def _(stage: Stage) -> Seen:
    return await stage.call("/other-form")


@row("rule-late", refund_rules={"later_than_ms": 100})
async def _(stage: Stage) -> Seen:
    return await stage.call("/slow-ok")


@row("rule-with-key", refund_rules=PROMISED)
async def _(stage: Stage) -> Seen:
    first = await stage.call("/nothing", "Idempotency-Key: k1")
    stage.upstream.forget()
    again = await stage.call("/nothing", "Idempotency-Key: k1")
    assert (first.cost, again.fields["idempotency-replayed"], stage.upstream.heads) == ("0", "true", [])
    return again


@row("rule-kept", refund_rules={**PROMISED, "later_than_ms": 60_000})
async def _(stage: Stage) -> Seen:
    return await stage.call("/results")


@row("rule-no-json", refund_rules=PROMISED)
async def _(stage: Stage) -> Seen:
    return await stage.call("/ok")


@row("rule-too-large", refund_rules=PROMISED)
async def _(stage: Stage) -> Seen:
    return await stage.call("/too-large")


@row("rule-breaks-off", refund_rules=PROMISED)
async def _(stage: Stage) -> Seen:
    return await stage.call("/half-json")


@row("rule-leaves", refund_rules=PROMISED)
async def _(stage: Stage) -> None:
    await leave_before(stage, "/slow-results")
