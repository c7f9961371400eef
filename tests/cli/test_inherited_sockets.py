"""A listening socket that was handed over is served on, by every server; anything else is refused with one line."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from gateway.devservices.processes import accepts
from tests.docs.markdown import ROOT, blocks
from tests.support.dev import TRIVIAL_APP, environment
from tests.support.gateway import free_port
from tests.support.leaks import SECRET_KEYS
from tests.support.services import Services
from tests.support.socket_keeper import start_on

SERVE = (sys.executable, "-m", "gateway.cli.main", "serve")
PATIENCE = 90
SERVERS = [(kind, workers) for kind in ("tollway", "hypercorn") for workers in (1, 2)]
UNITS = ("tollway.socket", "tollway.service", "tollway@.service")


def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def answer_at(port: int, alive: subprocess.Popen[bytes], log: Path) -> int:
    """Return the status of a request, and wait for whoever answers it."""
    deadline = time.monotonic() + PATIENCE
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status
        except OSError:
            assert alive.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        finally:
            connection.close()


@contextmanager
def ended(program: subprocess.Popen[bytes]) -> Iterator[None]:
    """Leave nothing behind."""
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        program.wait(PATIENCE)


def refusal(tmp_path: Path, given: int, **changes: str) -> str:
    """Return what a gateway says that is started with an open file and ends at once."""
    log = tmp_path / "log"
    program = start_on(given, environment(**{"TOLLWAY_DEV_APP": TRIVIAL_APP, **changes}), log, *SERVE)
    with ended(program):
        assert program.wait(PATIENCE) == 1
    return log.read_text()


@pytest.mark.parametrize(("kind", "workers"), SERVERS, ids=lambda value: str(value))
def test_every_server_serves_on_the_socket_and_not_on_its_own_port(tmp_path: Path, kind: str, workers: int) -> None:
    log, own = tmp_path / "log", free_port()
    settings = environment(
        TOLLWAY_DEV_APP=TRIVIAL_APP, TOLLWAY_SERVER=kind, TOLLWAY_WORKERS=str(workers), TOLLWAY_PORT=str(own)
    )
    with listening() as listener:
        port: int = listener.getsockname()[1]
        program = start_on(listener.fileno(), settings, log, *SERVE)
        with ended(program):
            assert answer_at(port, program, log) == 200
            assert not accepts(own)
            program.terminate()
            assert program.wait(PATIENCE) == 0
        # It is still there, and what connects now waits for the next one.
        socket.create_connection(("127.0.0.1", port)).close()


@pytest.mark.skipif(not shutil.which("systemd-socket-activate"), reason="needs systemd's own tool")
def test_systemd_hands_the_socket_over(tmp_path: Path) -> None:
    log, port = tmp_path / "log", free_port()
    command = ["systemd-socket-activate", f"--listen=127.0.0.1:{port}"]
    settings = environment(TOLLWAY_DEV_APP=TRIVIAL_APP, TOLLWAY_PORT=str(port), TOLLWAY_WORKERS="2")
    passed_on = [f"--setenv={name}" for name in settings if name.startswith("TOLLWAY_")]
    with log.open("wb") as output:
        program = subprocess.Popen(
            [*command, *passed_on, "--setenv=PYTHONPATH", *SERVE], cwd=ROOT, env=settings, stdout=output,
            stderr=output, start_new_session=True,
        )  # fmt: skip
    with ended(program):
        assert answer_at(port, program, log) == 200
        program.terminate()
        assert program.wait(PATIENCE) == 0


def test_a_file_is_refused(tmp_path: Path) -> None:
    with tempfile.TemporaryFile() as file:
        said = refusal(tmp_path, file.fileno())
    assert said == "tollway: LISTEN_FDS=1: file descriptor 3 is no socket (Socket operation on non-socket)\n"


@pytest.mark.parametrize(
    ("family", "kind"), [(socket.AF_INET, socket.SOCK_DGRAM), (socket.AF_UNIX, socket.SOCK_STREAM)]
)
def test_a_socket_of_another_kind_is_refused(tmp_path: Path, family: int, kind: int) -> None:
    with socket.socket(family, kind) as other:
        said = refusal(tmp_path, other.fileno())
    assert "file descriptor 3 is a socket of another kind: it must be TCP (ListenStream= with a port)" in said
    assert said.count("\n") == 1


def test_a_socket_that_does_not_listen_is_refused(tmp_path: Path) -> None:
    with socket.socket() as silent:
        said = refusal(tmp_path, silent.fileno())
    assert said == "tollway: LISTEN_FDS=1: file descriptor 3 does not listen (Accept=no in the socket's unit)\n"


@pytest.mark.parametrize("count", ["2", "one"])
def test_another_number_of_sockets_is_refused(tmp_path: Path, count: str) -> None:
    command = ["env", f"LISTEN_FDS={count}", *SERVE]
    with listening() as listener:
        log = tmp_path / "log"
        program = start_on(listener.fileno(), environment(TOLLWAY_DEV_APP=TRIVIAL_APP), log, *command)
        with ended(program):
            assert program.wait(PATIENCE) == 1
    assert log.read_text() == f"tollway: LISTEN_FDS={count}: hand over one socket, for the public port\n"


def test_a_socket_for_another_process_is_left_alone(tmp_path: Path) -> None:
    log, own = tmp_path / "log", free_port()
    settings = environment(TOLLWAY_DEV_APP=TRIVIAL_APP, TOLLWAY_PORT=str(own))
    with listening() as listener:
        program = start_on(listener.fileno(), settings, log, "env", "LISTEN_PID=1", *SERVE)
        with ended(program):
            assert answer_at(own, program, log) == 200
    assert "LISTEN_FDS is meant for process 1 and not for this one" in log.read_text()


def test_the_start_says_where_the_socket_came_from(tmp_path: Path, services: Services) -> None:
    """The gateway itself; it ends because its database is not there."""
    with listening() as listener:
        said = refusal(
            tmp_path, listener.fileno(), TOLLWAY_DEV_APP="", TOLLWAY_SECRET_KEYS=SECRET_KEYS,
            TOLLWAY_DATABASE_URL="postgresql://tollway:pw@127.0.0.1:1/tollway", TOLLWAY_REDIS_URL=services.redis_url,
        )  # fmt: skip
        port = listener.getsockname()[1]
    assert f"listens at http://127.0.0.1:{port} (a socket that was handed over) as http://127.0.0.1:8402" in said


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd's own tool")
def test_systemd_takes_the_units_of_the_document(tmp_path: Path) -> None:
    marked = [block for block in blocks(ROOT / "docs/operations.md") if block.words[:1] == ("ini",)]
    found = {block.words[1]: block.text for block in marked if block.words[1:]}
    assert tuple(found) == UNITS
    for name, text in found.items():
        (tmp_path / name).write_text(text.replace("/opt/tollway/bin/tollway", sys.executable))
    for name in ("tollway.socket", "tollway@blue.service"):
        checked = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(tmp_path / name)],
            env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        ours = [line for line in checked.stderr.splitlines() if str(tmp_path) in line or line.startswith("tollway")]
        assert not ours, ours
