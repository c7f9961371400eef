"""The ASGI application that the servers import: the gateway with the admin API, by the settings of the environment."""

from __future__ import annotations

from admin_api.app import build
from gateway.app import Gateway
from gateway.cli.context import settings_for_cli

application = Gateway(settings_for_cli(), build)
