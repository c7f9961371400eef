"""The networks that an external facilitator settles on for us: what networks.toml and the environment say.

A network uses its facilitator when it has no node, or when there is no signing key; with both it settles by itself.
Payments there go to TOLLWAY_CHAIN_TREASURY, or to the signing key's address where there is one.
"""

from __future__ import annotations

import os
from collections.abc import Container, Mapping

from gateway.networks import Network, Networks
from gateway.payments.evm.chains import treasury_of
from gateway.payments.evm.endpoints import Endpoints
from gateway.payments.evm.instructions import Contracts
from gateway.payments.evm.node import Node
from gateway.payments.remote.facilitator import FacilitatorClient, Post
from gateway.payments.remote.relay import Remote
from gateway.payments.x402.offer import PaymentKinds
from gateway.settings import SettingsError


def remote_networks(networks: Networks, own: Container[str]) -> list[Network]:
    """Return the networks that need their facilitator: those that are not in `own`."""
    return [
        network
        for network in networks.networks
        if network.facilitator and network.id not in own and network.id.startswith("eip155:")
    ]


def open_remotes(
    networks: Networks, own: Container[str], kinds: PaymentKinds, post: Post, environ: Mapping[str, str] | None = None
) -> dict[str, Remote]:
    """Return the remote networks by CAIP-2 id. Raises SettingsError where nobody says who is paid there."""
    env = os.environ if environ is None else environ
    needed = remote_networks(networks, own)
    treasury = treasury_of(env) if needed else None
    if needed and treasury is None:
        raise SettingsError(
            f"{needed[0].id} is settled by a facilitator: set TOLLWAY_CHAIN_TREASURY to the address that is paid there"
        )
    return {
        network.id: Remote(
            network, Contracts.of(network), treasury or b"",
            Node(Endpoints(network.id, network.nodes)) if network.rpc else None,
            FacilitatorClient(network.id, network.facilitator or "", network.facilitator_token, kinds, post),
        )
        for network in needed
    }  # fmt: skip
