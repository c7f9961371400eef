"""Secrets of webhooks move to the current key with everything else that is sealed, the one before a rotation too."""

from __future__ import annotations

from datetime import timedelta

from gateway.database.pool import Connection, Database
from gateway.jobs.rotate import key_use, rotate
from gateway.settings import DatabaseSettings
from gateway.upstreams.credentials import CredentialBox, generate_key
from gateway.webhooks import endpoints
from tests.support.world import World

OLD, NEW = (f"{name}:{generate_key().rsplit(':', 1)[-1]}" for name in ("old", "new"))
ALIVE = timedelta(seconds=15)


async def test_both_secrets_are_sealed_again(database_url: str, world: World, connection: Connection) -> None:
    agent, old, both = await world.agent(), CredentialBox.from_setting(OLD), CredentialBox.from_setting(f"{NEW},{OLD}")
    url = "https://a.example"
    made = await endpoints.create(connection, old, agent.organization_id, agent.id, "x", url, ["*"], None)
    assert made is not None
    endpoint, first = made
    second = await endpoints.rotate(connection, old, endpoint.id)
    database = Database(DatabaseSettings(url=database_url))
    await database.start()
    try:
        done = await rotate(database, both, dead_after=ALIVE)
        assert (done.rotated, done.failed) == (2, {})
        assert (await key_use(database, both, dead_after=ALIVE)).sealed == {"new": 2}
    finally:
        await database.stop()
    row = await connection.fetchrow("SELECT secret, previous_secret FROM webhook.endpoint WHERE id = $1", endpoint.id)
    opened = [CredentialBox.from_setting(NEW).open(sealed, endpoint.id.bytes).decode() for sealed in row]
    assert opened == [second, first]
