"""EIP-1559 transactions: what is signed, its hash, and the raw bytes that a node takes."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.eip55 import keccak_256
from gateway.payments.evm.encoding import Item, rlp
from gateway.payments.evm.keystore import Signer

TYPE = b"\x02"


@dataclass(frozen=True, slots=True)
class Fees:
    """What a transaction offers per unit of gas, in wei: at most `max_fee` in all, of it `tip` to the proposer."""

    max_fee: int
    tip: int


@dataclass(frozen=True, slots=True)
class Call:
    """What a transaction does: call `target` with `data`, at most `gas` units. No value is ever sent along."""

    target: bytes
    data: bytes
    gas: int


@dataclass(frozen=True, slots=True)
class Signed:
    """A signed transaction: its hash (32 bytes) and raw bytes. Broadcasting it twice is broadcasting it once."""

    hash: bytes
    raw: bytes


def sign(signer: Signer, chain_id: int, nonce: int, call: Call, fees: Fees) -> Signed:
    """Return the signed EIP-1559 transaction. The chain id is part of what is signed: it is worthless elsewhere."""
    body: list[Item] = [chain_id, nonce, fees.tip, fees.max_fee, call.gas, call.target, 0, call.data, []]
    signature = signer.sign(keccak_256(TYPE + rlp(body)))
    r, s, parity = signature[:32], signature[32:64], signature[64]
    raw = TYPE + rlp([*body, parity, int.from_bytes(r, "big"), int.from_bytes(s, "big")])
    return Signed(keccak_256(raw), raw)
