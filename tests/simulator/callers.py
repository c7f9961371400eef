"""Agents calling publishers through a simulated process, and what each of them saw."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from gateway.proxy.exchange import Exchange
from gateway.proxy.walk import Truncated
from tests.simulator.conductor import Conductor
from tests.simulator.process import Process
from tests.support.world import Agent, Shop

HALF = 0.5


@dataclass
class Attempt:
    """One try of one call: what was sent, and all that its caller saw of it."""

    number: int
    agent: Agent
    shop: int
    key: str | None
    process: Process
    exchange_id: str
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    complete: bool = False
    left: bool = False
    ended: int = 0  # the step after which nothing more could come
    troubled: bool = False  # its process lost connections to the database meanwhile

    def __repr__(self) -> str:
        saw = f"{self.status or 'nothing'}{'' if self.complete else ', cut'}{', left' if self.left else ''}"
        return f"call {self.number} by {self.process} as {self.exchange_id} with key {self.key} ({saw}, x-cost {self.cost})"

    @property
    def replayed(self) -> bool:
        """Return whether this is a stored answer."""
        return "idempotency-replayed" in self.headers

    @property
    def cost(self) -> str:
        """Return what the answer says it cost."""
        return self.headers.get("x-cost", "")


class Caller:
    """Makes attempts and keeps them all."""

    def __init__(self, conductor: Conductor) -> None:
        self._conductor = conductor
        self.attempts: list[Attempt] = []

    async def attempt(
        self, process: Process, number: int, agent: Agent, shop: tuple[int, Shop], *, key: str | None, leaves: bool
    ) -> Attempt:
        """Make one call and return what became of it. `leaves`: the caller may hang up, at any step or in the middle."""
        gone, head = asyncio.Event(), asyncio.Event()
        asked = False

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "http.request", "body": b"", "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if gone.is_set() or not process.alive:
                raise ConnectionResetError("the caller has left")
            head.set()
            self._took(attempt, message)

        exchange = Exchange(self._scope(number, agent, shop[1], key), receive, send)
        attempt = Attempt(number, agent, shop[0], key, process, str(exchange.id))
        self.attempts.append(attempt)
        faults = process.faults
        served = process.spawn(process.pipeline.serve(exchange))
        if leaves and self._conductor.random.random() < HALF:
            head.set()
        leaving = asyncio.ensure_future(self._leave(attempt, gone, head, served)) if leaves else None
        await asyncio.wait({served, process.died}, return_when=asyncio.FIRST_COMPLETED)
        if leaving is not None:
            leaving.cancel()
        attempt.ended = self._conductor.steps
        attempt.troubled = process.faults != faults
        if served.done() and not served.cancelled():
            error = served.exception()
            if error is not None and not isinstance(error, Truncated | ConnectionResetError):
                raise error
        self._conductor.seen[f"answer {attempt.status if attempt.complete else 'cut'}"] += 1
        self._conductor.seen["replay"] += attempt.replayed
        self._conductor.note(f"call {number} ended: {attempt.status or 'nothing'}{'' if attempt.complete else ', cut'}")
        return attempt

    async def _leave(
        self, attempt: Attempt, gone: asyncio.Event, head: asyncio.Event, served: asyncio.Task[Any]
    ) -> None:
        """Hang up when `head` is set; some servers then give up on the call, others only say so."""
        await head.wait()
        await self._conductor.turn(f"the caller of {attempt.number} hangs up")
        attempt.left = not attempt.complete
        gone.set()
        if self._conductor.random.random() < HALF:
            served.cancel()

    def _took(self, attempt: Attempt, message: Any) -> None:
        if message["type"] == "http.response.start":
            attempt.status = message["status"]
            attempt.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            attempt.body += message.get("body", b"")
            attempt.complete = not message.get("more_body", False)

    def _scope(self, number: int, agent: Agent, shop: Shop, key: str | None) -> dict[str, Any]:
        headers = [(b"host", b"gateway"), (b"authorization", f"Bearer {agent.key}".encode())]
        if key is not None:
            headers.append((b"idempotency-key", key.encode()))
        path = f"/publishers/{shop.slug}/c{number}"
        return {
            "type": "http", "http_version": "1.1", "method": "GET", "scheme": "http", "path": path,
            "raw_path": path.encode(), "query_string": b"", "headers": headers, "client": ("192.0.2.1", 1),
        }  # fmt: skip
