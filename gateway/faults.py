"""Named points at which a development gateway can be made to die, hang or fail: how crash safety is proven.

TOLLWAY_FAULT=<point>:kill|hang|error arms one point of this process; `tollway fault-points` lists them. Unarmed, a
point costs one look at an empty name. What does not live here: the points themselves stand where the steps are.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping

POINTS: dict[str, str] = {
    "claim.after": "the Idempotency-Key is claimed, nothing is paid",
    "authorize.before": "the price is known, nothing is paid",
    "authorize.after": "the charge is posted, the upstream has not heard of the call",
    "forward.after": "the upstream has answered, the caller has nothing",
    "refund.after": "a failed call's charge is refunded, the caller has nothing",
    "store.before": "the answer is complete, but not stored",
    "store.after": "the answer is stored and settled, the caller does not have all of it",
    "deliver.head": "the head of the answer has gone out",
    "deliver.after": "the caller has the answer, its settlement is not written",
    "settle.after": "the settlement is noted, and may be on its way to the database",
    "operation.done": "an operation with an Idempotency-Key had its effect, its answer is not stored",
    "query.held": "the most that a query may cost is held, its database has not heard of it",
    "query.ready": "a query's sandbox stands, nothing of it has run",
    "query.read": "a query's rows are read, the caller has nothing",
    "query.streamed": "the first part of a long answer to a query has gone out",
    "query.ended": "what a query cost is on its way to the ledger, the caller does not have all of its answer",
    "query.delivered": "the caller has the answer to a query",
    "x402.claimed": "a payment's name is claimed, nothing is reserved",
    "x402.answered": "the answer is complete, the payment is not kept with it",
    "x402.kept": "the answer is kept and its payment pending, the caller does not have all of it",
    "x402.settled": "a payment that somebody waits for is settled, its call does not go on",
    "purchase.promised": "a purchase is on disk, its upstream has not heard of a payment",
    "purchase.answered": "the upstream has answered a call that was paid, nothing of that is noted",
    "purchase.noted": "what the upstream said of its payment is noted, the caller has nothing",
    "deposit_refund.ordered": "a refund to a card is ordered, Stripe has not heard of it",
    "deposit_refund.sent": "Stripe has made a refund, nothing of it is booked",
    "chain.reserved": "an authorization is claimed, nothing is submitted",
    "chain.submitted": "a payment is pending for the relayer",
    "chain.planned": "the relayer has chosen what to send, nothing is signed",
    "chain.stored": "signed transactions are stored, the node has not heard of them",
    "chain.sent": "transactions are broadcast, nobody has looked for them",
    "chain.mined": "a transaction is in a block, nothing is booked",
    "chain.booked": "a payment is confirmed and booked, nobody has been told",
    "payout.final": "the transaction of a payout is in a final block, nothing is booked",
    "payout.completed": "a payout is booked as paid, nobody has been told",
    "repayment.final": "the transaction that returns a payment is in a final block, nothing is booked",
    "repayment.completed": "a repayment is booked, nobody has been told",
    "archive.sealed": "nothing is written into a month any more, nothing of it is in a file",
    "archive.written": "a month is in files, nobody has read them",
    "archive.read": "the files of a month were read back, the ledger has all of its rows",
    "archive.carried": "the sums of a month are written, in a transaction that still has to drop its rows",
    "archive.dropped": "a month is archived, nobody has been told",
    "webhook.claimed": "a delivery is leased, its receiver has not heard of it",
    "webhook.sent": "a webhook's receiver has answered, nothing of that is noted",
}
ACTIONS = ("kill", "hang", "error")


class FaultError(RuntimeError):
    """An armed point of the kind `error` was reached, or TOLLWAY_FAULT names something that does not exist."""


def parse(text: str) -> tuple[str, str]:
    """Return (point, action) of a TOLLWAY_FAULT value; two empty strings when it is empty. Raises FaultError."""
    if not text:
        return "", ""
    point, _, action = text.partition(":")
    if point not in POINTS or action not in ACTIONS:
        raise FaultError(f"TOLLWAY_FAULT={text}: use <point>:kill|hang|error; `tollway fault-points` lists the points")
    return point, action


def armed(environ: Mapping[str, str] = os.environ) -> tuple[str, str]:
    """Return what TOLLWAY_FAULT arms."""
    return parse(environ.get("TOLLWAY_FAULT", ""))


ARMED, _ACTION = armed()


async def act() -> None:
    """Do what the armed point is armed for. Call as `if ARMED == "<point>": await act()`."""
    if ARMED == "deliver.head":
        await asyncio.sleep(0)  # our server writes a head alone one turn later, where no body has come until then
    if _ACTION == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if _ACTION == "hang":
        await asyncio.Event().wait()
    raise FaultError(f"the fault point {ARMED} was reached")
