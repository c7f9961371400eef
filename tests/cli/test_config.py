"""`tollway config`: wrong values are refused by name, what is named is opened, and each value has its source."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from tests.support.dev import tollway
from tests.support.leaks import SECRET_KEYS
from tests.support.services import Services

SHORT_KEY = "k1:" + "QUJD" * 5


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"TOLLWAY_SECRET_KEYS": ""}, "TOLLWAY_SECRET_KEYS: must be set"),
        ({"TOLLWAY_SECRET_KEYS": SHORT_KEY}, "15 bytes, must be 32"),
        ({"TOLLWAY_SECRET_KEYS": "k1:" + "A" * 43 + "="}, "one byte 32 times"),
        ({"TOLLWAY_SECRETS_OPERATOR_TOKEN": "short"}, "at least 24 characters"),
        ({"TOLLWAY_PROXY_CONNECT_TIMEOUT": "20", "TOLLWAY_PROXY_TOTAL_TIMEOUT": "10"}, "TOLLWAY_PROXY_CONNECT_TIMEOUT"),
        ({"TOLLWAY_IDEMPOTENCY_LIFETIME": "60"}, "TOLLWAY_IDEMPOTENCY_LIFETIME"),
        ({"TOLLWAY_X402_WAIT": "60", "TOLLWAY_X402_REPLAY": "30"}, "TOLLWAY_X402_REPLAY"),
        ({"TOLLWAY_MONEY_MINIMUM_DEPOSIT_CENTS": "2000000"}, "TOLLWAY_MONEY_MAXIMUM_DEPOSIT_CENTS"),
        ({"TOLLWAY_MONEY_DEPOSIT_TIERS": "50000=5,10000=2"}, "must ascend"),
        ({"TOLLWAY_BUYING_MOST": "6000000"}, "TOLLWAY_BUYING_EXPOSURE"),
        ({"TOLLWAY_BUYING_PUBLISHERS": "weather"}, "TOLLWAY_CHAIN_BUYER_KEY"),
        ({"TOLLWAY_SERVER_TRUSTED_PROXIES": "0.0.0.0/0"}, "anybody could claim any address"),
        ({"TOLLWAY_PROXY_ALLOW_ADDRESSES": "::/0"}, "TOLLWAY_PROXY_ALLOW_ADDRESSES"),
        ({"TOLLWAY_PUBLIC_URL": "https://"}, "TOLLWAY_PUBLIC_URL"),
        ({"TOLLWAY_PUBLIC_URL": "http://x.example", "TOLLWAY_SERVER_TLS_CERTIFICATE": "c", "TOLLWAY_SERVER_TLS_KEY": "k"},
         "sent past TLS"),
        ({"TOLLWAY_STRIPE_SECRET_KEY": "sk_live_x", "TOLLWAY_STRIPE_WEBHOOK_SECRETS": "whsec_x",
          "TOLLWAY_STRIPE_API_BASE": "https://stand-in.example"}, "TOLLWAY_STRIPE_API_BASE"),
        ({"TOLLWAY_STRIPE_SECRET_KEY": "sk_test_x", "TOLLWAY_STRIPE_WEBHOOK_SECRETS": "whsec_x",
          "TOLLWAY_CHAIN_SIGNER_KEY": "0x" + "12" * 32, "TOLLWAY_CHAIN_8453_RPC": "https://node.example"},
         "TOLLWAY_STRIPE_SECRET_KEY is a test key, and payouts go out on eip155:8453"),
        ({"TOLLWAY_FACILITATOR_ORGANIZATIONS": "org_x"}, "TOLLWAY_FACILITATOR_ORGANIZATIONS"),
        ({"TOLLWAY_PROJECTS_REGIONS": ""}, "TOLLWAY_PROJECTS_REGIONS"),
    ],
)  # fmt: skip
def test_what_would_lose_money_or_open_a_hole_is_refused_by_name(variables: dict[str, str], named: str) -> None:
    for command in (("config", "check", "--offline"), ("serve",)):
        refused = tollway(*command, **{"TOLLWAY_SECRET_KEYS": SECRET_KEYS, **variables})
        assert refused.returncode == 2, refused.stdout + refused.stderr
        assert named in refused.stderr
        assert len(refused.stderr.splitlines()) == 1, refused.stderr
        assert "QUJD" not in refused.stderr


def test_every_unknown_name_is_told_with_the_nearest_one(tmp_path: Path) -> None:
    refused = tollway("config", "check", TOLLWAY_DATABSE_URL="x", TOLLWAY_SMTP_PASWORD="x")
    assert refused.stderr.splitlines() == [
        "tollway: TOLLWAY_DATABSE_URL: no such setting; did you mean TOLLWAY_DATABASE_URL?",
        "tollway: TOLLWAY_SMTP_PASWORD: no such setting; did you mean TOLLWAY_SMTP_PASSWORD?",
    ]
    file = tmp_path / "tollway.toml"
    file.write_text("[server]\nprot = 1\n")
    assert "did you mean [server] port?" in tollway("config", "check", TOLLWAY_CONFIG=str(file)).stderr


def test_an_empty_list_replaces_what_the_file_has(tmp_path: Path) -> None:
    file = tmp_path / "tollway.toml"
    file.write_text('[server]\ntrusted_proxies = ["10.0.0.0/8"]\n[money]\ndeposit_tiers = []\n')
    shown = tollway("config", "show", TOLLWAY_CONFIG=str(file), TOLLWAY_SERVER_TRUSTED_PROXIES="").stdout
    assert "TOLLWAY_SERVER_TRUSTED_PROXIES=''  # TOLLWAY_SERVER_TRUSTED_PROXIES" in shown.splitlines()
    assert f"TOLLWAY_MONEY_DEPOSIT_TIERS=''  # {file} [money] deposit_tiers" in shown.splitlines()


def test_show_masks_secrets_and_names_sources() -> None:
    variables = {
        "TOLLWAY_PORT": "9999",
        "TOLLWAY_DATABASE_URL": "postgresql://tollway:5ec2e7@db/tollway",
        "TOLLWAY_DATABASE_DIRECT_URL": "postgresql://db/tollway?user=tollway&password=5ec2e7",
        "TOLLWAY_REDIS_URL": "redis://:5ec2e7@5ec2e7@cache/0",
        "TOLLWAY_SECRET_KEYS": SECRET_KEYS,
        "TOLLWAY_CHAIN_8453_RPC": "https://node.example/v2/5ec2e7",
        "TOLLWAY_CHAIN_SIGNER_KEY": "5ec2e7" * 10 + "5ec2",
    }
    shown = tollway("config", "show", **variables).stdout
    assert "TOLLWAY_SERVER_PORT='9999'  # TOLLWAY_PORT\n" in shown
    assert "TOLLWAY_SERVER_WORKERS='1'  # default\n" in shown
    assert "TOLLWAY_DATABASE_URL='postgresql://tollway:***@db/tollway'  # TOLLWAY_DATABASE_URL\n" in shown
    assert "TOLLWAY_CHAIN_8453_RPC='node.example'  # environment\n" in shown
    assert "5ec2e7" not in shown
    assert SECRET_KEYS.partition(":")[2] not in shown


def test_a_keystore_that_everybody_can_read_is_a_warning(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("x")
    variables = {"TOLLWAY_SECRET_KEYS": SECRET_KEYS, "TOLLWAY_CHAIN_SIGNER_PASSWORD_FILE": str(password)}
    password.chmod(0o644)
    warned = tollway("config", "check", "--offline", **variables)
    assert warned.stdout.splitlines() == [
        f"warning: TOLLWAY_CHAIN_SIGNER_PASSWORD_FILE={password}: other users of this machine can read it; chmod 600",
        "ok",
    ]
    password.chmod(0o600)
    assert tollway("config", "check", "--offline", **variables).stdout == "ok\n"


def test_real_cards_beside_test_networks_only_are_a_warning_and_named_operators_are_on(services: Services) -> None:
    cards = {"TOLLWAY_STRIPE_SECRET_KEY": "sk_live_x", "TOLLWAY_STRIPE_WEBHOOK_SECRETS": "whsec_x"}
    keys = {"TOLLWAY_SECRET_KEYS": SECRET_KEYS}
    node = "https://node.example"
    warned = tollway("config", "check", "--offline", **keys, **cards, TOLLWAY_CHAIN_84532_RPC=node).stdout
    assert "only test networks have a node" in warned
    fine = tollway("config", "check", "--offline", **keys, **cards, TOLLWAY_CHAIN_8453_RPC=node).stdout
    assert "only test networks" not in fine
    stores = {"TOLLWAY_DATABASE_URL": services.database_url, "TOLLWAY_REDIS_URL": services.redis_url}
    named = {"TOLLWAY_SECRETS_OPERATOR_TOKENS": "alice:alice-token-of-some-length"}
    assert "operator's API: on" in tollway("config", "check", **keys, **stores, **named).stdout
    assert "operator's API: off" in tollway("config", "check", **keys, **stores).stdout


def test_check_opens_the_stores_and_says_what_it_found(services: Services) -> None:
    stores = {"TOLLWAY_DATABASE_URL": services.database_url, "TOLLWAY_REDIS_URL": services.redis_url}
    checked = tollway("config", "check", TOLLWAY_SECRET_KEYS=SECRET_KEYS, **stores)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "ok  database: PostgreSQL 1" in checked.stdout
    assert "ok  valkey: version " in checked.stdout
    assert "ok  secret keys: test is current" in checked.stdout
    assert checked.stdout.endswith("\nok\n")


def test_check_ends_when_what_it_opens_hangs(services: Services) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        checked = tollway(
            "config", "check", TOLLWAY_SECRET_KEYS=SECRET_KEYS, TOLLWAY_REDIS_URL=f"redis://{place}/0",
            TOLLWAY_DATABASE_URL=f"postgresql://tollway:pw@{place}/tollway", TOLLWAY_CHAIN_8453_RPC=f"http://{place}",
        )  # fmt: skip
    assert time.monotonic() - began < 120
    assert checked.returncode == 1
    for name in ("database", "valkey", "eip155:8453 node 1"):
        assert f"FAIL  {name}: " in checked.stdout, checked.stdout + checked.stderr
