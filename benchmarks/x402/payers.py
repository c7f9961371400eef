"""Wallets of the local chain with money, and payments that they sign in advance: each is presented once.

What they sign is what the server asks for in its own 402, as official clients would.
"""

from __future__ import annotations

import base64
import http.client
import itertools
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from benchmarks.plain_http import HOST
from gateway.eip55 import keccak_256
from gateway.payments.evm.encoding import parse_address, show_address, word
from gateway.payments.evm.keystore import Signer
from gateway.payments.evm.node import Node
from gateway.payments.evm.rpc import Request, Rpc, RpcError

DOMAIN = keccak_256(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
TRANSFER = keccak_256(
    b"TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,"
    b"bytes32 nonce)"
)
CHAIN_ID = 84532
BALANCES_SLOT = 9  # of FiatTokenV2_2's mapping of balances
FUNDS = 10_000_000  # ten dollars for each wallet: a thousand calls


@dataclass(frozen=True, slots=True)
class Wallets:
    """Wallets that pay in turn; it goes on over all files of payments, so that none pays much more than others."""

    signers: Sequence[Signer]
    turn: Iterator[Signer] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "turn", itertools.cycle(self.signers))

    def sign(self, asked: dict[str, Any], number: int, file: Path) -> None:
        """Write `number` fresh payments for what a 402 asks, one PAYMENT-SIGNATURE value a line."""
        offer = asked["accepts"][0]
        signs = _Terms(offer)
        rest = {"x402Version": 2, "accepted": offer, "resource": asked["resource"]}
        with file.open("wb") as out:
            for signer in itertools.islice(self.turn, number):
                out.write(base64.b64encode(orjson.dumps({**rest, "payload": signs.by(signer)})) + b"\n")


class _Terms:
    """What is the same in all payments for one offer."""

    def __init__(self, offer: dict[str, Any]) -> None:
        token = parse_address(offer["asset"])
        name, version = offer["extra"]["name"].encode(), offer["extra"]["version"].encode()
        separator = DOMAIN + keccak_256(name) + keccak_256(version) + word(CHAIN_ID) + word(token)
        self._prefix = b"\x19\x01" + keccak_256(separator)
        self._before = int(time.time()) + int(offer["maxTimeoutSeconds"])
        payee, value = parse_address(offer["payTo"]), int(offer["amount"])
        self._words = word(payee) + word(value) + word(0) + word(self._before)
        times = {"validAfter": "0", "validBefore": str(self._before)}
        self._said = {"to": offer["payTo"], "value": offer["amount"], **times}

    def by(self, signer: Signer) -> dict[str, Any]:
        """Return one signed authorization, as it stands in a payment."""
        nonce = secrets.token_bytes(32)
        struct = keccak_256(TRANSFER + word(signer.address) + self._words + nonce)
        raw = signer.sign(keccak_256(self._prefix + struct))
        signature = "0x" + raw[:64].hex() + f"{27 + raw[64]:02x}"
        payer = show_address(signer.address)
        return {"signature": signature, "authorization": {"from": payer, **self._said, "nonce": "0x" + nonce.hex()}}


def asked_by(port: int, target: str) -> dict[str, Any]:
    """Return what a server asks for in its 402."""
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    try:
        connection.request("GET", target)
        answer = connection.getresponse()
        answer.read()
        header = answer.getheader("payment-required")
        if answer.status != 402 or header is None:
            raise RuntimeError(f"port {port} answered {answer.status} to an unpaid call of {target}")
        return orjson.loads(base64.b64decode(header))
    finally:
        connection.close()


async def funded(rpc: Rpc, usdc: str, number: int) -> Wallets:
    """Make wallets that hold USDC, by writing balances into the token's storage: thousands of transfers take long."""
    signers = [Signer(secrets.token_bytes(32)) for _ in range(number)]
    slots = [keccak_256(word(signer.address) + word(BALANCES_SLOT)) for signer in signers]
    balance = "0x" + word(FUNDS).hex()
    requests = [Request("anvil_setStorageAt", (usdc, "0x" + slot.hex(), balance)) for slot in slots]
    for answer in await rpc.batch(requests):
        if isinstance(answer, RpcError):
            raise answer
    if await Node(rpc).token_balance(parse_address(usdc), signers[-1].address) != FUNDS:
        raise RuntimeError("the token keeps its balances elsewhere")
    return Wallets(signers)
