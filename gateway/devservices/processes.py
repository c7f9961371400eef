"""Child processes: start them in their own session, know them again after a crash, stop exactly them.

A process is only ever signalled by a pid whose start time matches the one recorded when it was started, so a pid that
the system has given to somebody else is never hit. Also here: the small file and port helpers that services share.
Not here: what is started and in which order (supervisor.py).
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"
LAUNCHER = Path(__file__).with_name("launch.py")
MAX_LOG = 10_000_000


class ServiceError(RuntimeError):
    """A development service could not be started. The message is one line that says why and what to do."""


class Interrupted(Exception):
    """Somebody asked to stop while a service was starting."""


@dataclass(frozen=True)
class Account:
    """The user that a server which refuses root runs as."""

    name: str
    uid: int
    gid: int


@dataclass
class Child:
    """One process that we started. `death_signal` reaches it when we die without stopping it (Linux)."""

    name: str
    process: subprocess.Popen[bytes]
    record: Path
    log: Path | None

    @property
    def pid(self) -> int:
        """Return its process id."""
        return self.process.pid

    def alive(self) -> bool:
        """Say whether it still runs (and reap it if not)."""
        return self.process.poll() is None

    def fate(self) -> str:
        """Return how it ended, in words."""
        code = self.process.poll()
        if code is None:
            return "is running"
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"

    def complaint(self) -> str:
        """Return the most telling line it logged, for the one line the user sees."""
        if self.log is None:
            return "see its messages above"
        if not self.log.exists():
            return "it said nothing"
        tail = self.log.read_text(encoding="utf-8", errors="replace")[-8_000:].splitlines()
        loud = [line for line in tail if "FATAL" in line or "PANIC" in line or "rror" in line]
        return (loud or tail or ["it said nothing"])[-1].strip()

    def stop(self, *steps: tuple[signal.Signals, float]) -> None:
        """Send each signal in turn and wait its seconds for the end; SIGKILL when none helped."""
        for number, seconds in (*steps, (signal.SIGKILL, 10.0)):
            if not self.alive():
                break
            self.process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)
        self.kill()
        self.record.unlink(missing_ok=True)

    def kill(self) -> None:
        """Kill it and the workers in its session, at once. Its group keeps its id while one of them lives."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


def start(
    name: str,
    command: Sequence[str | Path],
    *,
    data: Path,
    env: Mapping[str, str],
    death_signal: signal.Signals = signal.SIGTERM,
    account: Account | None = None,
    log: Path | None = None,
    cwd: Path | None = None,
) -> Child:
    """Start `command` in its own session (Ctrl-C is ours to pass on) and record it under `data`.

    Call it from the main thread: on Linux the death signal is tied to the thread that forked.
    """
    arguments = [int(death_signal), os.getpid(), account.uid if account else -1, account.gid if account else -1]
    output = open_log(log) if log else None
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(LAUNCHER), *map(str, arguments), *map(str, command)],
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    finally:
        if output is not None:
            os.close(output)
    record = data / "run" / f"{name}.pid"
    record.parent.mkdir(exist_ok=True, mode=0o700)
    write_private(record, f"{process.pid} {start_time(process.pid) or ''}\n")
    return Child(name, process, record, log)


def stop_leftover(data: Path, name: str, number: signal.Signals, seconds: float = 10.0) -> bool:
    """Stop what a killed supervisor left running under `data`; True when there was something to stop.

    The caller holds the data directory's lock, so nobody else can be using it.
    """
    record = data / "run" / f"{name}.pid"
    try:
        pid_text, _, began = record.read_text(encoding="utf-8").strip().partition(" ")
        pid = int(pid_text)
    except (OSError, ValueError):
        return False
    found = bool(began) and start_time(pid) == began
    for step, patience in ((number, seconds), (signal.SIGKILL, 5.0)):
        if start_time(pid) != began or not began:
            break
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, step)
        deadline = time.monotonic() + patience
        while start_time(pid) == began and time.monotonic() < deadline:
            time.sleep(0.02)
    record.unlink(missing_ok=True)
    return found


def start_time(pid: int) -> str | None:
    """Return when process `pid` began, in the system's own notation; None when there is none or it is a zombie."""
    if sys.platform == "linux":
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else fields[19]
    listed = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, began = listed.stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else began.strip()


def wait_until(
    ready: Callable[[], bool], child: Child, *, seconds: float, stopping: Callable[[], bool], what: str
) -> None:
    """Poll `ready` until it holds. Raises ServiceError when the child ends or time is up, Interrupted when asked."""
    deadline = time.monotonic() + seconds
    while not ready():
        if stopping():
            raise Interrupted
        if not child.alive():
            raise ServiceError(f"{what} {child.fate()}: {child.complaint()}")
        if time.monotonic() > deadline:
            raise ServiceError(f"{what} was not ready within {seconds:.0f} s: {child.complaint()}")
        time.sleep(0.01)


def never() -> bool:
    """Say no: nobody can interrupt."""
    return False


def quiet(_line: str) -> None:
    """Say nothing."""


def accepts(port: int, host: str = LOOPBACK) -> bool:
    """Say whether somebody accepts connections on the port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((host, port)) == 0


def port_is_free(port: int, host: str = LOOPBACK) -> bool:
    """Say whether we could listen on the port now."""
    try:
        _bind(port, host)
    except OSError:
        return False
    return True


def require_port(port: int, host: str, port_setting: str = "TOLLWAY_PORT", host_setting: str = "TOLLWAY_HOST") -> None:
    """Raise ServiceError saying why we could not listen there; port 0 is any. The settings are those to change."""
    try:
        _bind(port, host)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ServiceError(
                f"port {port} on {host} is taken: stop what listens there, or set {port_setting}"
            ) from None
        raise ServiceError(
            f"cannot listen on {host}, port {port} ({host_setting}, {port_setting}): {error.strerror}"
        ) from None


def _bind(port: int, host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))


def stable_port(record: Path) -> int:
    """Return the port kept in `record` while it is free, else a new free one, which is kept there."""
    try:
        kept = int(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        kept = 0
    if kept and port_is_free(kept):
        return kept
    port = free_port()
    write_private(record, f"{port}\n")
    return port


def free_port() -> int:
    """Return a loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
    return port


def kept_secret(record: Path, make: Callable[[], str] = lambda: secrets.token_hex(24)) -> str:
    """Return the secret kept in `record` (mode 0600); make one the first time."""
    if record.exists():
        return record.read_text(encoding="utf-8").strip()
    value = make()
    write_private(record, value + "\n")
    return value


def write_private(path: Path, text: str) -> None:
    """Write a file that only we can read, whole or not at all."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(handle, "w", encoding="utf-8") as file:
        file.write(text)
    fresh.replace(path)


def open_log(path: Path) -> int:
    """Return an appending descriptor of a private log; one older file is kept so that it cannot grow for ever."""
    if path.exists() and path.stat().st_size > MAX_LOG:
        path.replace(path.with_suffix(".log.1"))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def bare_environment() -> dict[str, str]:
    """Return the environment of a foreign server: none of ours, so that no PG* or LD_* variable leads it astray."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
