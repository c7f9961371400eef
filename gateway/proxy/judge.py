"""Between forward and deliver: look whether the publisher's own rules give this answer back (pricing/refund_rules.py).

An answer is judged before any of it goes out, so that its head says what it costs in the end. It is waited for as a
whole then, as long as it is JSON and not too large; what is not is passed on as it comes, unjudged, and is paid. Only
the upstream can make an answer that is given back: what a caller leaves unread, asks for in part (Range), without body
(HEAD) or in another coding is not judged by its body, and the time of its own upload is not the upstream's.
"""

from __future__ import annotations

from gateway.proxy.exchange import Exchange
from gateway.upstreams.http.response import UpstreamResponse
from pricing.refund_rules import MOST_BYTES, WHOLE_SECONDS

WITHOUT_BODY = frozenset((204, 205, 206))


def judges(exchange: Exchange) -> bool:
    """Return whether the publisher has rules about what is in its answers: they are asked for plain and whole then."""
    rules = exchange.refunds.rules
    return rules is not None and rules.reads


async def judge(exchange: Exchange, answer: UpstreamResponse) -> None:
    """Note why the answer of a paid call is given back, if it is. Raises UpstreamError when it breaks off meanwhile."""
    rules = exchange.refunds.rules
    if rules is None or exchange.bought or answer.status >= 500:
        return
    exchange.judged = rules.of_time(_seconds(exchange))
    if (
        exchange.judged is None
        and rules.reads
        and _is_readable(exchange, answer)
        and await answer.gather(MOST_BYTES, WHOLE_SECONDS)
    ):
        exchange.judged = rules.of_body(answer.complete_body or b"")


def _seconds(exchange: Exchange) -> float:
    """Return how long the upstream took, from the last byte of the request to the head of its answer: no time at all
    where it has answered before.
    """
    marks = dict(exchange.marks)
    return marks["upstream"] - max(marks["authorize"], exchange.body_at)


def _is_readable(exchange: Exchange, answer: UpstreamResponse) -> bool:
    if exchange.method == "HEAD" or not 200 <= answer.status < 300 or answer.status in WITHOUT_BODY:
        return False
    kind = (answer.field(b"content-type") or b"").partition(b";")[0].strip().lower()
    if kind != b"application/json" and not (kind.startswith(b"application/") and kind.endswith(b"+json")):
        return False
    return (answer.field(b"content-encoding") or b"identity").strip().lower() in (b"identity", b"")
