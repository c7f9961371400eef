"""The conductor chooses what happens next: which request reaches the database, which answer comes back, which step of a
call goes on, when time passes, and what breaks. All from one seeded generator, one choice at a time.

A choice is made only when everything in the simulated processes waits and every backend has either answered or waits
for a lock that a chosen step must free. So the same seed makes the same history, however fast the machine is.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.simulator.loop import PROCESS, Events, Poll, SimulatedLoop
from tests.simulator.observer import Observer
from tests.simulator.wire import Wire

STALLED_SECONDS = 60.0
LONGEST_TICK = 60.0
STATEMENT_SECONDS = 30.0  # how long a statement may wait for a lock: statement_timeout, in simulated seconds
EPOCH = datetime(2031, 3, 31, 23, 59, tzinfo=UTC)  # when simulated time begins: a month ends while calls are under way
# Where a lost connection leaves money in doubt: these break more often than, say, a pool's own housekeeping.
MONEY = frozenset(
    [
        "post_charges",
        "refund",
        "settle",
        "store_answer",
        "claim_answer",
        "place_holds",
        "finish_hold",
        "end_hold",
        "grant_lot",
        "expire_lots",
        "COMMIT",
    ]
)
MORE_OFTEN = 6
LOST = "the simulated network lost the connection"


class SimulationError(AssertionError):
    """Something that must never happen did."""


@dataclass
class Chances:
    """How often what goes wrong, per choice, and how the choices weigh."""

    request_lost: float = 0.0  # before the server had it
    answer_lost: float = 0.0  # after the server did it
    refused: float = 0.0  # new connections
    crash: float = 0.0
    freeze: float = 0.0
    stall: float = 0.0  # the database stands still; what is sent to it meanwhile it reads when it goes on
    tick: float = 0.05
    start: float = 1.0
    lost_at: str = ""  # the one statement at which connections are lost; without it at any
    budget: int = 0  # how much may go wrong in all: without an end to trouble nothing would ever end


@dataclass
class Turn:
    """A step of a coroutine that waits to be chosen."""

    label: str
    process: Any
    future: asyncio.Future[None]


class Conductor:
    """See the module. `check` is called now and then and raises SimulationError when the books are wrong."""

    def __init__(self, seed: str, loop: SimulatedLoop, observer: Observer, chances: Chances) -> None:
        self.random = random.Random(seed)
        self.loop = loop
        self.observer = observer
        self.chances = chances
        self.calm = False
        self.history: list[str] = []
        self.steps = 0
        self.seen: Counter[str] = Counter()
        self.start_next: Callable[[], Callable[[], None] | None] = lambda: None
        self.may_crash: Callable[[], list[Any]] = list
        self.check: Callable[[], None] = lambda: None
        self.check_every = 200
        self.budget = chances.budget
        self.frozen: list[Any] = []
        self.stalled = False
        self._late: list[Wire] = []  # lost while the database stood still, with a request that it has yet to read
        self.shards = 64
        self._wires: list[Wire] = []
        self._numbers = 0
        self._turns: dict[int, Turn] = {}
        self._opening = 0
        self._found: Exception | None = None
        self._leaving: dict[int, str] = {}
        self._stale = False  # somebody has ended, so a lock may be free
        self._waiting_since = 0.0
        self._blocked_since: dict[int, float] = {}

    # What the simulated processes meet.

    async def turn(self, label: str) -> None:
        """Wait until this step is chosen."""
        self._numbers += 1
        number = self._numbers
        future: asyncio.Future[None] = self.loop.create_future()
        self._turns[number] = Turn(label, PROCESS.get(), future)
        try:
            await future
        finally:
            self._turns.pop(number, None)

    async def connect(self, factory: Callable[[], Any], open_real: Callable[..., Any]) -> tuple[Any, Any]:
        """Open a connection for the current process, or refuse it."""
        process = PROCESS.get()
        if not process.alive or "CancelProto" in factory.__qualname__:
            raise ConnectionRefusedError("not in the simulation")
        await self.turn(f"{process} connects")
        while self.stalled:
            await asyncio.sleep(0.1)
        if self._breaks(self.chances.refused):
            self.note(f"{process} is refused a connection")
            process.faults += 1
            raise ConnectionRefusedError("the simulated server refuses connections")
        self._numbers += 1
        wire = Wire(self._numbers, process, factory(), self._done, self._outlives)
        self._opening += 1
        try:
            await open_real(lambda: wire)
        finally:
            self._opening -= 1
        self._wires.append(wire)
        return wire.door, wire.inner

    def cut(self, process: Any) -> None:
        """Lose every connection of a process. What its requests did to the database is done."""
        for wire in [wire for wire in self._wires if wire.process is process]:
            self._lose(wire)
        for turn in [turn for turn in self._turns.values() if turn.process is process]:
            turn.future.cancel()

    def abandon(self) -> None:
        """Lose every connection and let nothing new begin: the run is over."""
        self.calm = True
        self.stalled = False
        for wire in self._wires:
            wire.process.alive = False
            wire.lose()
        for wire in self._late:
            wire.arrive_late()

    @property
    def at_rest(self) -> bool:
        """Return whether no request is under way."""
        return all(wire.state in ("idle", "lost") for wire in self._wires)

    def note(self, line: str) -> None:
        """Write a line of the history."""
        self.history.append(f"{self.steps:5} {self.loop.time():9.3f}  {line}")

    def found(self, error: Exception) -> None:
        """Remember an error of the code under test that nobody waits for; the run ends with it."""
        self._found = self._found or error

    # The loop asks.

    def idle(self, poll: Poll) -> Events:
        """Make progress: wait for sockets while a backend works, else choose."""
        if self._busy():
            events = poll(0.002)
            if not events:
                self._look_at_backends()
            return events
        self._waiting_since = 0.0
        if self._stale:
            self._stale = False
            if self._look_again():
                return []
        self._note_waits()
        self._choose()
        return []

    def _busy(self) -> bool:
        return (
            self._opening > 0
            or any(wire.state in ("starting", "running") for wire in self._wires)
            or "running" in self._leaving.values()
        )

    def _look_again(self) -> bool:
        """Treat all who waited for a lock as working, until they are seen to wait."""
        blocked = [wire for wire in self._wires if wire.state == "blocked"]
        for wire in blocked:
            wire.state = "running"
        for pid in self._leaving:
            self._leaving[pid] = "running"
        return bool(blocked or self._leaving)

    def _note_waits(self) -> None:
        """Note which requests wait for a lock, once each, and only now: who was seen to wait while another backend still
        worked depends on the machine.
        """
        for wire in self._wires:
            if wire.state == "blocked" and not wire.waits:
                wire.waits = True
                self.note(f"{wire} waits for a lock: {wire.label}")
                self.seen["lock"] += 1

    def _look_at_backends(self) -> None:
        self._waiting_since = self._waiting_since or time.monotonic()
        if time.monotonic() - self._waiting_since > STALLED_SECONDS:
            raise SimulationError(f"PostgreSQL does not answer: {self._wires}")
        running = {wire.pid: wire for wire in self._wires if wire.state in ("running", "blocked") and wire.pid}
        seen = self.observer.blockers([*running, *self._leaving])
        for pid in [pid for pid in self._leaving if pid not in seen]:
            del self._leaving[pid]
            self._stale = True
        for pid, by in seen.items():
            if pid in self._leaving:
                self._leaving[pid] = "blocked" if by else "running"
            elif by and running[pid].state == "running":
                running[pid].state = "blocked"
        self._refuse_deadlock(seen, running)

    def _refuse_deadlock(self, seen: dict[int, list[int]], running: dict[int, Wire]) -> None:
        for start in seen:
            path, at = [start], start
            while blockers := [pid for pid in seen.get(at, []) if pid in seen]:
                at = blockers[0]
                if at in path:
                    waiting = ", ".join(f"{running[pid]} {running[pid].label}" for pid in path if pid in running)
                    raise SimulationError(f"deadlock in the database between {waiting}")
                path.append(at)

    def _choose(self) -> None:
        self.steps += 1
        if self._found is not None:
            raise self._found
        if self.steps % self.check_every == 0:
            self.check()
        options = self._options()
        if not options:
            tasks = "; ".join(sorted(map(str, asyncio.all_tasks(self.loop))))
            raise SimulationError(f"nothing can happen any more: {tasks}")
        weights = [weight for weight, _, _ in options]
        _, act, label = options[self.random.choices(range(len(options)), weights)[0]]
        if label:
            self.note(label)
        act()

    def _options(self) -> list[tuple[float, Callable[[], None], str]]:
        options: list[tuple[float, Callable[[], None], str]] = []
        self._wires = [wire for wire in self._wires if wire.state != "lost"]
        for wire in self._wires:
            if wire.process in self.frozen or self.stalled:
                continue
            if wire.state == "asked":
                options.append((3, lambda wire=wire: self._ask(wire), ""))
            elif wire.state == "answered":
                options.append((3, lambda wire=wire: self._answer(wire), ""))
        if not self.stalled:
            options += [
                (6, lambda wire=wire: self._arrive(wire), f"{wire} is read late: {wire.label}") for wire in self._late
            ]
        for turn in self._turns.values():
            if turn.process not in self.frozen and not turn.future.done():
                options.append((2, lambda turn=turn: turn.future.set_result(None), turn.label))
        begin = self.start_next()
        if begin is not None:
            options.append((self.chances.start, begin, ""))
        due = self.loop.next_timer()
        if due is not None and (not options or (due <= LONGEST_TICK and not self.calm)):
            weight = self.chances.tick if options and not self.stalled else 1.0
            options.append((weight, lambda: self.tick(due), ""))
        if not self.calm and self.budget > 0:
            options += self._disasters()
        else:
            self.frozen.clear()
            self.stalled = False
        return options

    def _disasters(self) -> list[tuple[float, Callable[[], None], str]]:
        options: list[tuple[float, Callable[[], None], str]] = []
        if self.stalled:
            options.append((0.1, lambda: setattr(self, "stalled", False), "the database goes on"))
        else:
            options.append((self.chances.stall, self._stall, ""))
        for process in self.may_crash():
            if process in self.frozen:
                options.append((0.02, lambda process=process: self.frozen.remove(process), f"{process} goes on"))
            else:
                options.append((self.chances.freeze, lambda process=process: self._freeze(process), ""))
            options.append((self.chances.crash, lambda process=process: self._crash(process), ""))
        return [option for option in options if option[0] > 0]

    def _breaks(self, chance: float, what: str = "") -> bool:
        if what and self.chances.lost_at not in ("", what):
            return False
        chance *= MORE_OFTEN if what in MONEY else 1
        if self.calm or self.budget <= 0 or self.random.random() >= chance:
            return False
        self.budget -= 1
        return True

    def _crash(self, process: Any) -> None:
        self.budget -= 1
        self.note(f"{process} is killed")
        self.seen["kill"] += 1
        if process in self.frozen:
            self.frozen.remove(process)
        process.crash()

    def _stall(self) -> None:
        self.budget -= 1
        self.note("the database stands still")
        self.seen["stall"] += 1
        self.stalled = True

    def _outlives(self, wire: Wire) -> bool:
        if self.stalled:
            self._late.append(wire)
        return self.stalled

    def _arrive(self, wire: Wire) -> None:
        self._late.remove(wire)
        self.seen["late"] += 1
        self._name(wire)
        wire.arrive_late()
        self._leaving[wire.pid] = "running"

    def _name(self, wire: Wire) -> None:
        if not wire.named:
            self.observer.name_backend(wire.pid, wire.number % self.shards)
            wire.named = True

    def _freeze(self, process: Any) -> None:
        self.budget -= 1
        self.note(f"{process} stands still")
        self.seen["standstill"] += 1
        self.frozen.append(process)

    def tick(self, seconds: float) -> None:
        """Let time pass, here and in the database."""
        self.loop.advance(seconds)
        self.observer.set_clock(EPOCH + timedelta(seconds=self.loop.time()))
        self._time_out()

    def _time_out(self) -> None:
        """Do what statement_timeout does, which knows only real seconds: cancel what has waited too long."""
        waiting = {wire.pid for wire in self._wires if wire.state == "blocked"} | set(self._leaving)
        self._blocked_since = {pid: self._blocked_since.get(pid, self.loop.time()) for pid in waiting}
        for pid, since in self._blocked_since.items():
            if self.loop.time() - since >= STATEMENT_SECONDS:
                self.observer.cancel(pid)
                self._stale = True

    def _ask(self, wire: Wire) -> None:
        if self._breaks(self.chances.request_lost, wire.label):
            self.note(f"{wire} loses its connection before the request arrives: {wire.label}")
            self.seen["request lost"] += 1
            self._lose(wire)
            return
        self._name(wire)
        self.note(f"{wire} > {wire.label}")
        wire.ask()

    def _answer(self, wire: Wire) -> None:
        if self._breaks(self.chances.answer_lost, wire.label):
            self.note(f"{wire} loses its connection before the answer arrives: {wire.label}")
            self.seen["answer lost"] += 1
            self._lose(wire)
            return
        self.note(f"{wire} < {wire.label}")
        wire.answer()

    def _lose(self, wire: Wire) -> None:
        wire.process.faults += 1
        wire.lose(ConnectionResetError(LOST))

    def _done(self, wire: Wire) -> None:
        """Note an answer or an end. The backend of a lost connection must be seen to go before the next choice."""
        self._stale = True
        if wire.state == "lost" and wire.pid and wire not in self._late:
            self._leaving[wire.pid] = "running"
