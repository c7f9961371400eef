"""`tollway serve`: the gateway alone, as in production."""

from __future__ import annotations

import logging
import os

import click

from gateway.cli import servers
from gateway.cli.context import settings_for_cli
from gateway.cli.inherited import address_of, take_listener
from gateway.cli.main import version
from gateway.cli.preflight import require
from gateway.cli.rails import introduce
from gateway.telemetry.logging import setup as setup_logging

log = logging.getLogger(__name__)


@click.command()
def serve() -> int:
    """Run the gateway on TOLLWAY_SERVER (tollway, or hypercorn for HTTP/2) with TOLLWAY_WORKERS processes.

    Says first what it serves: its version, address and rails. On SIGTERM it serves on for TOLLWAY_SERVER_FAREWELL
    seconds, ending connections, and lets calls in flight finish within TOLLWAY_SERVER_DRAIN seconds.

    Listens on the socket that systemd or another process hands over (LISTEN_FDS), else opens one.
    """
    settings = settings_for_cli()
    # TOLLWAY_DEV_APP: another application, for tests of the servers themselves.
    other = os.environ.get("TOLLWAY_DEV_APP")
    if not other:
        # One line for each fault here, instead of a trace from every worker.
        notes = require(settings)
        setup_logging(settings.logging)
        for note in notes:
            log.warning("%s", note)
    listener = take_listener()
    if not other:
        for line in introduce(settings, version(), address_of(listener) if listener else None):
            log.info("%s", line)
    return servers.run(settings, other or servers.APPLICATION, listener)
