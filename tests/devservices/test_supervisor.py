"""`tollway dev` from outside: it starts, keeps data, drains, cleans up after a crash, and leaves nothing running."""

from __future__ import annotations

import asyncio
import http.client
import os
import shutil
import signal
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import httpx
import pytest

from gateway.devservices.processes import Account, free_port
from gateway.devservices.reach import can_enter
from tests.support.dev import ROOT, Program, in_sessions, start_program, still_running, tollway

AS_ROOT = os.geteuid() == 0
# Named by the operator, so not started, and never contacted by the trivial application: a start without initdb.
NO_DATABASE = {"TOLLWAY_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}


@contextmanager
def dev(data: Path, **options: str) -> Iterator[Program]:
    """Run `tollway dev` until it is ready, and stop it whatever happens."""
    program = start_program("dev", data, **options)
    try:
        program.line("ready ")
        yield program
    finally:
        pids = list(program.document()["pids"].values()) if (data / "dev.json").exists() else []
        program.end()
        assert still_running(pids) == []
        assert in_sessions(pids) == []


async def _run(url: str, *statements: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        answers = [await connection.fetch(statement) for statement in statements]
    finally:
        await connection.close()
    return answers[-1]


async def test_a_start_says_where_it_listens_and_what_to_try(data: Path) -> None:
    program = start_program("dev", data)
    try:
        assert program.line("ready ") == f"ready http://127.0.0.1:{program.port}"
        tries = [program.line("curl ") for _ in range(3)]
        assert "/publishers" in tries[0]
        assert "Authorization: Bearer" in tries[1]
        assert "/wallet/balance" in tries[2]
        document = program.document()
        assert stat.S_IMODE((data / "dev.json").stat().st_mode) == 0o600
        assert document["url"] == f"http://127.0.0.1:{program.port}"
        assert set(document["pids"]) == {"tollway", "postgres", "valkey", "upstreams", "gateway"}
        assert document["secret_keys"].startswith("dev1:")
        assert program.get("/")[0] == 200
    finally:
        assert program.end() == 0
    assert still_running(list(document["pids"].values())) == []
    assert in_sessions(list(document["pids"].values())) == []


async def test_a_second_start_keeps_data_ports_and_secrets(data: Path) -> None:
    with dev(data) as first:
        before = first.document()
        await _run(before["database_url"], "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (7)")
    with dev(data) as second:
        after = second.document()
        assert [row["n"] for row in await _run(after["database_url"], "SELECT n FROM kept")] == [7]
    for member in ("database_url", "redis_url", "upstream_url", "secret_keys"):
        assert after[member] == before[member]


async def test_money_is_durable_and_the_gateway_is_no_superuser(data: Path) -> None:
    with dev(data) as program:
        url = program.document()["database_url"]
        names = ("fsync", "synchronous_commit", "is_superuser", "listen_addresses", "password_encryption")
        values = [(await _run(url, f"SHOW {name}"))[0][0] for name in names]
    assert values == ["on", "on", "off", "127.0.0.1", "scram-sha-256"]


def test_a_call_in_flight_is_answered_before_everything_stops(data: Path) -> None:
    with dev(data, **NO_DATABASE) as program:
        answer = program.call("/slow")
        assert program.end() == 0
    assert answer.result() == (200, b"piece 0\ndone\n")


def test_a_second_request_to_stop_does_not_wait(data: Path) -> None:
    with dev(data, **NO_DATABASE, TOLLWAY_SERVER_DRAIN="200") as program:
        answer = program.call("/long")
        program.process.send_signal(signal.SIGINT)
        program.line("stopping: ")
        time.sleep(1.2)  # what comes within a second is the same request
        program.end(signal.SIGINT)
    assert isinstance(answer.exception(), (OSError, http.client.HTTPException)), "its connection was cut"


def test_one_signal_that_arrives_twice_is_one_request(data: Path) -> None:
    with dev(data, **NO_DATABASE) as program:
        answer = program.call("/slow")
        program.process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
        assert program.end() == 0
    assert answer.result() == (200, b"piece 0\ndone\n")


def test_a_second_dev_on_the_same_data_names_the_holder(data: Path) -> None:
    with dev(data, **NO_DATABASE) as program:
        refused = tollway("dev", TOLLWAY_DATA=str(data), TOLLWAY_PORT=str(free_port()))
        assert refused.returncode == 1
        assert (
            refused.stderr
            == f"tollway: {data} is in use by process {program.process.pid}: stop it, or set TOLLWAY_DATA\n"
        )


def test_a_taken_port_is_one_clear_line_and_nothing_is_started(data: Path) -> None:
    with dev(data, **NO_DATABASE) as program:
        other = Path(tempfile.mkdtemp(prefix="tw-", dir="/tmp"))
        try:
            refused = tollway("dev", TOLLWAY_DATA=str(other), TOLLWAY_PORT=str(program.port))
            assert refused.returncode == 1
            assert refused.stderr.startswith(f"tollway: port {program.port} on 127.0.0.1 is taken")
            assert len(refused.stderr.splitlines()) == 1
            assert not (other / "postgres").exists()
        finally:
            shutil.rmtree(other)


@pytest.mark.skipif(not AS_ROOT, reason="needs root")
def test_data_of_another_user_is_left_as_it_is(data: Path) -> None:
    """Root would give parts of it to the user that runs PostgreSQL, and its owner could not start any more."""
    (data / "lock").touch()
    os.chown(data / "lock", 65534, 65534)
    refused = tollway("dev", TOLLWAY_DATA=str(data), TOLLWAY_PORT=str(free_port()))
    assert refused.returncode == 1
    assert refused.stderr == (
        f"tollway: TOLLWAY_DATA={data}: belongs to user nobody; run as that user, or choose another directory\n"
    )
    assert [path.name for path in data.iterdir()] == ["lock"]


@pytest.mark.slow
async def test_after_kill_9_the_next_start_cleans_up_and_has_the_data(data: Path) -> None:
    program = start_program("dev", data)
    program.line("ready ")
    document = program.document()
    await _run(document["database_url"], "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (7)")
    program.end(signal.SIGKILL)
    with dev(data) as second:
        after = second.document()
        assert [row["n"] for row in await _run(after["database_url"], "SELECT n FROM kept")] == [7]
        assert still_running(list(document["pids"].values())) == []


@pytest.mark.slow
async def test_a_postgres_killed_with_its_supervisor_recovers_what_was_committed(data: Path) -> None:
    program = start_program("dev", data)
    program.line("ready ")
    document = program.document()
    await _run(document["database_url"], "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (7)")
    os.kill(document["pids"]["postgres"], signal.SIGKILL)
    program.end(signal.SIGKILL)
    with dev(data) as second:
        assert [row["n"] for row in await _run(second.document()["database_url"], "SELECT n FROM kept")] == [7]


@pytest.mark.parametrize("name", ["postgres", "valkey", "upstreams", "gateway"])
def test_a_service_that_dies_stops_everything_with_one_line(data: Path, name: str) -> None:
    program = start_program("dev", data, **({} if name == "postgres" else NO_DATABASE))
    program.line("ready ")
    pids = program.document()["pids"]
    os.kill(pids[name], signal.SIGKILL)
    assert program.line(name).startswith(f"{name} was killed by SIGKILL: stopping")
    assert program.process.wait(30) == 1
    program.end()
    assert still_running(list(pids.values())) == []
    assert in_sessions(list(pids.values())) == []


def test_services_the_operator_names_are_used_and_not_started(data: Path) -> None:
    with dev(data) as program:
        theirs = program.document()
        other = Path(tempfile.mkdtemp(prefix="tw-", dir="/tmp"))
        urls = {"TOLLWAY_DATABASE_URL": theirs["database_url"], "TOLLWAY_REDIS_URL": theirs["redis_url"]}
        try:
            with dev(other, **urls) as second:
                document = second.document()
            assert set(document["pids"]) == {"tollway", "upstreams", "gateway"}
            assert document["database_url"] == theirs["database_url"]
            assert not (other / "postgres").exists()
            assert still_running([theirs["pids"]["postgres"]], seconds=0.1)
        finally:
            shutil.rmtree(other)


@pytest.mark.skipif(not AS_ROOT, reason="only root has directories that the postgres user cannot enter")
async def test_root_in_a_private_directory_keeps_the_database_elsewhere_and_changes_no_parent(data: Path) -> None:
    data.chmod(0o700)
    inner = data / "home"
    with dev(inner) as program:
        url = program.document()["database_url"]
        await _run(url, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (7)")
    elsewhere = Path((inner / "postgres.elsewhere").read_text().strip())
    try:
        assert stat.S_IMODE(data.stat().st_mode) == 0o700
        assert elsewhere.parent == Path("/var/tmp")
        assert stat.S_IMODE((elsewhere / "postgres").stat().st_mode) == 0o700
        with dev(inner) as program:
            assert [row["n"] for row in await _run(program.document()["database_url"], "SELECT n FROM kept")] == [7]
    finally:
        shutil.rmtree(elsewhere)


NOBODY = Account("nobody", 65534, 65534)
CAN_BECOME_NOBODY = (
    AS_ROOT
    and shutil.which("setpriv") is not None
    and can_enter(NOBODY, Path(sys.executable))  # resolved: where the interpreter itself lies
    and can_enter(NOBODY, Path(sys.prefix))
    and can_enter(NOBODY, ROOT)
)


@pytest.mark.skipif(
    not CAN_BECOME_NOBODY, reason="needs root, setpriv, and a checkout and Python that nobody may enter"
)
def test_an_ordinary_user_runs_everything_as_themselves(data: Path) -> None:
    os.chown(data, NOBODY.uid, NOBODY.gid)
    prefix = ("setpriv", f"--reuid={NOBODY.uid}", f"--regid={NOBODY.gid}", "--clear-groups")
    program = start_program("dev", data, prefix, HOME=str(data))
    try:
        program.line("ready ")
        pids = program.document()["pids"]
        owners = {name: Path(f"/proc/{pid}").stat().st_uid for name, pid in pids.items()}
    finally:
        status = program.end()
    assert status == 0
    assert set(owners.values()) == {NOBODY.uid}
    assert still_running(list(pids.values())) == []


async def test_the_demo_sells_a_database_soon_after_the_start(data: Path) -> None:
    with dev(data, TOLLWAY_DEV_APP="") as program:
        demo = program.document()["demo"]
        async with httpx.AsyncClient(base_url=program.document()["url"], timeout=30) as client:
            for _ in range(600):
                answer = await client.post(
                    f"/publishers/{demo['market']}",
                    json={"query": "SELECT ticker FROM companies LIMIT 5"},
                    headers={"Authorization": f"Bearer {demo['agent_api_key']}"},
                )
                if answer.status_code != 404:
                    break
                await asyncio.sleep(0.1)
        assert (answer.status_code, answer.json()["row_count"]) == (200, 5), (data / "market.log").read_text()
