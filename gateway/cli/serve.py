"""`tollway serve`: the gateway alone, as in production."""

from __future__ import annotations

import os

import click

from gateway.cli import servers
from gateway.cli.context import settings_for_cli
from gateway.payments.evm import chains


@click.command()
def serve() -> int:
    """Run the gateway on TOLLWAY_SERVER (granian, uvicorn or hypercorn) with TOLLWAY_WORKERS processes.

    SIGTERM lets calls in flight finish within TOLLWAY_SERVER_DRAIN seconds.
    """
    chains.check()  # one line here instead of a trace from every worker
    # TOLLWAY_DEV_APP: another application, for tests of the servers themselves.
    return servers.run(settings_for_cli(), os.environ.get("TOLLWAY_DEV_APP") or servers.APPLICATION)
