"""A gateway that cannot start says why and what to do, once, and no password."""

import re

import asyncpg

from gateway.database.migrate import migrate
from tests.support.databases import drop_database, replaced
from tests.support.dev import tollway
from tests.support.leaks import SECRET_KEYS
from tests.support.services import Services


def serve(services: Services, database_url: str) -> str:
    """Run `tollway serve` to its early end and return what it printed."""
    stores = {"TOLLWAY_DATABASE_URL": database_url, "TOLLWAY_REDIS_URL": services.redis_url}
    ended = tollway("serve", TOLLWAY_PORT="0", TOLLWAY_SECRET_KEYS=SECRET_KEYS, **stores)
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


async def test_a_database_newer_than_the_program_is_refused(services: Services) -> None:
    connection = await asyncpg.connect(services.database_url)
    await connection.execute("CREATE DATABASE tw_newer")
    url = replaced(services.database_url, "tw_newer")
    try:
        await migrate(url)
        newer = await asyncpg.connect(url)
        await newer.execute("INSERT INTO public.tollway_migration (name, checksum) VALUES ('9999_later.sql', '')")
        await newer.close()
        printed = serve(services, url)
        checked = tollway("config", "check", TOLLWAY_DATABASE_URL=url, TOLLWAY_REDIS_URL=services.redis_url,
                          TOLLWAY_SECRET_KEYS=SECRET_KEYS)  # fmt: skip
    finally:
        await drop_database(connection, "tw_newer")
        await connection.close()
    assert "cannot start: the database is newer than this program: it has 9999_later.sql" in printed
    assert checked.returncode == 1
    assert "FAIL  database: the database is newer than this program" in checked.stdout


def test_the_start_says_what_is_served_and_which_rails_are_off(services: Services) -> None:
    printed = serve(services, "postgresql://tollway:pw@127.0.0.1:1/tollway")
    assert re.search(r"version \S+, listens at http://127.0.0.1:0 .* 1 worker of tollway", printed)
    assert "rail prepaid balance: on" in printed
    assert "rail card: off, TOLLWAY_STRIPE_SECRET_KEY is empty" in printed
    assert "rail eip155:8453: off, TOLLWAY_CHAIN_8453_RPC and TOLLWAY_CHAIN_SIGNER_KEY are not set" in printed
