"""`tollway config check` opens what the settings name, all at once and each within a bound, and says what it found."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from gateway.cli.servers import check_certificate
from gateway.database.migrate import MigrationError, missing, require_not_newer
from gateway.database.pool import LOST, DatabaseError, connect
from gateway.database.statement import Statement
from gateway.devservices.processes import ServiceError
from gateway.limits.valkey import Valkey, ValkeyRefused, ValkeyUnavailable, parse_nodes
from gateway.networks import Network, load_networks
from gateway.payments.evm.chains import treasury_of
from gateway.payments.evm.encoding import show_address
from gateway.payments.evm.keystore import BUYER, SIGNER, Signer, load_signer
from gateway.payments.evm.node import Node
from gateway.payments.evm.rpc import Rpc, RpcError
from gateway.settings import DatabaseSettings, RedisSettings, Settings
from gateway.telemetry.redact import redact
from gateway.upstreams.credentials import parse_keys

SECONDS = 10.0
OLDEST_POSTGRES = 150_000
OLDEST_VALKEY = 7
SOON_DAYS = 14


class Unfit(Exception):
    """What was opened is not what the gateway needs. The message is safe to print."""


FAILURES = (
    *LOST, DatabaseError, MigrationError, ValkeyUnavailable, ValkeyRefused, RpcError, ServiceError, ValueError,
    Unfit,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Server:
    number: int
    version: str
    standby: bool


SERVER = Statement(
    """
    SELECT current_setting('server_version_num')::int AS number, current_setting('server_version') AS version,
           pg_is_in_recovery() AS standby
    """,
    _Server,
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was opened: what it is, what was found, and whether a gateway can use it."""

    name: str
    text: str
    fit: bool


async def open_all(settings: Settings, env: Mapping[str, str]) -> list[Finding]:
    """Open the stores, files, keys and nodes. Ends within about SECONDS, whatever hangs."""
    signer, treasury = load_signer(env), treasury_of(env)
    jobs = [
        _looked_at("database", _database(settings.database)),
        *([_looked_at("database, past the pooler", _database(settings.database.direct))] if settings.database.pooled
          else []),
        _looked_at("valkey", _valkey(settings.redis)),
        *([_looked_at("tls", _tls(settings))] if settings.server.tls_certificate else []),
        _looked_at("secret keys", _secret_keys(settings)),
        *(_looked_at(f"{who.lower().rpartition('_')[2]} key", _key(env, who)) for who in (SIGNER, BUYER)
          if env.get(f"{who}_KEY") or env.get(f"{who}_KEYSTORE")),
        *(
            _looked_at(f"{network.id} node {number}", _node(network, url, signer, treasury))
            for network in load_networks(env).networks
            if network.id.startswith("eip155:")
            for number, url in enumerate(network.nodes, start=1)
        ),
    ]  # fmt: skip
    return await asyncio.gather(*jobs)


async def _looked_at(name: str, look: Awaitable[str]) -> Finding:
    try:
        return Finding(name, await asyncio.wait_for(look, SECONDS), True)
    except TimeoutError:
        return Finding(name, f"did not answer within {SECONDS:g} seconds", False)
    except FAILURES as error:
        return Finding(name, redact(str(error)) or type(error).__name__, False)


async def _database(settings: DatabaseSettings) -> str:
    connection = await connect(settings)
    try:
        server = await SERVER.one(connection)
        if server.number < OLDEST_POSTGRES:
            raise Unfit(f"PostgreSQL {server.version}: must be 15 or newer")
        if server.standby:
            raise Unfit(f"PostgreSQL {server.version} is a standby, which only reads")
        lacking = await missing(connection)
        await require_not_newer(connection)
    finally:
        connection.terminate()
    schema = f"lacks {len(lacking)} migrations: run `tollway migrate`" if lacking else "current"
    return f"PostgreSQL {server.version}, schema {schema}"


async def _valkey(settings: RedisSettings) -> str:
    nodes: Sequence[Valkey] = (
        [Valkey(settings, address) for address in parse_nodes(settings.url)] if settings.clustered
        else [Valkey(settings)]
    )  # fmt: skip
    try:
        facts = [await _server_facts(node) for node in nodes]
    finally:
        for node in nodes:
            await node.close()
    for version, clustered in facts:
        if int(version.partition(".")[0]) < OLDEST_VALKEY:
            raise Unfit(f"version {version}: must be 7 or newer")
        if clustered != settings.clustered:
            said = "is a node of a cluster: name it redis+cluster://" if clustered else "is not in cluster mode"
            raise Unfit(f"version {version} {said}")
    kind = f"a cluster, {len(facts)} nodes named" if settings.clustered else "one server"
    return f"version {facts[0][0]}, {kind}"


async def _server_facts(node: Valkey) -> tuple[str, bool]:
    await node.connect()
    answer = await node.execute(b"INFO")
    text = answer.decode(errors="replace") if isinstance(answer, bytes) else str(answer)
    pairs = (line.partition(":") for line in text.splitlines())
    facts = {name: value for name, _, value in pairs}
    version = facts.get("valkey_version") or facts.get("redis_version", "")
    if not version:
        raise Unfit("INFO does not say a version")
    return version, facts.get("cluster_enabled") == "1" or facts.get("redis_mode") == "cluster"


async def _tls(settings: Settings) -> str:
    check_certificate(settings)
    text = await asyncio.to_thread(Path(settings.server.tls_certificate).read_bytes)
    certificate = x509.load_pem_x509_certificates(text)[0]
    now, first, last = datetime.now(UTC), certificate.not_valid_before_utc, certificate.not_valid_after_utc
    subject = certificate.subject.rfc4514_string() or "without a subject"
    if not first <= now < last:
        raise Unfit(f"{subject} is valid from {first:%Y-%m-%d} to {last:%Y-%m-%d %H:%M} UTC only")
    soon = ", which is SOON" if (last - now).days < SOON_DAYS else ""
    return f"{subject}, its key fits, expires {last:%Y-%m-%d}{soon}"


async def _secret_keys(settings: Settings) -> str:
    ids = list(parse_keys(settings.secrets.keys))
    return f"{ids[0]} is current{', also ' + ', '.join(ids[1:]) if ids[1:] else ''}"


async def _key(env: Mapping[str, str], prefix: str) -> str:
    signer = await asyncio.to_thread(load_signer, env, prefix)
    if signer is None:
        raise Unfit("is empty")
    return show_address(signer.address)


async def _node(network: Network, url: str, signer: Signer | None, treasury: bytes | None) -> str:
    rpc = Rpc(url, timeout=SECONDS)
    node = Node(rpc)
    try:
        served = await node.chain_id()
        if served != network.chain_id:
            raise Unfit(f"{rpc.host} serves chain {served}, not {network.chain_id}")
        head = await node.head()
        parts = [f"{rpc.host}, chain {served}, block {head.number}"]
        if signer is not None:
            parts.append(f"relayer has {await node.balance(signer.address)} wei for gas")
        for asset in network.assets:
            if treasury is not None and asset.contract and asset.transfer:
                balance = await node.token_balance(bytes.fromhex(asset.contract[2:]), treasury)
                parts.append(f"treasury has {balance} atomic {asset.symbol}")
        return ", ".join(parts)
    finally:
        await rpc.aclose()
