"""The load generator (load.c), run as a process of its own, and what it says of a run."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks import tools


@dataclass(frozen=True, slots=True)
class Answers:
    """What the callers saw. Latencies in milliseconds are of 2xx answers, from when each was due (open loop).

    `ok` and `answers` are those within the time, `ok_total` also those that came after its end. `shed` are answers of
    503. Nothing is known of `unfinished` calls and of `socket_errors`. `unsent`: due, but no connection was free.
    `late` is how long after its time a request was sent although a connection was free: the generator's own part.
    `queued` is how long good calls waited for that or for a connection, and `sent` their latency from then on.
    """

    seconds: float
    answers: int
    ok: int
    ok_total: int
    started: int
    unfinished: int
    unsent: int
    shed: int
    shed_without_retry_after: int
    bad_status: int
    last_bad: int
    socket_errors: int
    reconnects: int
    bytes: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    first_p50_ms: float
    first_p99_ms: float
    other_p99_ms: float
    late_p50_ms: float
    late_p99_ms: float
    queued_p50_ms: float
    queued_p99_ms: float
    sent_p50_ms: float
    sent_p99_ms: float
    cpu_seconds: float
    by_second: list[int]  # good answers within each whole second

    @property
    def rate(self) -> float:
        """Return good answers per second."""
        return self.ok / self.seconds

    @property
    def clean(self) -> bool:
        """Say whether every request was answered well, or at least one and nothing else went wrong."""
        return self.ok > 0 and not (self.bad_status or self.shed or self.socket_errors or self.unfinished)


def load(port: int, heads: Path, connections: int, seconds: float, *, rate: float = 0.0, body: int = 0) -> Answers:
    """Load a server; `rate` 0 is a closed loop. Raises RuntimeError with what the generator complains of."""
    program = tools.generator()
    command = [program, str(port), heads, str(connections), f"{seconds:.3f}", f"{rate:.3f}", str(body)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the load generator: {done.stderr.strip()[-500:] or done.returncode}")
    return Answers(**json.loads(done.stdout))
