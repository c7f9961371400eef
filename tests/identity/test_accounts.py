"""Accounts, keys and recovery against the database, where HTTP does not reach."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import pytest
import pytest_asyncio

from gateway.catalog.assets import asset_id
from gateway.database.pool import Connection, Database
from gateway.errors import Conflict, Forbidden, Unauthenticated
from gateway.identity import accounts, names, organizations, recovery
from gateway.identity.permissions import Permission, require
from gateway.identity.principals import Identities, Principal
from gateway.ids import uuid7
from gateway.settings import DatabaseSettings

USDC = asset_id("eip155:8453", "USDC")
Result = TypeVar("Result")


@pytest_asyncio.fixture(scope="module")
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(DatabaseSettings(url=database_url))
    await opened.start()
    yield opened
    await opened.stop()


async def test_a_taken_invention_is_drawn_again(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(["bright-vega-0001", "bright-vega-0001", "bright-vega-0002"])
    monkeypatch.setattr(names, "invent", lambda: next(drawn))
    first = await accounts.register_agent(database, USDC)
    second = await accounts.register_agent(database, USDC)
    assert (first.account.name, second.account.name) == ("bright-vega-0001", "bright-vega-0002")


async def test_of_many_that_choose_one_name_at_once_one_gets_it(database: Database) -> None:
    tries = [accounts.register_agent(database, USDC, "Highlander") for _ in range(10)]
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    assert len([one for one in outcomes if isinstance(one, accounts.Registered)]) == 1
    assert len([one for one in outcomes if isinstance(one, Conflict)]) == 9


async def test_names_with_the_same_slug_get_organizations_of_their_own(database: Database) -> None:
    made = [await accounts.register_agent(database, USDC, name) for name in ("Ada!", "Ada?", "日本")]
    async with database.acquire() as connection:
        found = [await organizations.default_of(connection, one.account.id) for one in made]
    slugs = [one.slug for one in found if one is not None]
    assert slugs[0] == "ada"
    assert len(set(slugs)) == 3


async def test_a_failed_registration_leaves_nothing(database: Database) -> None:
    unknown_asset = uuid7()
    with pytest.raises(Exception, match="foreign key"):
        await accounts.register_agent(database, unknown_asset, "Half Made")
    async with database.acquire() as connection:
        assert await accounts.FIND_AGENT.first(connection, "Half Made") is None


def holder(made: accounts.Registered) -> Principal:
    """Return the account as if it had logged in."""
    return Principal(made.account.id, made.organization_id, uuid7(), "session", made.account.name, "agent")


async def test_a_disabled_account_cannot_be_recovered(database: Database) -> None:
    made = await accounts.register_agent(database, USDC)
    state = await recovery.set_up(database, holder(made), None, change_email=False)
    assert state.code is not None
    async with database.acquire() as connection:
        await connection.execute("UPDATE identity.account SET status = 'disabled' WHERE id = $1", made.account.id)
    with pytest.raises(Unauthenticated):
        await recovery.recover(database, state.code)


async def test_only_a_hash_of_key_and_code_is_stored(database: Database) -> None:
    made = await accounts.register_agent(database, USDC)
    state = await recovery.set_up(database, holder(made), None, change_email=False)
    assert state.code is not None
    secret = made.key.text.rsplit("_", 1)[1]
    async with database.acquire() as connection:
        rows = await connection.fetch(
            "SELECT k::text AS text FROM identity.api_key k WHERE account_id = $1", made.account.id
        )
        rows += await connection.fetch("SELECT a::text AS text FROM identity.account a WHERE id = $1", made.account.id)
    stored = " ".join(row["text"] for row in rows)
    assert secret not in stored
    assert state.code not in stored
    assert state.code.replace("-", "") not in stored
    assert (await Identities(database).resolve(f"Bearer {made.key.text}")).account_id == made.account.id


async def test_a_deleted_organization_is_nobodys(database: Database) -> None:
    made = await accounts.register_agent(database, USDC)
    principal = await Identities(database).resolve(f"Bearer {made.key.text}")
    async with database.acquire() as connection:
        assert (await require(connection, principal, made.organization_id, Permission.ORG_DELETE)).role == "owner"
        await connection.execute(
            "UPDATE identity.organization SET deleted_at = now() WHERE id = $1", made.organization_id
        )
        with pytest.raises(Forbidden):
            await require(connection, principal, made.organization_id, Permission.ORG_READ)
        assert await organizations.of_account(connection, made.account.id) == []


class Interrupted(Database):
    """A database whose next read is answered only after something else has changed and been told."""

    def __init__(self, settings: DatabaseSettings) -> None:
        super().__init__(settings)
        self.meanwhile: Callable[[], Awaitable[None]] | None = None

    async def read(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        found = await super().read(work)
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()
        return found


async def test_a_key_that_changed_while_it_was_looked_up_is_not_remembered(database_url: str) -> None:
    database = Interrupted(DatabaseSettings(url=database_url))
    await database.start()
    try:
        made = await accounts.register_agent(database, USDC)
        identities = Identities(database)

        async def revoked() -> None:
            async with database.acquire() as connection:
                await connection.execute(
                    "UPDATE identity.api_key SET revoked_at = now() WHERE key_id = $1", made.key.key_id
                )
            identities.told(f"key:{made.key.key_id}")

        database.meanwhile = revoked
        assert (await identities.resolve(f"Bearer {made.key.text}")).account_id == made.account.id
        with pytest.raises(Unauthenticated):
            await identities.resolve(f"Bearer {made.key.text}")
    finally:
        await database.stop()
