"""A wrong chain configuration stops the start with one line that names the setting and shows no secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.networks import load_networks
from gateway.payments.evm.chains import open_chains
from tests.support.dev import tollway
from tests.support.leaks import SECRET_KEYS

KEY = "0x" + "5e" * 32


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"TOLLWAY_CHAIN_SIGNER_KEY": "0x5ec2e7"}, "TOLLWAY_CHAIN_SIGNER_KEY"),
        ({"TOLLWAY_CHAIN_SIGNER_KEYSTORE": "/nowhere"}, "TOLLWAY_CHAIN_SIGNER_KEYSTORE"),
        ({"TOLLWAY_CHAIN_TREASURY": "0x12"}, "TOLLWAY_CHAIN_TREASURY"),
        ({"TOLLWAY_CHAIN_TREASURY": "0x833589fcd6eDb6E08f4c7C32D4f71b54bdA02913"}, "EIP-55"),
        ({"TOLLWAY_CHAIN_BUYER_ADDRESS": "0x833589fcd6eDb6E08f4c7C32D4f71b54bdA02913"}, "EIP-55"),
        ({"TOLLWAY_BUYING_PUBLISHERS": "weather=0x833589fcd6eDb6E08f4c7C32D4f71b54bdA02913"}, "EIP-55"),
        ({"TOLLWAY_CHAIN_TREASURRY": "0x12"}, "did you mean TOLLWAY_CHAIN_TREASURY?"),
        ({"TOLLWAY_CHAIN_SIGNER_KYE": "5ec2e7"}, "did you mean TOLLWAY_CHAIN_SIGNER_KEY?"),
        ({"TOLLWAY_CHAIN_8435_RPC": "http://5ec2e7"}, "TOLLWAY_CHAIN_8453_RPC"),
        ({"TOLLWAY_CHAIN_8453_FACILITATOR": "https://x402.org/facilitator"}, "x402.org settles on test networks only"),
        (
            {
                "TOLLWAY_CHAIN_84532_FACILITATOR": "http://facilitator.example",
                "TOLLWAY_CHAIN_84532_FACILITATOR_TOKEN": "5ec2e7",
            },
            "must be https://",
        ),
        (
            {
                "TOLLWAY_CHAIN_8453_RPC": "http://node.example",
                "TOLLWAY_CHAIN_SIGNER_KEY": "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
            },
            "development key that everybody knows",
        ),
        ({"TOLLWAY_CHAIN_84532_RPC": "ftp://user:5ec2e7@host"}, "rpc"),
        ({"TOLLWAY_CHAIN_NETWORKS": "/nowhere.toml"}, "/nowhere.toml"),
    ],
)
def test_it_is_named_in_one_line(variables: dict[str, str], named: str, tmp_path: Path) -> None:
    done = tollway("config", "check", TOLLWAY_DATA=str(tmp_path), TOLLWAY_SECRET_KEYS=SECRET_KEYS, **variables)
    assert done.returncode == 2
    assert named in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "5ec2e7" not in done.stderr


def test_it_stops_the_start(tmp_path: Path) -> None:
    done = tollway("serve", TOLLWAY_DATA=str(tmp_path), TOLLWAY_PORT="0", TOLLWAY_CHAIN_TREASURY="0x12",
                   TOLLWAY_SECRET_KEYS=SECRET_KEYS)  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("tollway: TOLLWAY_CHAIN_TREASURY='0x12': ")


async def test_only_networks_with_a_node_and_a_key_are_settled_on() -> None:
    assert open_chains(load_networks({}), {"TOLLWAY_CHAIN_SIGNER_KEY": KEY}) == {}
    node = {"TOLLWAY_CHAIN_84532_RPC": "http://127.0.0.1:1/secret"}
    assert open_chains(load_networks(node), node) == {}
    whole = {**node, "TOLLWAY_CHAIN_SIGNER_KEY": KEY, "TOLLWAY_CHAIN_TREASURY": "0x" + "ab" * 20}
    chains = open_chains(load_networks(whole), whole)
    assert list(chains) == ["eip155:84532"]
    chain = chains["eip155:84532"]
    assert chain.treasury == b"\xab" * 20
    assert "secret" not in repr(chain)
    assert "5e5e" not in repr(chain).lower()
    for opened in chains.values():
        await opened.node.rpc.aclose()
