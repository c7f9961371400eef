"""Each server, alone and with two workers: a call in flight is answered, the exit status is 0, nobody is left."""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from gateway.cli.heedful_loop import HeedfulLoop
from tests.support.dev import Program, in_sessions, start_program, tollway
from tests.support.leaks import SECRET_KEYS
from tests.support.servers import EACH

SERVERS = [pytest.param(*each.values, workers, marks=each.marks) for each in EACH for workers in (1, 2)]
every_server = pytest.mark.parametrize(("kind", "workers"), SERVERS, ids=lambda value: str(value))


@contextmanager
def serve(tmp_path: Path, kind: str, workers: int, **env: str) -> Iterator[Program]:
    """Run `tollway serve`."""
    program = start_program("serve", tmp_path, TOLLWAY_SERVER=kind, TOLLWAY_WORKERS=str(workers), **env)
    try:
        program.wait_listening()
        yield program
    finally:
        with suppress(ProcessLookupError):
            os.killpg(program.process.pid, signal.SIGKILL)  # its workers too
        program.end(signal.SIGKILL)


@every_server
@pytest.mark.parametrize("path", ["/slow", "/stream"])
def test_a_call_in_flight_is_answered_whole_after_sigterm(tmp_path: Path, kind: str, workers: int, path: str) -> None:
    with serve(tmp_path, kind, workers) as program:
        idle = socket.create_connection(("127.0.0.1", program.port))  # must not hold up the end
        call = program.call(path)
        assert program.end() == 0
        status, body = call.result()
        idle.close()
        assert status == 200
        assert body.endswith(b"done\n")
        assert in_sessions([program.process.pid]) == []


@every_server
def test_a_call_longer_than_the_drain_does_not_hold_up_the_end(tmp_path: Path, kind: str, workers: int) -> None:
    """This application does not end calls by itself, as the gateway does: the server's own limit must hold."""
    with serve(tmp_path, kind, workers, TOLLWAY_SERVER_DRAIN="1") as program:
        call = program.call("/long")
        assert program.end() == 0
    cut = call.exception()
    assert call.result()[0] >= 500 if cut is None else isinstance(cut, (OSError, http.client.HTTPException))


@pytest.mark.parametrize("kind", EACH)
def test_another_worker_takes_the_place_of_one_that_was_killed(tmp_path: Path, kind: str) -> None:
    with serve(tmp_path, kind, 2) as program:
        connection = http.client.HTTPConnection("127.0.0.1", program.port, timeout=60)
        connection.request("GET", "/")
        worker = int(connection.getresponse().getheader("x-worker") or 0)
        connection.close()
        before = _children(program)
        time.sleep(3.5)  # whoever is killed while it starts is not started again
        os.kill(worker, signal.SIGKILL)
        while len(now := _children(program)) < len(before) or worker in now:
            assert program.process.poll() is None, "the service ended"
            time.sleep(0.05)
        assert program.get("/")[0] == 200
        assert program.end() == 0


def _children(program: Program) -> set[int]:
    pid = program.process.pid
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


@every_server
def test_headers_are_the_applications(tmp_path: Path, kind: str, workers: int) -> None:
    with serve(tmp_path, kind, workers) as program:
        connection = http.client.HTTPConnection("127.0.0.1", program.port, timeout=60)
        connection.request("GET", "/")
        names = {name.lower() for name, _ in connection.getresponse().getheaders()}
        connection.close()
    assert names == {"content-type", "transfer-encoding", "x-worker"}


@every_server
def test_an_application_that_cannot_start_is_a_failure(tmp_path: Path, kind: str, workers: int) -> None:
    broken = start_program(
        "serve",
        tmp_path,
        TOLLWAY_SERVER=kind,
        TOLLWAY_WORKERS=str(workers),
        TOLLWAY_DEV_APP="tests.support.slow_app:refusing",
    )
    try:
        assert broken.process.wait(90) != 0
        assert in_sessions([broken.process.pid]) == []
    finally:
        broken.end(signal.SIGKILL)


@pytest.mark.parametrize("kind", EACH)
def test_a_taken_port_is_refused_with_one_line(tmp_path: Path, kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        quiet = {"TOLLWAY_SECRET_KEYS": SECRET_KEYS, "TOLLWAY_LOG_LEVEL": "warning"}
        refused = tollway("serve", TOLLWAY_DATA=str(tmp_path), TOLLWAY_PORT=str(port), TOLLWAY_SERVER=kind, **quiet)
    assert refused.returncode == 1
    assert (
        refused.stderr == f"tollway: port {port} on 127.0.0.1 is taken: stop what listens there, or set TOLLWAY_PORT\n"
    )


@pytest.mark.parametrize("kind", EACH)
def test_workers_share_a_fresh_metrics_directory_that_goes_at_the_end(tmp_path: Path, kind: str) -> None:
    with serve(tmp_path, kind, 2, TMPDIR=str(tmp_path)) as program:
        directory = program.get("/metrics-directory")[1].decode().splitlines()[0]
        assert Path(directory).parent == tmp_path
        assert Path(directory).is_dir()
        assert program.end() == 0
        assert not Path(directory).exists()


def test_a_signal_between_two_runs_of_a_workers_loop_is_not_lost() -> None:
    """As when a service is ended that has just begun. uvloop loses it, and the end takes the whole drain."""
    loop = HeedfulLoop()
    before, told = signal.getsignal(signal.SIGTERM), asyncio.Event()
    try:
        loop.add_signal_handler(signal.SIGTERM, told.set)
        loop.run_until_complete(asyncio.sleep(0))
        os.kill(os.getpid(), signal.SIGTERM)
        loop.run_until_complete(asyncio.wait_for(told.wait(), 30))
        told.clear()
        loop.call_soon(os.kill, os.getpid(), signal.SIGTERM)
        loop.run_until_complete(asyncio.wait_for(told.wait(), 30))
    finally:
        signal.signal(signal.SIGTERM, before)
        loop.close()
