"""The chains that this gateway can settle on: what networks.toml says, with a node and a key.

TOLLWAY_CHAIN_<chain id>_RPC    the network's node, or several (networks.py); without one it is only offered for prices
TOLLWAY_CHAIN_SIGNER_KEY ...    the key that sends transactions (keystore.py)
TOLLWAY_CHAIN_TREASURY          where payments to the platform go; default: the key's own address, which alone lets
                                payments be returned automatically
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.networks import Network, Networks, load_networks
from gateway.payments.evm.encoding import parse_address
from gateway.payments.evm.endpoints import Endpoints
from gateway.payments.evm.fees import RelayPolicy
from gateway.payments.evm.instructions import Contracts
from gateway.payments.evm.keystore import Signer, load_signer
from gateway.payments.evm.node import Node
from gateway.payments.evm.purchases import buyer_address
from gateway.settings import SettingsError

TREASURY = "TOLLWAY_CHAIN_TREASURY"


@dataclass(frozen=True, slots=True)
class Chain:
    """One network that can be settled on. `treasury` and `buyer`, the buying wallet, are 20 bytes."""

    network: Network
    node: Node
    signer: Signer
    contracts: Contracts
    policy: RelayPolicy
    treasury: bytes
    buyer: bytes | None = None


def open_chains(networks: Networks, environ: Mapping[str, str] | None = None) -> dict[str, Chain]:
    """Return the chains by CAIP-2 id: networks with a node, if there is a key. Raises SettingsError.

    A payment counts from its first block on, and is final after the network's `confirmations`: what a fork takes away
    before is sent again, and taken back in the books when that fails.
    """
    env = os.environ if environ is None else environ
    signer = load_signer(env)
    if signer is None:
        return {}
    treasury, buyer = treasury_of(env) or signer.address, buyer_address(env)
    return {
        network.id: Chain(
            network,
            Node(Endpoints(network.id, network.nodes)),
            signer,
            Contracts.of(network),
            RelayPolicy(finality=max(network.confirmations, 1)),
            treasury,
            buyer,
        )
        for network in networks.networks
        if network.rpc and network.id.startswith("eip155:")
    }


def check(environ: Mapping[str, str] | None = None) -> None:
    """Read all of the chains' configuration without opening anything. Raises SettingsError."""
    env = os.environ if environ is None else environ
    networks = load_networks(env)
    signer = load_signer(env)
    buyer_address(env)
    needed = [network for network in networks.networks if network.facilitator and not (network.rpc and signer)]
    if treasury_of(env) is None and needed:
        raise SettingsError(f"{TREASURY}: must be set, because {needed[0].id} is settled by a facilitator")


def treasury_of(env: Mapping[str, str]) -> bytes | None:
    """Return where payments to the platform go: what is configured, else the key's address. Raises SettingsError."""
    try:
        configured = parse_address(env[TREASURY]) if env.get(TREASURY) else None
    except ValueError as error:
        raise SettingsError(f"{TREASURY}={env[TREASURY]!r}: {error}") from None
    signer = None if configured is not None else load_signer(env)
    return configured if signer is None else signer.address
