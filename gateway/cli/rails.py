"""What a gateway of these settings offers: which ways to pay are on, and why the others are off."""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from gateway.networks import Network, load_networks
from gateway.payments.evm.chains import treasury_of
from gateway.payments.evm.encoding import show_address
from gateway.payments.evm.keystore import BUYER, SIGNER, Signer, load_signer
from gateway.settings import Settings

NO_OPERATOR = "off, TOLLWAY_SECRETS_OPERATOR_TOKENS and TOLLWAY_SECRETS_OPERATOR_TOKEN are empty"


def introduce(settings: Settings, version: str, inherited: str | None = None) -> list[str]:
    """Return what is said at start: version, address, workers, then a line for each rail. Raises SettingsError.

    `inherited` is the address of a socket that was handed over.
    """
    server = settings.server
    scheme = "https" if server.tls_certificate else "http"
    host = f"[{server.host}]" if ":" in server.host else server.host
    listens = f"{scheme}://{inherited or f'{host}:{server.port}'}"
    return [
        f"version {version}, listens at {listens}{' (a socket that was handed over)' if inherited else ''}"
        f" as {settings.public_url}, {server.workers} worker{'s' * (server.workers > 1)} of {server.kind}",
        *rails(settings),
    ]


def rails(settings: Settings, environ: Mapping[str, str] | None = None) -> list[str]:
    """Return a line for each rail, on or off with the reason. Raises SettingsError."""
    env = os.environ if environ is None else environ
    signer = load_signer(env)
    treasury = treasury_of(env)
    paid = show_address(treasury) if treasury else ""
    return [
        "rail prepaid balance: on",
        f"rail card: {_card(settings)}",
        *(f"rail {network.id}: {_network(network, signer, paid)}" for network in load_networks(env).networks),
        f"rail buying from publishers: {_buying(settings, env)}",
        "operator's API: "
        + ("on" if settings.secrets.operator_token or settings.secrets.operator_tokens else NO_OPERATOR),
    ]


def _card(settings: Settings) -> str:
    if not settings.stripe.secret_key:
        return "off, TOLLWAY_STRIPE_SECRET_KEY is empty"
    return "on, with a test key" if "_test_" in settings.stripe.secret_key[:8] else "on"


def _network(network: Network, signer: Signer | None, treasury: str) -> str:
    if not network.id.startswith("eip155:"):
        return "off, only eip155 networks are paid on"
    if not any(asset.transfer for asset in network.assets):
        return "off, networks.toml has no asset of it that x402 can move"
    if network.rpc and signer:
        return f"on, settled by {show_address(signer.address)}, paid to {treasury}"
    if network.facilitator:
        return f"on, settled by {urlsplit(network.facilitator).hostname}, paid to {treasury}"
    variable = f"TOLLWAY_CHAIN_{network.id.removeprefix('eip155:')}_RPC"
    missing = [*([] if network.rpc else [variable]), *([] if signer else [f"{SIGNER}_KEY"])]
    return f"off, {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set"


def _buying(settings: Settings, env: Mapping[str, str]) -> str:
    if not settings.buying.publishers:
        return "off, TOLLWAY_BUYING_PUBLISHERS is empty"
    buyer = load_signer(env, BUYER)
    return f"on, from {show_address(buyer.address)}" if buyer else f"off, {BUYER}_KEY is not set"
