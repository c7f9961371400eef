"""A gateway that cannot start says why and what to do, once, and no password."""

import asyncpg

from tests.support.databases import drop_database, replaced
from tests.support.dev import tollway
from tests.support.services import Services


def serve(services: Services, database_url: str) -> str:
    """Run `tollway serve` to its early end and return what it printed."""
    ended = tollway("serve", TOLLWAY_DATABASE_URL=database_url, TOLLWAY_REDIS_URL=services.redis_url, TOLLWAY_PORT="0")
    assert ended.returncode == 1
    return ended.stdout + ended.stderr


async def test_a_database_without_the_schema_is_told_with_the_command(services: Services) -> None:
    connection = await asyncpg.connect(services.database_url)
    await connection.execute("CREATE DATABASE tw_bare")
    try:
        printed = serve(services, replaced(services.database_url, "tw_bare"))
    finally:
        await drop_database(connection, "tw_bare")
        await connection.close()
    assert "cannot start: the database lacks 0001_identity.sql" in printed
    assert "run `tollway migrate`" in printed
    assert "Traceback" not in printed


def test_a_database_that_is_not_there_is_told_with_its_setting_and_without_its_password(services: Services) -> None:
    printed = serve(services, "postgresql://tollway:do-not-print@127.0.0.1:1/tollway")
    assert "cannot start: no connection to the database at 127.0.0.1:1 (TOLLWAY_DATABASE_URL)" in printed
    assert "do-not-print" not in printed


def test_a_refused_login_is_told(services: Services) -> None:
    user, rest = services.database_url.split("@")
    printed = serve(services, f"{user.rsplit(':', 1)[0]}:wrong-password@{rest}")
    assert "password authentication failed" in printed
    assert "wrong-password" not in printed
