"""Publishers' servers as the pipeline sees them: each call follows the script that its plan names, step by step."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from gateway.upstreams.http.errors import BrokenBody, ConnectError, Disconnected, FirstByteTimeout
from gateway.upstreams.http.response import UpstreamResponse
from tests.simulator.conductor import Conductor

SCRIPTS = (
    "whole",
    "whole",
    "whole",
    "pieces",
    "pieces",
    "error",
    "refuse",
    "reset",
    "silent",
    "breaks",
    "missing",
    "slow",
)
"""What a server does, weighted by repetition: answers at once or in pieces, 503, no connection, closes without an
answer, times out, breaks off in the middle, 404, goes on for long."""
STATUSES = {"error": 503, "missing": 404}
PIECES = {"pieces": 2, "breaks": 2, "slow": 12}


@dataclass
class Heard:
    """What one server knows of one exchange: `step` and `at` (simulated seconds) say when it arrived.

    `broke` is the step in which its answer broke off, or 0.
    """

    exchange_id: str
    script: str
    step: int = 0
    at: float = 0.0
    broke: int = 0
    delivered: bool = False


@dataclass
class Publishers:
    """All servers. `scripts` says what the call with a number gets; `heard` what arrived, by exchange id."""

    conductor: Conductor
    scripts: dict[int, str] = field(default_factory=dict)
    heard: dict[str, Heard] = field(default_factory=dict)

    async def send(
        self, _origin: Any, _method: bytes, target: bytes, headers: list[tuple[bytes, bytes]], body: Any, *_more: Any
    ) -> UpstreamResponse:
        """Stand in for UpstreamClient.send."""
        number = int(target.rpartition(b"/c")[2])
        exchange_id = dict(headers)[b"x-request-id"].decode()
        script = self.scripts[number]
        self.scripts[number] = "whole"  # whoever tries again succeeds
        if isinstance(body, AsyncIterator):
            async for _ in body:
                pass
        await self.conductor.turn(f"call {number} reaches its publisher: {script}")
        if script == "refuse":
            raise ConnectError("refused", sent=False)
        if exchange_id in self.heard:
            raise AssertionError(f"exchange {exchange_id} was sent twice")
        heard = self.heard[exchange_id] = Heard(exchange_id, script, self.conductor.steps, self.conductor.loop.time())
        if script == "silent":
            raise FirstByteTimeout("no answer", sent=True)
        if script == "reset":
            raise Disconnected("closed", sent=True)
        return self._answer(number, script, heard)

    def _answer(self, number: int, script: str, heard: Heard) -> UpstreamResponse:
        answer = UpstreamResponse(_Stream(), STATUSES.get(script, 200), b"", [(b"content-type", b"text/plain")])
        answer.feed(b"answer %d of " % number)
        if script in PIECES:
            task = self.conductor.loop.create_task(self._go_on(number, script, answer, heard))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        else:
            self._end(answer, heard)
        return answer

    async def _go_on(self, number: int, script: str, answer: UpstreamResponse, heard: Heard) -> None:
        for _ in range(PIECES[script]):
            await self.conductor.turn(f"the publisher of call {number} goes on")
            answer.feed(b"more of ")
        if script == "breaks":
            heard.broke = self.conductor.steps
            answer.fail(BrokenBody("broke off", sent=True))
        else:
            self._end(answer, heard)

    def _end(self, answer: UpstreamResponse, heard: Heard) -> None:
        answer.feed(heard.exchange_id.encode())
        answer.end()
        heard.delivered = True


class _Stream:
    """The connection behind an answer; there is none."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def abandon(self, response: UpstreamResponse) -> None:
        response.fail(BrokenBody("given up", sent=True))

    async def write_raw(self, data: bytes) -> None:
        raise NotImplementedError
