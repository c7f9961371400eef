"""Signatures: of a key (65 bytes), of a smart wallet (ERC-1271), of one that is not deployed yet (ERC-6492).

A key's signature is proven here, by recovery. A smart wallet decides itself what a signature is, so its proof is a
question to the chain: `question` says whom to call with what, `affirms` reads the answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from coincurve import PublicKey

from gateway.eip55 import keccak_256
from gateway.payments.evm.encoding import call_data, selector

_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_HALF_ORDER = _ORDER // 2
_ERC6492_SUFFIX = bytes.fromhex("6492" * 16)
_IS_VALID_SIGNATURE = selector("isValidSignature(bytes32,bytes)")
_MAGIC = _IS_VALID_SIGNATURE + bytes(28)
_WORD = 32


@dataclass(frozen=True, slots=True)
class Deployment:
    """How an ERC-6492 wallet comes to be: call `factory` (20 bytes) with `data`."""

    factory: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature without its wrapping."""

    data: bytes
    deployment: Deployment | None = None


def read_signature(data: bytes) -> Signature | None:
    """Return a payer's signature, or None when it says that it is ERC-6492 and is not."""
    if data.endswith(_ERC6492_SUFFIX):
        return _unwrapped(data[: -len(_ERC6492_SUFFIX)])
    return Signature(data)


def recover(digest: bytes, signature: bytes) -> bytes | None:
    """Return the address of the key that signed a digest, or None when this is no key's signature.

    As USDC's contract does, it takes only the one form of a signature that nobody but the signer can make: the other
    one, with s in the upper half, anybody can compute.
    """
    if len(signature) != 65 or signature[64] not in (27, 28):
        return None
    if int.from_bytes(signature[32:64], "big") > _HALF_ORDER:
        return None
    recoverable = signature[:64] + bytes((signature[64] - 27,))
    try:
        key = PublicKey.from_signature_and_message(recoverable, digest, hasher=None)
    except ValueError:
        return None
    return keccak_256(key.format(compressed=False)[1:])[12:]


def as_contracts_want(data: bytes) -> bytes:
    """Return a key's signature ending in 27 or 28: some wallets write 0 and 1, which contracts do not take.

    Only for keys: to a smart wallet the last byte of 65 may mean anything.
    """
    return data[:64] + bytes((data[64] + 27,)) if len(data) == 65 and data[64] < 2 else data


def question(digest: bytes, signature: bytes) -> bytes:
    """Return the call data that asks a smart wallet whether a signature is its own (ERC-1271)."""
    return call_data(_IS_VALID_SIGNATURE, digest, data=signature)


def affirms(answer: bytes) -> bool:
    """Say whether a smart wallet's answer to `question` is yes. An account without code answers with nothing."""
    return answer == _MAGIC


def _unwrapped(data: bytes) -> Signature | None:
    """Read abi.encode(address factory, bytes data, bytes signature); only the canonical layout is taken."""
    head = 3 * _WORD
    if len(data) < head or any(data[: _WORD - 20]):
        return None
    calldata = _dynamic(data, data[_WORD : 2 * _WORD], head)
    if calldata is None:
        return None
    inner = _dynamic(data, data[2 * _WORD : head], head + _WORD + _padded(len(calldata)))
    if inner is None or len(data) != 2 * _WORD + head + _padded(len(calldata)) + _padded(len(inner)):
        return None
    return Signature(inner, Deployment(data[_WORD - 20 : _WORD], calldata))


def _dynamic(data: bytes, offset: bytes, place: int) -> bytes | None:
    """Return the `bytes` that stand at a place, if the offset word points there and its padding is zero."""
    if int.from_bytes(offset, "big") != place or len(data) < place + _WORD:
        return None
    start = place + _WORD
    length = int.from_bytes(data[place:start], "big")
    end = start + length
    if len(data) < start + _padded(length) or any(data[end : start + _padded(length)]):
        return None
    return data[start:end]


def _padded(length: int) -> int:
    return length + -length % _WORD
