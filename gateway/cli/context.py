"""Which gateway a command talks to: the configured one, or the development gateway found by TOLLWAY_DATA."""

from __future__ import annotations

import os
from collections.abc import Mapping

from gateway.devservices.datadir import read_dev_json
from gateway.settings import Settings, load

# dev.json's member: the variable it stands for.
FROM_DEV_JSON = {
    "database_url": "TOLLWAY_DATABASE_URL",
    "redis_url": "TOLLWAY_REDIS_URL",
    "secret_keys": "TOLLWAY_SECRET_KEYS",
}


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
