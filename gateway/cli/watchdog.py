"""Ends workers whose event loop hangs, so that their server puts others in their place.

A thread of the process that runs the workers (workers.py), which by itself only sees a worker that has died.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from gateway.pulse import BEAT_SECONDS, BEATS, TRACE_SIGNAL, VARIABLE, last_beats, trace_file

log = logging.getLogger(__name__)

TRACE_SECONDS = 1.0  # a worker that runs at all writes its stack within microseconds


@contextlib.contextmanager
def watched(hang_seconds: float) -> Generator[None]:
    """Watch the workers that this process starts meanwhile. With a limit of 0 seconds nothing is watched."""
    os.environ.pop(VARIABLE, None)
    if not hang_seconds:
        yield
        return
    directory = Path(tempfile.mkdtemp(prefix="tollway-pulses-"))
    os.environ[VARIABLE] = str(directory)
    owner, watchdog = os.getpid(), Watchdog(directory, hang_seconds)
    watchdog.start()
    try:
        yield
    finally:
        if os.getpid() == owner:  # not in a forked worker that leaves through here
            watchdog.stop()
            del os.environ[VARIABLE]
            shutil.rmtree(directory, ignore_errors=True)


@dataclass
class _Patient:
    """A worker: its last beat, and for how long we have seen no other."""

    beat: float
    silent: float = 0.0


class Watchdog:
    """The thread."""

    def __init__(self, directory: Path, hang_seconds: float) -> None:
        self._directory, self._hang_seconds = directory, hang_seconds
        self._interval = min(BEAT_SECONDS, hang_seconds / BEATS)
        self._workers: dict[int, _Patient] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        before = time.monotonic()
        while not self._stopped.wait(self._interval):
            now = time.monotonic()
            # Where this thread did not run either, the whole group was paused, and no worker is to blame.
            self._look(min(now - before, 2 * self._interval))
            before = now

    def _look(self, seconds: float) -> None:
        """Count `seconds` of silence for each worker that has not beaten since the last look."""
        beats = last_beats(self._directory)
        self._workers = {worker: state for worker, state in self._workers.items() if worker in beats}
        for worker, beat in beats.items():
            state = self._workers.setdefault(worker, _Patient(beat))
            state.silent = state.silent + seconds if state.beat == beat else 0.0
            state.beat = beat
            if not _is_child(worker):
                self._forget(worker)
            elif state.silent >= self._hang_seconds:
                self._end(worker, state.silent)

    def _end(self, worker: int, silent: float) -> None:
        trace = self._trace(worker)
        log.error(
            "worker %d has not run its event loop for %.1f s and is killed; it was in:\n%s", worker, silent, trace
        )
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
        self._forget(worker)

    def _trace(self, worker: int) -> str:
        """Return the worker's stack, or why there is none."""
        file = trace_file(self._directory, worker)
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            os.kill(worker, TRACE_SIGNAL)
            deadline = time.monotonic() + TRACE_SECONDS
            while time.monotonic() < deadline:
                time.sleep(0.05)
                if text := file.read_text(errors="replace"):
                    time.sleep(0.05)  # the rest of it
                    return file.read_text(errors="replace") or text
        return "it does not answer signals: the process is stopped, or waits in the kernel"

    def _forget(self, worker: int) -> None:
        self._workers.pop(worker, None)
        for file in (self._directory / str(worker), trace_file(self._directory, worker)):
            file.unlink(missing_ok=True)


def _is_child(worker: int) -> bool:
    """Return whether a pid is still that of a child of ours: a pid may be used again after a worker's death."""
    try:
        stat = Path(f"/proc/{worker}/stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        return not Path("/proc/self").exists()  # no Linux: nobody can say
    state, parent = stat.rpartition(")")[2].split()[:2]
    return state != "Z" and int(parent) == os.getpid()
