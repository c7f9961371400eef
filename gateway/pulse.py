"""The pulse of a worker: a file that says when its event loop ran last.

The loop writes it, not a thread, so it stands still when the loop does: in a call that blocks, in C code that holds the
GIL, or in a process that was stopped. Whoever runs workers makes the directory and names it in VARIABLE; it watches the
files (cli/watchdog.py), and each worker reads those of the others for /health/live. A worker that is its own parent has
no directory: then the C library's timer of `faulthandler`, which needs neither loop nor GIL, ends the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import mmap
import os
import signal
import struct
import time
from pathlib import Path

VARIABLE = "TOLLWAY_PULSES"
TRACE_SIGNAL = signal.SIGUSR2  # asks a worker for its stack; no server uses it in workers
BEATS = 8  # in the time after which a worker hangs
BEAT_SECONDS = 1.0
_TIME = struct.Struct("<d")


class Pulse:
    """The pulse of this worker."""

    def __init__(self, hang_seconds: float) -> None:
        self._hang_seconds = hang_seconds
        self._interval = min(BEAT_SECONDS, hang_seconds / BEATS)
        self._next: asyncio.TimerHandle | None = None
        self._slot: mmap.mmap | None = None
        self._files: tuple[Path, ...] = ()

    def start(self) -> None:
        """Begin to beat, in the running loop. With a limit of 0 seconds nothing is watched."""
        if not self._hang_seconds:
            return
        directory = os.environ.get(VARIABLE)
        if directory is not None:
            self._open(Path(directory))
        self._beat(asyncio.get_running_loop())

    def stop(self) -> None:
        """End: from now on nobody misses this loop."""
        if self._next is None:
            return
        self._next.cancel()
        self._next = None
        if self._slot is None:
            faulthandler.cancel_dump_traceback_later()
            return
        self._slot.close()
        self._slot = None
        for file in self._files:
            file.unlink(missing_ok=True)
        # The trace's handler stays: a signal that is on its way must not end the process.

    def _open(self, directory: Path) -> None:
        pulse, trace = directory / str(os.getpid()), trace_file(directory, os.getpid())
        faulthandler.register(TRACE_SIGNAL, file=os.open(trace, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600))
        partial = pulse.with_suffix(".new")
        partial.write_bytes(_TIME.pack(time.monotonic()))
        with partial.open("r+b") as file:
            self._slot = mmap.mmap(file.fileno(), _TIME.size)
        partial.rename(pulse)  # whoever reads it finds it whole
        self._files = (pulse, trace)

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._slot is None:
            faulthandler.dump_traceback_later(self._hang_seconds, exit=True)
        else:
            _TIME.pack_into(self._slot, 0, time.monotonic())
        self._next = loop.call_later(self._interval, self._beat, loop)


def trace_file(directory: Path, worker: int) -> Path:
    """Return where a worker (its pid) writes its stack when it is asked to."""
    return directory / f"{worker}.trace"


def last_beats(directory: Path) -> dict[int, float]:
    """Return when each worker's loop ran last, by its pid, on the clock time.monotonic()."""
    beats: dict[int, float] = {}
    for file in directory.iterdir():
        if file.name.isdigit():
            with contextlib.suppress(FileNotFoundError):
                beats[int(file.name)] = _TIME.unpack(file.read_bytes())[0]
    return beats


def standing_still(hang_seconds: float) -> list[int]:
    """Return the workers of this instance (their pids) whose loops have not run for half of `hang_seconds`.

    Half, so that /health/live says so before the worker is replaced. One that has died is not among them.
    """
    directory = os.environ.get(VARIABLE)
    if not hang_seconds or directory is None:
        return []
    now = time.monotonic()
    late = [worker for worker, beat in last_beats(Path(directory)).items() if now - beat > hang_seconds / 2]
    return [worker for worker in late if _alive(worker)]


def _alive(worker: int) -> bool:
    try:
        os.kill(worker, 0)
    except ProcessLookupError:
        return False
    return True
