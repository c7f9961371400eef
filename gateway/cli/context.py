"""Which gateway a command talks to, and how: the configured one, or the development gateway found by TOLLWAY_DATA."""

from __future__ import annotations

import asyncio
import getpass
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from typing import TypeVar, cast

from gateway.audit.origin import Origin, acting
from gateway.database.pool import Connection, Database, connect
from gateway.devservices.datadir import read_dev_json
from gateway.settings import Settings, load

Result = TypeVar("Result")

# dev.json's member: the variable it stands for.
FROM_DEV_JSON = {
    "database_url": "TOLLWAY_DATABASE_URL",
    "redis_url": "TOLLWAY_REDIS_URL",
    "secret_keys": "TOLLWAY_SECRET_KEYS",
}


# The same for its member "chain"; the network's node is named by its chain id.
FROM_ITS_CHAIN = {"buyer": "TOLLWAY_CHAIN_BUYER_ADDRESS", "treasury": "TOLLWAY_CHAIN_TREASURY"}


def settings_for_cli(environ: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of the gateway to work on.

    Where no database is configured and $TOLLWAY_DATA/dev.json exists, its stores and keys are used. A database that is
    configured is never mixed with development keys: what one encrypted the other could not read.
    """
    env = dict(os.environ if environ is None else environ)
    settings = load(env)
    if "url" in settings.database.model_fields_set:
        return settings
    document = read_dev_json(settings.server.data)
    found = {name: str(document[member]) for member, name in FROM_DEV_JSON.items() if document.get(member)}
    return load({**found, **env}) if found else settings


def chain_for_cli(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment, with the local chain of the development gateway in it where that is the gateway.

    Addresses only: dev.json has no key of the gateway's. What is set is kept.
    """
    env = dict(os.environ if environ is None else environ)
    settings = load(env)
    if "url" in settings.database.model_fields_set:
        return env
    chain = read_dev_json(settings.server.data).get("chain")
    if not isinstance(chain, dict):
        return env
    known = cast("dict[str, object]", chain)
    found = {name: str(known[member]) for member, name in FROM_ITS_CHAIN.items() if known.get(member)}
    return {f"TOLLWAY_CHAIN_{known.get('chain_id')}_RPC": str(known.get("rpc_url")), **found, **env}


def operating() -> AbstractContextManager[Origin]:
    """Let the operator act, for the audit log: whoever is logged in at this machine."""
    return acting(Origin("operator", credential_type="command_line", user_agent=f"tollway, {getpass.getuser()}"))


def operator_name() -> str:
    """Return who acts at this machine, as operators are named: TOLLWAY_SECRETS_OPERATOR_TOKENS should agree."""
    return getpass.getuser().lower()


def on_connection(work: Callable[[Connection], Awaitable[Result]]) -> Result:
    """Let the operator do something in one transaction of that gateway's database, and return what comes of it."""

    async def connected() -> Result:
        connection = await connect(settings_for_cli().database.direct)
        try:
            with operating():
                async with connection.transaction():
                    return await work(connection)
        finally:
            await connection.close()

    return asyncio.run(connected())


def on_database(work: Callable[[Database, Settings], Awaitable[Result]]) -> Result:
    """The same for what takes connections and begins transactions itself."""

    async def started() -> Result:
        settings = settings_for_cli()
        database = Database(settings.database)
        await database.start()
        try:
            with operating():
                return await work(database, settings)
        finally:
            await database.stop()

    return asyncio.run(started())
