"""What must hold before a gateway serves, as far as it can be known without opening a connection."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from gateway.networks import load_networks
from gateway.payments.evm import chains
from gateway.payments.evm.keystore import BUYER, SIGNER, load_signer
from gateway.plans import load_plans
from gateway.settings import Settings, SettingsError, contradictions, warnings
from gateway.upstreams.credentials import CredentialError, parse_keys

KEYS = "TOLLWAY_SECRET_KEYS"


def require(settings: Settings, environ: Mapping[str, str] | None = None) -> list[str]:
    """Return warnings, one line each. Raises SettingsError with a line for each value with which nothing may start."""
    env = os.environ if environ is None else environ
    faults = contradictions(settings)
    for check in (
        lambda: _keys(settings),
        lambda: chains.check(env),
        lambda: _plans(settings),
        lambda: _buying(env, settings),
        lambda: _cards(env, settings),
    ):
        try:
            check()
        except SettingsError as error:
            faults += str(error).splitlines()
    if faults:
        raise SettingsError("\n".join(faults))
    return [*warnings(settings), *_worthless_payouts(env, settings), *_readable_keys(env)]


def _keys(settings: Settings) -> None:
    try:
        keys = parse_keys(settings.secrets.keys)
    except CredentialError as error:
        raise SettingsError(f"{KEYS}: {error}") from None
    if not keys:
        raise SettingsError(
            f"{KEYS}: must be set, `id:base64 of 32 bytes` such as k1:$(openssl rand -base64 32);"
            " it encrypts publishers' credentials and signs receipts"
        )
    weak = [name for name, key in keys.items() if len(set(key)) == 1]
    if weak:
        raise SettingsError(f"{KEYS}: key {weak[0]} is one byte 32 times; make one with openssl rand -base64 32")


def _plans(settings: Settings) -> None:
    load_plans(settings.plans.file)


def _buying(env: Mapping[str, str], settings: Settings) -> None:
    if settings.buying.publishers and load_signer(env, BUYER) is None:
        raise SettingsError(
            f"TOLLWAY_BUYING_PUBLISHERS has no effect without {BUYER}_KEY (or {BUYER}_KEYSTORE), the wallet that pays"
        )


def _cards(env: Mapping[str, str], settings: Settings) -> None:
    """Refuse credit for payments that are none where earnings are paid out in real money."""
    if "_test_" not in settings.stripe.secret_key[:8] or load_signer(env) is None:
        return
    live = [network.id for network in load_networks(env).networks if network.live and network.elsewhere]
    if live:
        raise SettingsError(
            f"TOLLWAY_STRIPE_SECRET_KEY is a test key, and payouts go out on {live[0]}, which is live: who pays with a"
            " test card would draw real money; use a live key, or a test network's node"
        )


def _worthless_payouts(env: Mapping[str, str], settings: Settings) -> list[str]:
    if "_live_" not in settings.stripe.secret_key[:8]:
        return []
    with_nodes = [network for network in load_networks(env).networks if network.nodes]
    if not with_nodes or any(network.live for network in with_nodes):
        return []
    return [
        "TOLLWAY_STRIPE_SECRET_KEY is a live key, and only test networks have a node: cards are charged real money, and"
        " publishers could be paid out in worthless tokens only"
    ]


def _readable_keys(env: Mapping[str, str]) -> list[str]:
    names = [f"{who}_{what}" for who in (SIGNER, BUYER) for what in ("KEYSTORE", "PASSWORD_FILE")]
    return [
        f"{name}={env[name]}: other users of this machine can read it; chmod 600"
        for name in names
        if env.get(name) and Path(env[name]).is_file() and Path(env[name]).stat().st_mode & 0o004
    ]
