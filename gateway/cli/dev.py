"""`tollway dev`: the whole gateway on this machine, with real stores and demo publishers."""

from __future__ import annotations

import click

from gateway.devservices import supervisor


@click.command()
def dev() -> int:
    """Run everything on this machine; Ctrl-C stops it.

    PostgreSQL and Valkey are started from installed wheels, unless TOLLWAY_DATABASE_URL or TOLLWAY_REDIS_URL name
    your own. Data is kept in TOLLWAY_DATA (.tollway); what runs is described in its dev.json.
    """
    return supervisor.run()
