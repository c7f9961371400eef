"""Everything that a benchmark needs, started on a temporary directory and ended in reverse order by process id.

Starting happens in the main thread: the processes are told to end when the thread that started them does.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import shutil
import sys
import tempfile
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from benchmarks.plain_http import HOST, free_port, get, until_answers
from benchmarks.processes import Placement
from benchmarks.seeding import FREE, PAID, World, prepare
from gateway.devservices import postgres, processes, valkey
from gateway.devservices.datadir import held
from gateway.upstreams.credentials import generate_key

ROOT = Path(__file__).resolve().parents[1]
OTHER = " (other)"  # marks the gateways of another checkout
NO_LIMIT = "60000000"  # per minute: one call a microsecond


@dataclass(frozen=True)
class Running:
    """One process with the port that it serves."""

    child: processes.Child
    port: int

    @property
    def pid(self) -> int:
        """Return its process id."""
        return self.child.pid


@dataclass(frozen=True)
class Services:
    """The two stores. `home` is where the database keeps its files."""

    database_url: str
    redis_url: str
    postgres_pid: int
    valkey_pid: int
    home: Path


@dataclass(frozen=True)
class Stack:
    """What runs during a benchmark of HTTP calls."""

    directory: Path
    services: Services
    world: World
    upstream: Running
    gateways: dict[str, Running]
    nginx: Running | None
    complete: bool  # with the admin API, as `tollway serve` starts it


@contextlib.contextmanager
def directory() -> Generator[Path]:
    """Make a temporary directory and remove it afterwards."""
    path = Path(tempfile.mkdtemp(prefix="tw-bench-", dir="/tmp"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def services(data: Path) -> Generator[Services]:
    """Run PostgreSQL (fsync and synchronous_commit on) and Valkey with their data under `data`."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(held(data))
        database = postgres.launch(data, durable=True)
        home = database.place.home
        if home != data:  # under root the cluster lives where its account can reach it
            stack.callback(shutil.rmtree, home, ignore_errors=True)
        stack.callback(database.stop)
        cache = valkey.launch(data)
        stack.callback(cache.stop)
        database.wait_ready()
        cache.wait_ready()
        yield Services(database.url, cache.url, database.child.pid, cache.child.pid, home)


@contextlib.contextmanager
def running(
    servers: Sequence[str],
    *,
    agents: int,
    workers: int,
    nginx: bool,
    placement: Placement,
    against: Path | None = None,
) -> Generator[Stack]:
    """Run the stores, an upstream, a seeded database, one gateway per server and maybe nginx.

    `against` is another checkout, of which one gateway per server runs too; it shares the database as we migrate it.
    """
    with contextlib.ExitStack() as stack:
        data = stack.enter_context(directory())
        stores = stack.enter_context(services(data))
        upstream = start_upstream(stack, data)
        world = asyncio.run(prepare(stores.database_url, upstream.port, agents))
        complete = find_spec("admin_api.app") is not None
        environment = gateway_environment(stores, complete=complete, workers=workers)
        with placement.for_proxy():
            gateways = {server: start_gateway(stack, data, server, environment) for server in servers}
            for server in servers if against else ():
                gateways[server + OTHER] = start_gateway(stack, data, server, environment, against)
            proxy = _start_nginx(stack, data, upstream.port, workers) if nginx else None
        for server, gateway in gateways.items():
            until_answers(gateway.child, gateway.port, "/publishers/-/-", 404)
            _must_sell(server, gateway, world)
        yield Stack(data, stores, world, upstream, gateways, proxy, complete)


def _must_sell(server: str, gateway: Running, world: World) -> None:
    """Raise when the gateway does not serve the two publishers, before anything is measured."""
    for slug in (FREE, PAID):
        status, body = get(gateway.port, f"/publishers/{slug}/x", world.agents[0].key)
        if status != 200:
            raise processes.ServiceError(f"the gateway on {server} answered {status} for {slug}: {body[:300]!r}")


def start(
    stack: contextlib.ExitStack,
    data: Path,
    name: str,
    command: Sequence[str | Path],
    port: int,
    env: dict[str, str],
    cwd: Path = ROOT,
) -> Running:
    child = processes.start(name, command, data=data, env=env, log=data / f"{name}.log", cwd=cwd)
    stack.callback(child.stop, (processes.signal.SIGTERM, 15.0))
    return Running(child, port)


def start_upstream(stack: contextlib.ExitStack, data: Path) -> Running:
    port = free_port()
    started = start(
        stack, data, "upstream", [sys.executable, "-m", "benchmarks.upstream", str(port)], port, plain_environment()
    )
    until_answers(started.child, port, "/counts", 200)
    return started


def start_gateway(
    stack: contextlib.ExitStack, data: Path, server: str, environment: dict[str, str], checkout: Path = ROOT
) -> Running:
    port = free_port()
    env = {**environment, "TOLLWAY_SERVER": server, "TOLLWAY_PORT": str(port)}
    name = f"gateway-{server}-{port}"
    return start(stack, data, name, [sys.executable, "-m", "gateway.cli.main", "serve"], port, env, checkout)


def plain_environment() -> dict[str, str]:
    """Return our environment without settings of a gateway that happens to be configured in it."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TOLLWAY_")}


def gateway_environment(stores: Services, *, complete: bool, workers: int) -> dict[str, str]:
    limits = {f"TOLLWAY_LIMITS_{name}": NO_LIMIT for name in ("PER_KEY", "PER_ADDRESS")}
    return {
        **plain_environment(),
        **limits,
        "TOLLWAY_DATABASE_URL": stores.database_url,
        "TOLLWAY_REDIS_URL": stores.redis_url,
        "TOLLWAY_SECRET_KEYS": f"bench:{generate_key().rsplit(':', 1)[-1]}",
        "TOLLWAY_PROXY_ALLOW_ADDRESSES": "127.0.0.0/8",
        "TOLLWAY_WORKERS": str(workers),
        "TOLLWAY_LOG_LEVEL": "warning",
        **({} if complete else {"TOLLWAY_DEV_APP": "benchmarks.asgi:application"}),
    }


NGINX = """
{user}worker_processes {workers};
pid {data}/nginx.pid;
error_log {data}/nginx.log error;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {data}/nginx-body;
    proxy_temp_path {data}/nginx-proxy;
    fastcgi_temp_path {data}/nginx-fastcgi;
    uwsgi_temp_path {data}/nginx-uwsgi;
    scgi_temp_path {data}/nginx-scgi;
    keepalive_requests 1000000000;
    upstream benchmark {{ server {host}:{upstream}; keepalive 512; keepalive_requests 1000000000; }}
    server {{
        listen {host}:{port} backlog=2048;
        location / {{
            proxy_pass http://benchmark;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
}}
"""


def _start_nginx(stack: contextlib.ExitStack, data: Path, upstream: int, workers: int) -> Running:
    port = free_port()
    configuration = data / "nginx.conf"
    user = f"user {getpass.getuser()};\n" if os.geteuid() == 0 else ""
    configuration.write_text(
        NGINX.format(user=user, workers=workers, data=data, host=HOST, upstream=upstream, port=port), encoding="utf-8"
    )
    binary = shutil.which("nginx") or "nginx"
    command = [binary, "-p", data, "-c", configuration, "-g", "daemon off;"]
    started = start(stack, data, "nginx", command, port, plain_environment())
    until_answers(started.child, port, "/bare/x", 200)
    return started
