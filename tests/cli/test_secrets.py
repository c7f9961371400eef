"""`tollway secrets`: rotating the keys of publishers' credentials while a gateway serves, and being killed halfway."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from gateway.database.pool import Connection
from gateway.ids import uuid7
from gateway.upstreams.credentials import CredentialBox, generate_key, key_id_of
from tests.support.dev import ROOT, environment, tollway
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.upstream import RecordingUpstream
from tests.support.world import Agent, Shop, World

OLD, NEW = f"old:{generate_key()}", f"new:{generate_key()}"
TOKEN = "the-upstreams-own-token"


@pytest.fixture(autouse=True)
async def none_left(connection: Connection) -> None:
    """Each test begins without sealed credentials and without other gateways' traces."""
    await connection.execute("UPDATE catalog.publisher SET credentials = NULL")
    await connection.execute("UPDATE ledger.worker SET stopped_at = now()")


async def secrets(database_url: str, keys: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {"TOLLWAY_DATABASE_URL": database_url, "TOLLWAY_SECRET_KEYS": keys}
    return await asyncio.to_thread(tollway, "secrets", *arguments, **env)


async def sealed_shop(world: World, keys: str) -> Shop:
    """Make a publisher whose upstream wants a token, sealed under the first of `keys`."""
    shop = await world.publisher(0)
    sealed = CredentialBox.from_setting(keys).seal(orjson.dumps({"api_headers": {"X-Token": TOKEN}}), shop.id.bytes)
    await world.connection.execute("UPDATE catalog.publisher SET credentials = $2 WHERE id = $1", shop.id, sealed)
    return shop


async def under(connection: Connection) -> list[str]:
    rows = await connection.fetch("SELECT credentials FROM catalog.publisher WHERE credentials IS NOT NULL ORDER BY id")
    return [key_id_of(row["credentials"]) for row in rows]


async def token_reaches(gateway: RunningGateway, upstream: RecordingUpstream, agent: Agent, shop: Shop) -> bool:
    upstream.forget()
    answer = await gateway.client.get(f"/publishers/{shop.slug}/x", headers=agent.headers)
    return answer.status_code == 200 and upstream.requests[0].all("x-token") == [TOKEN]


async def test_a_new_key_is_one_line_that_the_setting_takes(database_url: str) -> None:
    made = await secrets(database_url, "", "new-key")
    assert re.fullmatch(r"k\d{8}-[a-z0-9]{4}:\S{44}\n", made.stdout), made.stdout
    assert CredentialBox.from_setting(f"{OLD},{made.stdout}").key_ids[0] == "old"
    named = await secrets(database_url, "", "new-key", "--id", "k9")
    assert named.stdout.startswith("k9:")
    assert (await secrets(database_url, "", "new-key", "--id", "a b")).returncode == 1


async def test_killed_halfway_and_run_again_while_a_gateway_serves(
    services: Services, database_url: str, world: World, connection: Connection, upstream: RecordingUpstream
) -> None:
    agent = await world.agent()
    shops = [await sealed_shop(world, OLD) for _ in range(150)]  # more than one batch
    # Both keys, the new one not yet current: what a gateway looks like while keys are rolled out.
    gateway = await start_gateway(services, database_url, SECRET_KEYS=f"{OLD},{NEW}")
    holder = await _hold_row(database_url, await _last(connection))
    doomed = _rotate_in_background(database_url)
    try:
        while "new" not in await under(connection):
            assert doomed.poll() is None
            await asyncio.sleep(0.05)
        doomed.kill()
        await asyncio.to_thread(doomed.wait)
        await holder.close()
        seen = await under(connection)
        assert 0 < seen.count("new") < len(shops), "killed between two batches"
        assert await token_reaches(gateway, upstream, agent, shops[0])
        again = await secrets(database_url, f"{NEW},{OLD}", "rotate")
        left = len(shops) - seen.count("new")
        expected = f"{left} credentials are now under key new; 0 could not be opened\n"
        assert (again.stdout, again.stderr) == (expected, "")
        assert set(await under(connection)) == {"new"}
        for shop in (shops[0], shops[-1]):
            assert await token_reaches(gateway, upstream, agent, shop)
        checked = await secrets(database_url, f"{NEW},{OLD}", "check")
        assert "new: current, 150 credentials\n" in checked.stdout
        assert "old: configured, 0 credentials, seals new ones in 1 running gateway processes\n" in checked.stdout
    finally:
        await gateway.stop()
    entry = await connection.fetchrow("SELECT * FROM audit.entry WHERE action = 'credential.rotate'")
    assert entry is not None
    assert (entry["actor_type"], entry["credential_type"], entry["metadata"]["key_id"]) == (
        "operator", "command_line", "new",
    )  # fmt: skip
    assert entry["metadata"]["credentials"] == left
    third = await secrets(database_url, f"{NEW},{OLD}", "rotate")
    assert third.stdout.startswith("0 credentials")
    assert (
        "old: configured, 0 credentials; it can be removed"
        in (await secrets(database_url, f"{NEW},{OLD}", "check")).stdout
    )
    alone = await start_gateway(services, database_url, SECRET_KEYS=NEW)
    assert await token_reaches(alone, upstream, agent, shops[7])
    await alone.stop()


async def test_refused_while_a_running_gateway_lacks_the_key(
    services: Services, database_url: str, world: World, connection: Connection, upstream: RecordingUpstream
) -> None:
    agent, shop = await world.agent(), await sealed_shop(world, OLD)
    gateway = await start_gateway(services, database_url, SECRET_KEYS=OLD)
    try:
        refused = await secrets(database_url, f"{NEW},{OLD}", "rotate")
        assert refused.returncode == 1
        assert "1 running gateway process(es) do not have key new" in refused.stderr
        assert await under(connection) == ["old"]
        assert await token_reaches(gateway, upstream, agent, shop)
    finally:
        await gateway.stop()
    assert (await secrets(database_url, f"{NEW},{OLD}", "rotate")).returncode == 0


async def test_what_does_not_open_is_named_kept_and_stops_nobody_else(
    services: Services, database_url: str, world: World, connection: Connection, upstream: RecordingUpstream
) -> None:
    lost, good = await sealed_shop(world, f"gone:{generate_key()}"), await sealed_shop(world, OLD)
    done = await secrets(database_url, f"{NEW},{OLD}", "rotate")
    assert done.returncode == 1
    assert "1 credentials are now under key new; 1 could not be opened" in done.stdout
    assert done.stderr == f"{lost.slug}: sealed with key gone, which is not configured\n"
    assert sorted(await under(connection)) == ["gone", "new"]
    checked = await secrets(database_url, NEW, "check")
    assert (checked.returncode, "gone: NOT CONFIGURED, 1 credentials" in checked.stdout) == (1, True)
    # A gateway goes on without the one publisher, whether it is there at the start or comes later.
    agent = await world.agent()
    gateway = await start_gateway(services, database_url, SECRET_KEYS=NEW)
    try:
        assert await token_reaches(gateway, upstream, agent, good)
        assert (await gateway.client.get(f"/publishers/{lost.slug}/x", headers=agent.headers)).status_code == 404
        later = await sealed_shop(world, f"gone:{generate_key()}")
        after = await sealed_shop(world, NEW)
        await asyncio.sleep(0.5)
        assert (await gateway.client.get(f"/publishers/{later.slug}/x", headers=agent.headers)).status_code == 404
        assert await token_reaches(gateway, upstream, agent, after)
    finally:
        await gateway.stop()


async def test_without_keys_or_with_a_wrong_one_it_is_one_line(database_url: str) -> None:
    for keys, words in (("", "TOLLWAY_SECRET_KEYS is empty"), ("k1:!!!", "secret key 1 (k1): not valid base64")):
        for command in ("rotate", "check"):
            refused = await secrets(database_url, keys, command)
            assert (refused.returncode, words in refused.stderr) == (1, True), refused.stderr
            assert "Traceback" not in refused.stderr


def test_every_sealed_column_is_rotated() -> None:
    """Whoever seals something new must teach gateway/jobs/rotate.py to rotate it, and name the caller here.

    Session ids are sealed for callers to bring back, and stored nowhere: under an old key they are lost sessions.
    What is kept of an OAuth consent under way is over within minutes. An operation's answer is kept for its
    Idempotency-Key for TOLLWAY_IDEMPOTENCY_LIFETIME: without its key, a repetition is told so and moves nothing.
    """
    sealing = {
        str(path.relative_to(ROOT))
        for folder in ("gateway", "admin_api")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"(?<!ledger)\.seal\(", path.read_text())  # ledger.seal closes a month
    }
    assert sealing == {
        "admin_api/kit/once.py", "gateway/catalog/publishers.py", "gateway/identity/oauth_providers.py", "gateway/jobs/rotate.py",
        "gateway/proxy/mcp/session_ids.py", "gateway/upstreams/auth/consent.py",
        "gateway/webhooks/endpoints.py",
    }  # fmt: skip


async def _last(connection: Connection) -> str:
    return await connection.fetchval("SELECT max(id::text) FROM catalog.publisher WHERE credentials IS NOT NULL")


async def _hold_row(database_url: str, publisher_id: str) -> Connection:
    """Lock one publisher as a long edit would, so that a rotation stops before it. Ends with the connection."""
    from gateway.database.pool import connect
    from gateway.settings import DatabaseSettings

    holder = await connect(DatabaseSettings(url=database_url))
    await holder.execute("BEGIN")
    await holder.execute("SELECT FROM catalog.publisher WHERE id = $1::text::uuid FOR UPDATE", publisher_id)
    return holder


def _rotate_in_background(database_url: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "gateway.cli.main", "secrets", "rotate"],
        cwd=Path(ROOT),
        env=environment(TOLLWAY_DATABASE_URL=database_url, TOLLWAY_SECRET_KEYS=f"{NEW},{OLD}"),
    )


async def test_clients_secrets_and_callers_tokens_are_rotated_too(
    database_url: str, world: World, connection: Connection
) -> None:
    agent, box = await world.agent(), CredentialBox.from_setting(OLD)
    provider, linked = uuid7(), uuid7()
    await connection.execute(
        "INSERT INTO oauth.provider (id, organization_id, slug, name, authorization_url, token_url, client_id,"
        " client_secret, scopes, pkce_required, token_endpoint_auth_method, created_by)"
        " VALUES ($1, $2, 'acme', 'Acme', 'https://a.example', 'https://a.example', 'x', $3, '{}', true, 'none', $4)",
        provider, agent.organization_id, box.seal(b"client", provider.bytes), agent.id,
    )  # fmt: skip
    context = provider.bytes + agent.id.bytes
    await connection.execute(
        "INSERT INTO oauth.connection (id, provider_id, account_id, tokens, refreshable, scopes)"
        " VALUES ($1, $2, $3, $4, true, '{}')",
        linked, provider, agent.id, box.seal(b"tokens", context),
    )  # fmt: skip
    rotated = await secrets(database_url, f"{NEW},{OLD}", "rotate")
    assert rotated.stdout == "2 credentials are now under key new; 0 could not be opened\n"
    fresh = CredentialBox.from_setting(NEW)
    sealed = await connection.fetchval("SELECT client_secret FROM oauth.provider WHERE id = $1", provider)
    assert fresh.open(sealed, provider.bytes) == b"client"
    tokens = await connection.fetchval("SELECT tokens FROM oauth.connection WHERE id = $1", linked)
    assert fresh.open(tokens, context) == b"tokens"
    checked = await secrets(database_url, OLD, "check")
    assert f"OAuth connection {linked}: " in checked.stderr
    await connection.execute("DELETE FROM oauth.provider WHERE id = $1", provider)
