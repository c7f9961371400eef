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
from gateway.payments.evm.encoding import parse_configured_address, show_address
from gateway.payments.evm.endpoints import Endpoints
from gateway.payments.evm.fees import RelayPolicy
from gateway.payments.evm.instructions import Contracts
from gateway.payments.evm.keystore import BUYER, SIGNER, Signer, load_signer
from gateway.payments.evm.node import Node
from gateway.payments.evm.purchases import buyer_address
from gateway.settings import SettingsError

# Addresses of the first accounts of every local chain (anvil, hardhat): their keys are printed in many documents.
PUBLIC_KEYS = frozenset({
    "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266", "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
    "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC", "0x90F79bf6EB2c4f870365E785982E1f101E93b906",
    "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65", "0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc",
    "0x976EA74026E726554dB657fA54763abd0C3a0aa9", "0x14dC79964da2C08b23698B3D3cc7Ca32193d9955",
    "0x23618e81E3f5cdF7f54C3d65f7FBc0aBf5B21E8f", "0xa0Ee7A142d267C1f36714E4a8F75612F20a79720",
})  # fmt: skip
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
    buyer = load_signer(env, BUYER)
    buyer_address(env)
    for setting, key in ((SIGNER, signer), (BUYER, buyer)):
        live = next((network.id for network in networks.networks if network.elsewhere and network.live), None)
        if key is not None and live is not None and show_address(key.address) in PUBLIC_KEYS:
            raise SettingsError(f"{setting}_KEY: is a development key that everybody knows, and {live} is a live chain")
    needed = [network for network in networks.networks if network.facilitator and not (network.rpc and signer)]
    if treasury_of(env) is None and needed:
        raise SettingsError(f"{TREASURY}: must be set, because {needed[0].id} is settled by a facilitator")


def treasury_of(env: Mapping[str, str]) -> bytes | None:
    """Return where payments to the platform go: what is configured, else the key's address. Raises SettingsError."""
    try:
        configured = parse_configured_address(env[TREASURY]) if env.get(TREASURY) else None
    except ValueError as error:
        raise SettingsError(f"{TREASURY}={env[TREASURY]!r}: {error}") from None
    signer = None if configured is not None else load_signer(env)
    return configured if signer is None else signer.address
