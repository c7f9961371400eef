"""`tollway config check` opens what the settings name: a file or node that does not fit is said, and nothing secret is."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from eth_account import Account

from tests.support.certificates import self_signed
from tests.support.chain import Chain
from tests.support.dev import tollway
from tests.support.flaky_node import flaky_node
from tests.support.leaks import SECRET_KEYS
from tests.support.services import Services

KEY = "0x" + "5e" * 32
KEYS_OWNER = Account.from_key(KEY).address


async def checked(services: Services, **variables: str) -> tuple[int, dict[str, str]]:
    """Return the exit status, and what was found of each thing that was opened: `ok …` or `FAIL …`."""
    stores = {"TOLLWAY_DATABASE_URL": services.database_url, "TOLLWAY_REDIS_URL": services.redis_url}
    done = await asyncio.to_thread(
        lambda: tollway("config", "check", **{"TOLLWAY_SECRET_KEYS": SECRET_KEYS, **stores, **variables})
    )
    words = [line.split(None, 1) for line in done.stdout.splitlines() if line.startswith(("ok  ", "FAIL  "))]
    assert words, done.stderr
    return done.returncode, {what.partition(": ")[0]: f"{fit} {what.partition(': ')[2]}" for fit, what in words}


@pytest.mark.parametrize(
    ("days", "fits"),
    [((-1, 60), "ok CN=pay.example, its key fits, expires "), ((-9, -2), "FAIL CN=pay.example is valid from ")],
)
async def test_the_certificate(services: Services, tmp_path: Path, days: tuple[int, int], fits: str) -> None:
    file = str(self_signed(tmp_path / "pay.pem", "pay.example", first_day=days[0], last_day=days[1]))
    status, found = await checked(services, TOLLWAY_SERVER_TLS_CERTIFICATE=file, TOLLWAY_SERVER_TLS_KEY=file)
    assert found["tls"].startswith(fits), found
    assert status == (0 if fits.startswith("ok") else 1)


async def test_a_certificates_key(services: Services, tmp_path: Path) -> None:
    certificate, key = (str(self_signed(tmp_path / name, "pay.example")) for name in ("one.pem", "other.pem"))
    status, found = await checked(services, TOLLWAY_SERVER_TLS_CERTIFICATE=certificate, TOLLWAY_SERVER_TLS_KEY=key)
    assert (status, found["tls"].startswith(f"FAIL TLS with {certificate} and {key}: ")) == (1, True), found


async def test_a_node_its_chain_and_what_the_relayer_has(services: Services, chain: Chain) -> None:
    async with flaky_node(chain.url) as node:
        settings = {
            f"TOLLWAY_CHAIN_{chain.chain_id}_RPC": f"{node.url}/v2/5ec2e7", "TOLLWAY_CHAIN_SIGNER_KEY": KEY,
            "TOLLWAY_CHAIN_TREASURY": "0x" + "ab" * 20,
        }  # fmt: skip
        status, found = await checked(services, **settings)
        assert (status, found["signer key"]) == (0, f"ok {KEYS_OWNER}"), found
        name = f"{chain.network} node 1"
        assert f"chain {chain.chain_id}, block " in found[name]
        assert "relayer has 0 wei for gas, treasury has 0 atomic USDC" in found[name]
        node.chain_id = "0x1"
        status, found = await checked(services, **settings)
        assert (status, found[name]) == (1, f"FAIL 127.0.0.1 serves chain 1, not {chain.chain_id}"), found
        node.mode = "down"
        status, found = await checked(services, **settings)
        assert (status, found[name].startswith("FAIL ")) == (1, True)
        assert "5ec2e7" not in str(found)
