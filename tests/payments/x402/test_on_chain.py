"""What is verified here is what the real contracts execute: official clients' signatures, by USDC's own bytecode, Permit2
and contract wallets, tried on a local chain with exactly the terms that verification hands to settlement."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest_asyncio
from eth_abi import encode
from eth_account import Account
from x402 import x402ClientSync
from x402.http.utils import decode_payment_required_header, encode_payment_signature_header
from x402.mechanisms.evm.exact import ExactEvmScheme
from x402.mechanisms.evm.upto import UptoEvmScheme

from gateway.eip55 import keccak_256
from gateway.networks import load_networks
from gateway.payments.evm.chains import Chain as Link
from gateway.payments.evm.chains import open_chains
from gateway.payments.evm.checks import inspect
from gateway.payments.evm.encoding import parse_address
from gateway.payments.evm.keystore import Signer
from gateway.payments.x402 import v2
from gateway.payments.x402.offer import Offer, compile_kinds
from gateway.payments.x402.signatures import affirms
from gateway.payments.x402.verify import Verified, verify
from tests.payments.x402.shop import PRICE, SHOP, Payer, header, permit2_networks
from tests.support.chain import Chain

# A contract that says yes to every question (ERC-1271), one that says no, and the deployer that most chains have.
YES = bytes.fromhex("7f1626ba7e" + "00" * 28 + "60005260206000f3")
NO = bytes.fromhex("60206000f3")
DEPLOYER = parse_address("0x4e59b44847b379578588920cA78FbF26c0B4956C")


@pytest_asyncio.fixture
async def link(chain: Chain) -> AsyncIterator[Link]:
    """The chain as the gateway has it."""
    environ = {
        f"TOLLWAY_CHAIN_{chain.chain_id}_RPC": chain.url,
        "TOLLWAY_CHAIN_SIGNER_KEY": chain.signer_key,
    }
    opened = open_chains(load_networks(environ), environ)[chain.network]
    yield opened
    await opened.node.rpc.aclose()


def asked(link: Link, scheme: Any = "exact", *, permit2: bool = False) -> Offer:
    """An offer in USDC, to the treasury; `permit2` as if the token could not be moved otherwise."""
    networks = permit2_networks() if permit2 else load_networks({})
    kind = compile_kinds(networks, {link.network.id: link.signer.address}).find(link.network.id, "USDC", scheme)
    assert kind is not None
    return Offer(kind, PRICE, link.treasury, 120)


async def official(chain: Chain, ours: Offer, account: Any, usdc: int) -> Verified:
    """Give a wallet so much, let the official client pay, and verify."""
    wallet = Signer(bytes(account.key))
    await chain.rpc("anvil_setBalance", account.address, hex(10**18))
    await chain.give(wallet.address, usdc)
    if ours.kind.method != "eip3009":
        await chain.allow_permit2(wallet)
    client = x402ClientSync()
    client.register("eip155:*", ExactEvmScheme(account))
    client.register("eip155:*", UptoEvmScheme(account))
    required: Any = decode_payment_required_header(v2.required_header([ours], SHOP, "").decode())
    sent = encode_payment_signature_header(client.create_payment_payload(required)).encode()
    return verify(*v2.read_payment(sent), [ours], SHOP.url, int(time.time()))


async def test_the_token_moves_an_official_clients_payment(chain: Chain, link: Link) -> None:
    paid = await official(chain, asked(link), Account.create(), PRICE)
    assert (await inspect(link, paid.terms)).refusal is None
    poor = await official(chain, asked(link), Account.create(), PRICE - 1)
    assert (await inspect(link, poor.terms)).refusal == "insufficient_funds"


async def test_permit2_moves_an_official_clients_payments(chain: Chain, link: Link) -> None:
    for ours in (asked(link, permit2=True), asked(link, "upto")):
        paid = await official(chain, ours, Account.create(), PRICE)
        assert paid.question is None
        assert (await inspect(link, paid.terms)).refusal is None


async def test_what_the_chain_would_refuse_is_refused_before_it_is_asked(chain: Chain, link: Link) -> None:
    """The other way round: terms that verification would not take do not pass the chain either."""
    paid = await official(chain, asked(link), Account.create(), PRICE * 2)
    for wrong in (
        replace(paid.terms, authorized=PRICE + 1),
        replace(paid.terms, payee=b"\1" * 20),
        replace(paid.terms, nonce=bytes(32)),
        replace(paid.terms, signature=paid.terms.signature[:64] + bytes((paid.terms.signature[64] ^ 7,))),
    ):
        assert (await inspect(link, wrong)).refusal == "invalid_exact_evm_payload_signature"


def wallets_payment(ours: Offer, wallet: bytes, signature: bytes) -> Verified:
    """A payment in a contract's name, with whatever it takes for a signature."""
    now = int(time.time())
    payment = Payer().payment(ours, validBefore=str(now + 100), **{"from": "0x" + wallet.hex()})
    payment["payload"]["signature"] = "0x" + signature.hex()
    return verify(*v2.read_payment(header(payment)), [ours], SHOP.url, now)


async def test_a_contract_wallet_answers_for_itself(chain: Chain, link: Link) -> None:
    ours = asked(link)
    for code, yes in ((YES, True), (NO, False), (b"", False)):
        wallet = Payer().address
        await chain.rpc("anvil_setCode", "0x" + wallet.hex(), "0x" + code.hex())
        await chain.give(wallet, PRICE)
        for signature in (b"\7" * 65, b"\7" * 300):
            paid = wallets_payment(ours, wallet, signature)
            assert paid.question is not None
            assert affirms(await link.node.view(wallet, paid.question.data)) is yes
            assert ((await inspect(link, paid.terms)).refusal is None) is yes


async def test_a_wallet_that_is_not_there_yet_is_made_by_its_factory(chain: Chain, link: Link) -> None:
    init = bytes([0x60, len(YES), 0x80, 0x60, 0x0B, 0x60, 0x00, 0x39, 0x60, 0x00, 0xF3]) + YES
    salt = keccak_256(str(time.time_ns()).encode())
    wallet = keccak_256(b"\xff" + DEPLOYER + salt + keccak_256(init))[12:]
    await chain.give(wallet, PRICE)
    frame = encode(["address", "bytes", "bytes"], [DEPLOYER, salt + init, b"\7" * 70]) + bytes.fromhex("6492" * 16)
    ours = asked(link)
    ours = replace(ours, kind=replace(ours.kind, factories=frozenset((DEPLOYER,))))
    paid = wallets_payment(ours, wallet, frame)
    assert paid.question is not None
    assert affirms(await link.node.view(wallet, paid.question.data)) is False
    assert (await inspect(link, paid.decided(False).terms)).refusal is None

    await chain.rpc("anvil_setCode", "0x" + wallet.hex(), "0x" + YES.hex())
    assert affirms(await link.node.view(wallet, paid.question.data)) is True
    assert (await inspect(link, paid.decided(True).terms)).refusal is None
