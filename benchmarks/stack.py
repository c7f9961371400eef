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
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from benchmarks import tools
from benchmarks.cases import OTHER, read_door
from benchmarks.plain_http import HOST, free_port, get, until_answers
from benchmarks.seeding import FREE, PAID, World, prepare
from benchmarks.tools import MissingTool
from gateway.devservices import postgres, processes, valkey
from gateway.devservices.datadir import held
from gateway.upstreams.credentials import generate_key

ROOT = Path(__file__).resolve().parents[1]
NO_LIMIT = "60000000"  # per minute: one call a microsecond
RAISED_LIMITS = {f"TOLLWAY_LIMITS_{name}": NO_LIMIT for name in ("PER_KEY", "PER_ADDRESS")}


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
    """The two stores. `home` is where the database keeps its files, `admin_url` is its superuser's."""

    database_url: str
    admin_url: str
    redis_url: str
    postgres_pid: int
    valkey_pid: int
    home: Path

    def database(self, name: str) -> Services:
        """Return the same with another database of this server."""
        return replace(self, database_url=f"{self.database_url.rpartition('/')[0]}/{name}")


@dataclass(frozen=True)
class Stack:
    """What runs during a benchmark of HTTP calls. `doors` are the proxies by Case.door, as far as they are there."""

    directory: Path
    services: Services
    world: World
    upstream: Running
    doors: dict[str, Running]
    missing: dict[str, str]  # peers that could not be started, with the reason
    complete: bool  # with the admin API, as `tollway serve` starts it

    @property
    def roots(self) -> dict[str, int]:
        """Return the processes beside the proxy whose CPU time is wanted."""
        services = self.services
        return {"postgres": services.postgres_pid, "valkey": services.valkey_pid, "upstream": self.upstream.pid}


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
        yield Services(database.url, database.admin_url, cache.url, database.child.pid, cache.child.pid, home)


@contextlib.contextmanager
def running(doors: Iterable[str], *, agents: int, publishers: int = 1, against: Path | None = None) -> Generator[Stack]:
    """Run the stores, an upstream, a seeded database, and the doors (Case.door) that are wanted.

    `against` is another checkout, of which a gateway runs beside each of ours; it shares the database as we migrate it.
    """
    with contextlib.ExitStack() as stack:
        data = stack.enter_context(directory())
        stores = stack.enter_context(services(data))
        upstream = start_upstream(stack, data)
        world = asyncio.run(prepare(stores.database_url, upstream.port, agents, publishers))
        complete = find_spec("admin_api.app") is not None
        begin = Doors(stack, data, stores, upstream, complete)
        running, missing = {"bare": upstream}, {}
        for door in dict.fromkeys(doors):
            name, raised, workers = read_door(door)
            limits = RAISED_LIMITS if raised else {}
            try:
                if name in PEERS:
                    running[door] = PEERS[name](begin, workers)
                elif name != "bare":
                    running[door] = begin.gateway(name, workers, world, **limits)
                    if against:
                        running[door + OTHER] = begin.gateway(name, workers, world, against, **limits)
            except MissingTool as reason:
                missing[door] = str(reason)
        yield Stack(data, stores, world, upstream, running, missing, complete)


def _must_sell(server: str, gateway: Running, world: World) -> None:
    """Raise when the gateway does not serve the publishers, before anything is measured."""
    for slug in (FREE, PAID):
        status, body = get(gateway.port, f"/publishers/{slug}/x", world.agents[0].key)
        if status != 200:
            raise processes.ServiceError(f"the gateway on {server} answered {status} for {slug}: {body[:300]!r}")


@dataclass(frozen=True)
class Doors:
    """Starts the proxies that are compared."""

    stack: contextlib.ExitStack
    data: Path
    stores: Services
    upstream: Running
    complete: bool

    def gateway(self, server: str, workers: int, world: World, checkout: Path = ROOT, **settings: str) -> Running:
        """Start our gateway; `settings` are more of its environment. Returns when it sells."""
        environment = gateway_environment(self.stores, complete=self.complete, workers=workers) | settings
        gateway = start_gateway(self.stack, self.data, server, environment, checkout)
        until_answers(gateway.child, gateway.port, "/publishers/-/-", 404)
        _must_sell(server, gateway, world)
        return gateway

    def nginx(self, workers: int) -> Running:
        """Start nginx with kept connections."""
        binary = shutil.which("nginx")
        if binary is None:
            raise MissingTool("there is no nginx on PATH (Debian: apt-get install nginx)")
        port = free_port()
        configuration = self.data / f"nginx-{port}.conf"
        user = f"user {getpass.getuser()};\n" if os.geteuid() == 0 else ""
        text = NGINX.format(
            user=user, workers=workers, data=self.data, host=HOST, upstream=self.upstream.port, port=port
        )
        configuration.write_text(text, encoding="utf-8")
        command = [binary, "-p", self.data, "-c", configuration, "-g", "daemon off;"]
        return self._peer("nginx", command, port, "/bare/x")

    def express(self, _workers: int) -> Running:
        """Start Express with http-proxy-middleware."""
        place, port = tools.express(), free_port()
        upstream = {"UPSTREAM": f"http://{HOST}:{self.upstream.port}", "PORT": str(port), "NODE_ENV": "production"}
        return self._peer("express", [shutil.which("node") or "node", "proxy.mjs"], port, "/bare/x", place, **upstream)

    def sketch(self, _workers: int) -> Running:
        """Start the least that a proxy in Python can be."""
        port = free_port()
        command = [sys.executable, "-m", "benchmarks.peers.sketch", str(port), str(self.upstream.port)]
        return self._peer("sketch", command, port, "/bare/x")

    def litellm(self, _workers: int) -> Running:
        """Start LiteLLM's proxy with one pass-through endpoint and no database."""
        port, config = free_port(), tools.LITELLM.with_name("config.yaml")
        # Without the second it would first try to fetch its table of prices.
        environment = {
            "UPSTREAM": f"http://{HOST}:{self.upstream.port}/bare",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
        }
        command = [tools.litellm(), "--config", config, "--host", HOST, "--port", str(port)]
        return self._peer("litellm", command, port, "/health/liveliness", self.data, **environment)

    def _peer(
        self, name: str, command: Sequence[str | Path], port: int, path: str, cwd: Path = ROOT, **environment: str
    ) -> Running:
        started = start(self.stack, self.data, f"{name}-{port}", command, port, plain_environment() | environment, cwd)
        until_answers(started.child, port, path, 200, seconds=120)
        return started


PEERS: dict[str, Callable[[Doors, int], Running]] = {
    "nginx": Doors.nginx,
    "express": Doors.express,
    "sketch": Doors.sketch,
    "litellm": Doors.litellm,
}
PEER_TARGETS = {"litellm": "/pass"}
PEER_KEYS = {"litellm": ["sk-bench"]}


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
    """Return the environment of a gateway as in production: all that is not said here is its default, limits too."""
    return {
        **plain_environment(),
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
pid {data}/nginx-{port}.pid;
error_log {data}/nginx-{port}.log error;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {data}/nginx-body;
    proxy_temp_path {data}/nginx-proxy;
    fastcgi_temp_path {data}/nginx-fastcgi;
    uwsgi_temp_path {data}/nginx-uwsgi;
    scgi_temp_path {data}/nginx-scgi;
    keepalive_requests 1000000000;
    client_max_body_size 0;
    client_body_buffer_size 128k;
    proxy_max_temp_file_size 0;
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
