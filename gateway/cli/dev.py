"""`tollway dev`: the whole gateway on this machine, with real stores and demo publishers."""

from __future__ import annotations

import click

from gateway.devservices import supervisor


@click.command()
@click.option("--chain", "with_chain", is_flag=True, help="A local EVM chain too, with USDC (fetched by npm, once).")
def dev(with_chain: bool) -> int:
    """Run everything on this machine; Ctrl-C stops it.

    PostgreSQL and Valkey are started from installed wheels, unless TOLLWAY_DATABASE_URL or TOLLWAY_REDIS_URL name
    your own. With --chain agents without an account pay on a local chain (scripts/pay.py does it); TOLLWAY_CHAIN_RPC
    and TOLLWAY_CHAIN_SIGNER_KEY put the gateway on a chain that already runs. Data is kept in TOLLWAY_DATA
    (.tollway); what runs is described in its dev.json.
    """
    return supervisor.run(with_chain=with_chain)
