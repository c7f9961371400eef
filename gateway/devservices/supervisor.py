"""`tollway dev`: starts PostgreSQL, Valkey, the demo upstreams and the gateway, watches them, stops them in order.

With --chain also a local chain. Everything it starts is its own child and gone when it returns. A service that the
operator names by TOLLWAY_DATABASE_URL, TOLLWAY_REDIS_URL or TOLLWAY_CHAIN_RPC is used and left alone. One thread, no
event loop: the only concurrency is that of the children. What a demo publisher is and costs is decided in seed.py, the
schema in gateway/database, what stands on the chain in chain_genesis.py.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import os
import secrets
import select
import signal
import sys
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from gateway.devservices import chain, postgres, valkey
from gateway.devservices.chain import Chain
from gateway.devservices.datadir import held, prepare, read_dev_json, write_dev_json
from gateway.devservices.processes import (
    LOOPBACK,
    Child,
    Interrupted,
    ServiceError,
    accepts,
    kept_secret,
    require_port,
    stable_port,
    start,
    stop_leftover,
    wait_until,
)
from gateway.settings import Settings, load

START_SECONDS = 60.0
SHUTDOWN_GRACE = 5.0
SAME_REQUEST_SECONDS = 1.0
MARKET_SLUG = "market-sql"
NO_WAITING = ("holdback", "cooldown")  # of payouts
STOPPING_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StopRequest:
    """Counts requests to stop. The first one drains; a second one, from somebody impatient, does not wait."""

    def __init__(self) -> None:
        self.count = 0
        self.on_second: Callable[[], None] | None = None
        self._last = float("-inf")
        self._reader, self._writer = os.pipe()

    def __call__(self) -> bool:
        """Say whether we have been asked to stop."""
        return self.count > 0

    @contextlib.contextmanager
    def listening(self) -> Generator[StopRequest]:
        """Take over the signals for a while; the end of a child wakes us as well."""
        os.set_blocking(self._writer, False)
        os.set_blocking(self._reader, False)
        previous = {number: signal.signal(number, self._note) for number in STOPPING_SIGNALS}
        previous[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        try:
            yield self
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _note(self, _number: int, _frame: object) -> None:
        now = time.monotonic()
        # A signal to the whole group arrives twice: from its sender, and passed on by make. That is one request.
        if now - self._last > SAME_REQUEST_SECONDS:
            self.count += 1
        self._last = now
        if self.count > 1 and self.on_second is not None:
            self.on_second()

    def sleep(self, seconds: float) -> None:
        """Wait until a signal comes or the time is up."""
        if select.select([self._reader], [], [], seconds)[0]:
            with contextlib.suppress(BlockingIOError):
                os.read(self._reader, 4_096)


@dataclass
class Running:
    """What has been started so far, with how to stop it; stopped in reverse order."""

    children: list[tuple[Child, Callable[[], None]]] = field(default_factory=list[tuple[Child, Callable[[], None]]])
    helper: Child | None = None
    """Does one thing and ends; nothing waits for it."""

    def add(self, child: Child, stop: Callable[[], None]) -> None:
        """Remember a child as soon as it exists, before anything can fail."""
        self.children.append((child, stop))

    def dead(self) -> Child | None:
        """Return a child that ended by itself."""
        return next((child for child, _ in self.children if not child.alive()), None)

    def stop(self) -> None:
        """Stop everything, last started first; one that fails to stop does not keep the others."""
        if self.helper is not None:
            self.helper.stop((signal.SIGTERM, 2.0))
        while self.children:
            _, stop = self.children.pop()
            stop()


@dataclass
class Startup:
    """What every step of the start needs to know."""

    settings: Settings
    env: dict[str, str]
    data: Path
    running: Running
    stopping: StopRequest
    say: Callable[[str], None]
    with_chain: bool = False


def run(
    environ: Mapping[str, str] | None = None, say: Callable[[str], None] | None = None, *, with_chain: bool = False
) -> int:
    """Run the development gateway until it is told to stop, and return the exit status.

    `with_chain` starts a local chain, unless TOLLWAY_CHAIN_RPC names one. Raises ServiceError and SettingsError, whose
    messages are lines for the user.
    """
    env = dict(os.environ if environ is None else environ)
    settings = load(env)
    data = prepare(settings.server.data)
    running = Running()
    with held(data), StopRequest().listening() as stopping:
        begin = Startup(settings, env, data, running, stopping, say or _print, with_chain)
        try:
            return _watch(begin, _start_all(begin))
        except Interrupted:
            return 0
        finally:
            running.stop()


def _print(line: str) -> None:
    with contextlib.suppress(OSError):  # the reader of our output may have gone; the gateway stays
        print(line, flush=True)


def _start_all(begin: Startup) -> Child:
    """Start everything in order, publish it in dev.json and say that it is ready. Returns the gateway."""
    for name in ("gateway", "upstreams"):
        stop_leftover(begin.data, name, signal.SIGTERM)
    if begin.settings.server.tls_certificate:
        raise ServiceError("tollway dev speaks plain HTTP: unset TOLLWAY_SERVER_TLS_CERTIFICATE and _TLS_KEY")
    host, port = begin.settings.server.host, begin.settings.server.port or stable_port(begin.data / "gateway.port")
    require_port(port, host)
    waiting_chain = _start_chain(begin)
    database, redis = _start_stores(begin)
    upstream_url = _start_upstreams(begin)
    env = _gateway_environment(begin, port, database, redis)
    used = waiting_chain()
    if used is not None:
        env |= used.environment()
    demo = migrate_and_seed(load(env), upstream_url, begin.data)
    if used is not None and used.buyer_key:
        book_funds(load(env), f"eip155:{used.chain_id}")
    if begin.stopping():
        raise Interrupted
    gateway = _start_gateway(begin, env, host, port)
    url = f"http://{_reachable(host)}:{port}"
    pids = {"tollway": os.getpid(), **{child.name: child.pid for child, _ in begin.running.children}}
    document = {"url": url, "database_url": database, "redis_url": redis, "upstream_url": upstream_url, "pids": pids}
    chained = {"chain": used.document()} if used is not None else {}
    demo |= _start_market(begin, env)
    write_dev_json(begin.data, {**document, "demo": demo, "secret_keys": env["TOLLWAY_SECRET_KEYS"], **chained})
    for line in (f"ready {url}", *what_next(url, demo), *(how_to_pay(begin.data) if used is not None else ())):
        begin.say(line)
    return gateway


def _start_stores(begin: Startup) -> tuple[str, str]:
    """Start both stores at once and return their URLs; those the operator named are not started."""
    configured = begin.settings
    database = configured.database.url if "url" in configured.database.model_fields_set else ""
    redis = configured.redis.url if "url" in configured.redis.model_fields_set else ""
    waits: list[Callable[[], None]] = []
    if not database:
        if not (begin.data / "postgres.port").exists():
            begin.say(f"creating the database (data in {begin.data})")
        server = postgres.launch(begin.data, say=begin.say)
        begin.running.add(server.child, server.stop)
        waits.append(lambda: server.wait_ready(seconds=START_SECONDS, stopping=begin.stopping))
        database = server.url
    if not redis:
        cache = valkey.launch(begin.data)
        begin.running.add(cache.child, cache.stop)
        waits.append(lambda: cache.wait_ready(seconds=START_SECONDS, stopping=begin.stopping))
        redis = cache.url
    for wait in waits:
        wait()
    return database, redis


def _start_chain(begin: Startup) -> Callable[[], Chain | None]:
    """Begin to start the local chain, if one is wanted; the returned function waits for it and sets it up."""
    named = chain.existing(begin.env)
    if named is not None or not begin.with_chain:
        return lambda: named
    launched = chain.launch(begin.data, say=begin.say)
    begin.running.add(launched.child, launched.stop)
    return lambda: launched.wait_ready(seconds=START_SECONDS, stopping=begin.stopping)


def _start_upstreams(begin: Startup) -> str:
    port = stable_port(begin.data / "upstreams.port")
    command = [sys.executable, "-m", "gateway.devservices.upstreams", "--host", LOOPBACK, "--port", str(port)]
    child = start("upstreams", command, data=begin.data, env=begin.env, log=begin.data / "upstreams.log")
    begin.running.add(child, lambda: child.stop((signal.SIGTERM, 15.0)))
    what = "the demo upstream server"
    wait_until(lambda: accepts(port), child, seconds=START_SECONDS, stopping=begin.stopping, what=what)
    return f"http://{LOOPBACK}:{port}"


def _start_gateway(begin: Startup, env: dict[str, str], host: str, port: int) -> Child:
    command = [sys.executable, "-m", "gateway.cli.main", "serve"]
    gateway = start("gateway", command, data=begin.data, env=env)
    patience = begin.settings.server.drain + SHUTDOWN_GRACE
    begin.running.add(gateway, lambda: gateway.stop((signal.SIGTERM, patience)))
    what = "the gateway"
    wait_until(lambda: _is_ready(host, port), gateway, seconds=START_SECONDS, stopping=begin.stopping, what=what)
    return gateway


def _start_market(begin: Startup, env: dict[str, str]) -> dict[str, object]:
    """Begin to make the demo's database publisher, in a database of our own only; return what dev.json shows of it."""
    if "url" in begin.settings.database.model_fields_set or os.environ.get("TOLLWAY_DEV_APP"):
        return {}
    command = [sys.executable, "-m", "gateway.devservices.demo_market"]
    begin.running.helper = start("market", command, data=begin.data, env=env, log=begin.data / "market.log")
    return {"market": MARKET_SLUG}


def _gateway_environment(begin: Startup, port: int, database: str, redis: str) -> dict[str, str]:
    """Return the gateway's environment: the caller's, and what only we know."""
    allowed = (*begin.settings.proxy.allow_addresses, "127.0.0.0/8")
    smtp = begin.settings.smtp
    chosen = begin.settings.payouts.model_fields_set
    letters = {} if smtp.host or smtp.folder else {"TOLLWAY_SMTP_FOLDER": str(begin.data / "mail")}
    return {
        **letters,
        **begin.env,
        "TOLLWAY_DATA": str(begin.data),
        "TOLLWAY_PORT": str(port),
        "TOLLWAY_DATABASE_URL": database,
        "TOLLWAY_REDIS_URL": redis,
        "TOLLWAY_SECRET_KEYS": begin.settings.secrets.keys or kept_secret(begin.data / "secret.keys", _new_secret_keys),
        # Whoever tries the gateway out sees money leave at once. What is set is kept.
        **{f"TOLLWAY_PAYOUTS_{name.upper()}": "0" for name in NO_WAITING if name not in chosen},
        **({} if "farewell" in begin.settings.server.model_fields_set else {"TOLLWAY_SERVER_FAREWELL": "0"}),
        # The demo upstream listens on loopback, which the egress guard otherwise refuses.
        "TOLLWAY_PROXY_ALLOW_ADDRESSES": ",".join(dict.fromkeys(allowed)),
    }


def _new_secret_keys() -> str:
    return "dev1:" + base64.b64encode(secrets.token_bytes(32)).decode()


def migrate_and_seed(settings: Settings, upstream_url: str, data: Path) -> dict[str, object]:
    """Bring the schema up to date, put the demo publishers in, and return the demo part of dev.json.

    The seed keeps keys from the last start (each is shown once) while they work.
    """
    before = read_dev_json(data).get("demo", {})
    kept = cast(dict[str, object], before) if isinstance(before, dict) else {}
    if os.environ.get("TOLLWAY_DEV_APP"):
        return kept  # another application than the gateway: it has no schema of ours
    return {**kept, **asyncio.run(_migrate_and_seed(settings, upstream_url, kept))}


def book_funds(settings: Settings, network: str) -> None:
    """Book what the wallet from which the gateway buys has from the beginning of the chain, once."""
    from gateway.devservices.seed import book_buyers_funds

    if os.environ.get("TOLLWAY_DEV_APP"):
        return  # another application than the gateway: it has no books
    asyncio.run(book_buyers_funds(settings, network))


async def _migrate_and_seed(settings: Settings, upstream_url: str, known: dict[str, object]) -> dict[str, object]:
    # Imported here: the database driver is not needed while the stores start.
    from gateway.database.migrate import migrate
    from gateway.devservices.seed import seed

    await migrate(settings.database.url)
    return await seed(settings, upstream_url, known)


def _reachable(host: str) -> str:
    local = {"0.0.0.0": LOOPBACK, "": LOOPBACK, "::": "::1"}.get(host, host)  # noqa: S104 - read, not bound
    return f"[{local}]" if ":" in local else local


def _is_ready(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(_reachable(host).strip("[]"), port, timeout=2.0)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def what_next(url: str, demo: Mapping[str, object]) -> list[str]:
    """Return the next three commands to try."""
    key = demo.get("agent_api_key", "$KEY")
    slugs = cast(list[object], demo.get("publishers") or ["SLUG"])
    call = demo.get("example") or f"/publishers/{slugs[0]}"
    return [
        f"curl -s {url}/publishers",
        f'curl -si -H "Authorization: Bearer {key}" {url}{call}',
        f'curl -s -H "Authorization: Bearer {key}" {url}/wallet/balance',
    ]


def how_to_pay(data: Path) -> list[str]:
    """Return the command that buys a call with the official x402 client; it is part of a checkout only."""
    script = Path(__file__).resolve().parents[2] / "scripts" / "pay.py"
    if not script.is_file():
        return []
    return [f'{sys.executable} {script} {data}   # needs pip install "x402[evm,httpx]==2.25.0"']


def _watch(begin: Startup, gateway: Child) -> int:
    """Wait for a request to stop (0) or the end of a child (1)."""
    while not begin.stopping():
        dead = begin.running.dead()
        if dead is not None:
            hint = f" (its log: {dead.log})" if dead.log else ""
            begin.say(f"{dead.name} {dead.fate()}: stopping{hint}")
            return 1
        begin.stopping.sleep(1.0)
    begin.stopping.on_second = gateway.kill
    drain = begin.settings.server.drain
    begin.say(f"stopping: calls in flight may take up to {drain:.0f} s (ask again to stop at once)")
    return 0
