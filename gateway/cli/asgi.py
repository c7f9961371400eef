"""The ASGI application that the servers import: the gateway with the admin API, by the settings of the environment."""

from __future__ import annotations

from admin_api.app import build, build_public
from gateway.app import Gateway
from gateway.cli.context import settings_for_cli
from gateway.cli.operations_door import operations_door

settings = settings_for_cli()
application = (
    Gateway(settings, build_public, operations_door) if settings.server.operations_port else Gateway(settings, build)
)
