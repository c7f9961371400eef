"""Gateway processes without the second that importing costs each: forked from one that has imported everything.

What runs in them is `tollway serve` with the environment it is given, as from the command line. Who needs a start from
nothing, because something is read when it is imported, says so in `fresh`.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from queue import Queue
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def fresh(environment: Mapping[str, str]) -> bool:
    """Return whether a gateway must import for itself: fault points and metrics of several workers are read then,
    and libraries loaded."""
    return (
        "TOLLWAY_FAULT" in environment
        or "LD_PRELOAD" in environment
        or environment.get("TOLLWAY_WORKERS", "1") != "1"
        or sys.platform != "linux"
    )


class Forked:
    """A gateway process: what tests use of subprocess.Popen."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = threading.Event()

    def end(self, status: int) -> None:
        """Note how it has ended."""
        self.returncode = os.waitstatus_to_exitcode(status)
        self._ended.set()

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired("tollway serve", timeout or 0)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Nursery:
    """The process that forks, from outside."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.forking"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        self._started = Queue[Forked]()
        self._running: dict[int, Forked] = {}
        self._lock = threading.Lock()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        atexit.register(self._close)

    def start(self, environment: dict[str, str], log: Path) -> Forked:
        """Fork a gateway that prints into a file."""
        assert self._process.stdin is not None
        with self._lock:
            order = {"environment": environment, "log": str(log)}
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
            return self._started.get(timeout=120)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said: dict[str, int] = json.loads(line)
            if "status" in said:
                self._running.pop(said["pid"]).end(said["status"])
            else:
                self._running[said["pid"]] = made = Forked(said["pid"])
                self._started.put(made)

    def _close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._listener.join(30)
        self._process.stdout.close()


_nursery: list[Nursery] = []


def start(environment: dict[str, str], log: Path) -> Forked:
    """Fork a gateway; the first one waits until everything is imported."""
    if not _nursery:
        _nursery.append(Nursery())
    return _nursery[0].start(environment, log)


# --- In the process that forks ---


IMPORTED = (
    "admin_api.app", "gateway.app", "gateway.cli.hypercorn_http2", "gateway.cli.hypercorn_protocol", "gateway.cli.serve",
    "gateway.cli.uvicorn_http", "gateway.server.worker", "granian.server", "hypercorn.run", "uvicorn",
)  # fmt: skip


def main() -> None:
    """Import everything, then fork a gateway for each line of standard input and say on standard output how each ended."""
    for name in IMPORTED:
        importlib.import_module(name)
    awake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    orders = sys.stdin.buffer.raw
    waiting = b""
    while True:
        ready, _, _ = select.select([orders, awake], [], [])
        if awake in ready:
            os.read(awake, 65_536)
            _tell_ended()
        if orders in ready:
            piece = os.read(orders.fileno(), 1 << 20)
            if not piece:
                return
            *lines, waiting = (waiting + piece).split(b"\n")
            for line in lines:
                if _forked(json.loads(line), awake, waker):
                    importlib.import_module("gateway.cli.main").main()


def _forked(order: dict[str, Any], *pipes: int) -> bool:
    """Fork, and return whether this is the child, made ready to be `tollway serve`."""
    pid = os.fork()
    if pid:
        _tell(pid=pid)
        return False
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    for pipe in pipes:
        os.close(pipe)
    log = os.open(order["log"], os.O_WRONLY | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(log)
    os.close(nothing)
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv = ["tollway", "serve"]
    return True


def _tell_ended() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        _tell(pid=pid, status=status)


def _tell(**said: int) -> None:
    os.write(1, json.dumps(said).encode() + b"\n")


if __name__ == "__main__":
    main()
