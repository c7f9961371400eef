"""Gateways and commands without the second that importing costs each: forked from a process that has imported everything.

What runs in them is `tollway serve`, or another command, with the environment it is given, as from the command line. Who
needs a start from nothing, because something is read when it is imported, says so in `fresh`.
"""

from __future__ import annotations

import atexit
import importlib
import json
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from queue import Queue
from typing import Any

from prometheus_client import values

from gateway.cli import workers

ROOT = Path(__file__).resolve().parents[2]


def fresh(environment: Mapping[str, str]) -> bool:
    """Return whether a gateway must import for itself: fault points are read then, and libraries loaded."""
    return "TOLLWAY_FAULT" in environment or "LD_PRELOAD" in environment or sys.platform != "linux"


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

    def start(
        self,
        environment: Mapping[str, str],
        log: Path,
        arguments: tuple[str, ...] = ("serve",),
        errors: Path | None = None,
    ) -> Forked:
        """Fork a command that prints into a file, or into two."""
        assert self._process.stdin is not None
        with self._lock:
            order = {
                "environment": dict(environment), "log": str(log), "errors": str(errors or log), "arguments": arguments,
            }  # fmt: skip
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
_making = threading.Lock()


def start(environment: dict[str, str], log: Path) -> Forked:
    """Fork a gateway; the first one waits until everything is imported."""
    return _the_nursery().start(environment, log)


def run(
    *arguments: str, env: Mapping[str, str], merged: bool = False, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end. `merged`: what it says on standard error is in its output."""
    if sys.platform != "linux" or "TOLLWAY_FAULT" in env or "LD_PRELOAD" in env:
        command = [sys.executable, "-m", "gateway.cli.main", *arguments]
        errors = subprocess.STDOUT if merged else subprocess.PIPE
        return subprocess.run(
            command, env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True, check=False, timeout=timeout
        )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="tw-command-") as folder:
        said, errors_said = Path(folder) / "said", Path(folder) / "errors"
        program = _the_nursery().start(env, said, arguments, said if merged else errors_said)
        try:
            status = program.wait(timeout)
        finally:
            program.kill()
        complained = errors_said.read_text() if errors_said.exists() else ""
        return subprocess.CompletedProcess(arguments, status, said.read_text(), complained)


def _the_nursery() -> Nursery:
    with _making:
        if not _nursery:
            _nursery.append(Nursery())
    return _nursery[0]


# --- In the process that forks ---


IMPORTED = (
    "admin_api.app", "gateway.app", "gateway.cli.hypercorn_http2", "gateway.cli.hypercorn_protocol", "gateway.cli.serve",
    "gateway.cli.prefork", "gateway.server.worker", "hypercorn.run",
)  # fmt: skip


def main() -> None:
    """Import everything, then fork a command for each line of standard input and say on standard output how each ended."""
    commands = importlib.import_module("gateway.cli.main").COMMANDS
    for name in (*IMPORTED, *(place.partition(":")[0] for place, _ in commands.values())):
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
                    _be_the_program()


class ForkedWorkers:
    """In place of the context in which gateway/cli/workers.py starts processes: they are forked, as the gateway was."""

    def __init__(self, _method: str) -> None:
        self._context = multiprocessing.get_context("fork")

    def Process(self, target: Any, args: tuple[Any, ...]) -> Any:
        return self._context.Process(target=_be_the_worker, args=(target, args))


def _be_the_worker(target: Any, args: tuple[Any, ...]) -> None:
    """Make ready what a process of its own reads when it begins: signals, and whether metrics are shared."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    values.ValueClass = values.get_value_class()
    target(*args)


def _be_the_program() -> None:
    workers.get_context = ForkedWorkers
    program = importlib.import_module("gateway.cli.main").main
    if sys.argv[1] == "serve":
        program()
    try:
        program()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1 if end.code else 0
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # what was imported need not be taken down piece by piece


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
    nothing = os.open(os.devnull, os.O_RDONLY)
    printed, complained = (
        os.open(order[name], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600) for name in ("log", "errors")
    )
    for target, source in enumerate((nothing, printed, complained)):
        os.dup2(source, target)
        os.close(source)
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv = ["tollway", *order["arguments"]]
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
