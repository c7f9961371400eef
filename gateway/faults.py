"""Named points at which a development gateway can be made to die, hang or fail: how crash safety is proven.

TOLLWAY_FAULT=<point>:kill|hang|error arms one point of this process; `tollway fault-points` lists them. Unarmed, a
point costs one look at an empty name. A call's points are the effects of its walk, whatever its kind and its purse; the
others stand where their steps are.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from typing import Literal

Effect = Literal[
    "admit", "ahead", "authorize", "capture", "claim", "deliver", "examine", "forward", "head", "look", "pay", "piece",
    "plan", "promise", "query", "ready", "refund", "reserve", "settle", "settlement", "store", "submit",
]  # fmt: skip
EFFECTS: dict[Effect, str] = {
    "claim": "the Idempotency-Key, or the name of the payment that came along, is claimed; nothing is paid",
    "admit": "the call has one of its publisher's places",
    "plan": "a query is planned in its publisher's database, nothing of it has run",
    "examine": "the chain was asked what a payment is worth, nothing is reserved",
    "reserve": "a payment is reserved for the call",
    "submit": "a payment is handed over for settlement",
    "settlement": "a payment that somebody waits for is settled, or its time is up",
    "authorize": "the price is charged, held or reserved; the publisher has not heard of the call",
    "promise": "a purchase from a server that sells by itself is on disk, that server has heard of no payment",
    "pay": "a server that sells by itself has answered a call that was paid, nothing of that is noted",
    "forward": "the publisher's server has answered, the caller has nothing",
    "ready": "a query's sandbox stands, nothing of it has run",
    "query": "a query's rows are read, the caller has nothing but what was streamed",
    "look": "what an answer costs was read of it, or its payment settled; the caller has nothing",
    "ahead": "the payment of a connection is settled or submitted, its caller is not accepted",
    "refund": "the money of a call that brings nothing is given back, the caller has not read of it",
    "store": "the answer is stored with the end of its money, the caller does not have all of it",
    "capture": "what a query cost is on its way to the ledger, the caller does not have all of its answer",
    "head": "the head of the answer has gone out",
    "piece": "the first part of a long answer to a query has gone out",
    "deliver": "the caller has the answer, its settlement is not written",
    "settle": "the settlement is noted, and may be on its way to the database",
}
"""What a call waits for, and what has been done after it. Each is a point `.before` and `.after` (proxy/effects.py)."""
POINTS: dict[str, str] = {
    **{f"{effect}.before": f"not yet: {said}" for effect, said in EFFECTS.items()},
    **{f"{effect}.after": said for effect, said in EFFECTS.items()},
    "operation.done": "an operation with an Idempotency-Key had its effect, its answer is not stored",
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
    if ARMED == "head.after":
        await asyncio.sleep(0)  # our server writes a head alone one turn later, where no body has come until then
    if _ACTION == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if _ACTION == "hang":
        await asyncio.Event().wait()
    raise FaultError(f"the fault point {ARMED} was reached")
