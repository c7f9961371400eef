"""A simulated gateway process: the real parts of one worker on the simulated loop, which can be killed at any step.

Real: pipeline, catalog, identities, ledger, stored answers, heartbeat, reconciler, expiry, database pool. Simulated:
publishers' servers (publishers.py), callers (callers.py) and the limiter, which here lets everything pass.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any

from gateway.app import build_services
from gateway.database.pool import LOST
from gateway.errors import Unavailable
from gateway.identity.principals import Identities
from gateway.jobs.expire import expire_lots, expire_stored_answers
from gateway.jobs.heartbeat import Heartbeat
from gateway.jobs.reconcile import Reconciler
from gateway.limits.policy import Check, Policy, Verdict
from gateway.proxy.parts import Parts
from gateway.proxy.pipeline import Pipeline
from gateway.settings import Settings
from tests.simulator.conductor import Conductor
from tests.simulator.loop import PROCESS

OPEN = Verdict(True, Policy("key", 1_000_000, 60), 1, 0, 0)


class Process:
    """One worker from its start to its end. `died` is done when it has been killed."""

    def __init__(self, name: str, conductor: Conductor, settings: Settings, upstreams: Any) -> None:
        self.name = name
        self.alive = True
        self.started = False
        self.in_doubt = False  # it was killed
        self.faults = 0  # connections that it lost or did not get
        self.worker_ids: list[int] = []
        self._conductor = conductor
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._jobs: list[asyncio.Task[Any]] = []
        self._dead_after = settings.money.dead_after
        self._context = contextvars.copy_context()
        self._context.run(PROCESS.set, self)
        self.died: asyncio.Future[None] = conductor.loop.create_future()
        self.grace = timedelta(days=settings.money.refund_grace_days)
        self.services = services = build_services(settings)
        services.limiter = _OpenLimiter()  # type: ignore[assignment]
        services.upstreams = upstreams
        services.identities = Identities(services.database, clock=conductor.loop.time)
        services.identities.listening = services.catalog.listening = True
        dead_after = timedelta(seconds=settings.money.dead_after)
        self.heartbeat = Heartbeat(services.database, services.ledger, services.box.key_ids, dead_after=dead_after)
        self.reconciler = Reconciler(services.database, self.grace, dead_after, self.heartbeat.may_judge)
        self.pipeline = Pipeline(Parts.build(services))

    def __repr__(self) -> str:
        return self.name

    async def start(self) -> None:
        """Do what gateway.app.Worker.start does: connect, load, begin the jobs."""
        await self.services.database.start()
        await self.beat()
        await self.services.catalog.load()
        self.started = True
        self._every(self._dead_after / 3, self.beat)
        self._every(self._dead_after / 3, self.reconciler.run)
        self._every(30.0, lambda: expire_lots(self.services.database))
        self._every(30.0, lambda: expire_stored_answers(self.services.database))

    def _every(self, seconds: float, work: Callable[[], Awaitable[Any]]) -> None:
        async def repeat() -> None:
            while True:
                try:
                    await work()
                except (*LOST, Unavailable):
                    pass  # the next round will do it
                except Exception as error:  # the runner would log it; here it is a finding
                    self._conductor.found(error)
                await asyncio.sleep(seconds)

        self._jobs.append(self.spawn(repeat()))

    async def beat(self) -> None:
        """Say that it lives."""
        if self.services.ledger.worker_id is None:
            await self.heartbeat.start()
        else:
            await self.heartbeat.beat()
        worker_id = self.services.ledger.worker_id
        if worker_id is not None and worker_id not in self.worker_ids:
            self.worker_ids.append(worker_id)

    async def stop(self) -> None:
        """End as SIGTERM ends it, after its calls."""
        for job in self._jobs:
            job.cancel()
        await self.services.holds.stop()
        await self.services.ledger.stop()
        await self.heartbeat.stop()
        await self.services.database.stop()
        self.alive = False

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run work inside this process."""
        return self._conductor.loop.create_task(work, context=self._context.copy())

    @property
    def taken_for_dead(self) -> bool:
        """Return whether others ended its exchanges while it still ran."""
        return len(self.worker_ids) > 1

    def enter(self, callback: Callable[..., Any], *arguments: Any) -> None:
        """Call what a socket would call in this process."""
        self._context.copy().run(callback, *arguments)

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Note a task of this process."""
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    def crash(self) -> None:
        """Die as by kill -9: nothing of it runs any more, what is on its way to the database arrives or does not."""
        self.alive = False
        self.in_doubt = True
        self._conductor.cut(self)
        for task in list(self._tasks):
            task.cancel()
        if not self.died.done():
            self.died.set_result(None)


class _OpenLimiter:
    """Lets everything pass: limits are no money."""

    async def check(self, *_checks: Check) -> Verdict:
        return OPEN

    def spend(self, checks: Sequence[Check]) -> Verdict:
        del checks
        return OPEN


def task_factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
    """Make a task and tell its process of it. What a dead process would still begin never runs."""
    context = options.get("context")
    process = PROCESS.get() if context is None else context.get(PROCESS)
    if process is not None and not process.alive:
        coro.close()
        return asyncio.Task(_nothing(loop), loop=loop)
    task = asyncio.Task(coro, loop=loop, **options)
    if process is not None:
        process.adopt(task)
    return task


async def _nothing(loop: asyncio.AbstractEventLoop) -> None:
    await loop.create_future()
