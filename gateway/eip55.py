"""Ethereum addresses as text: Keccak-256 and the EIP-55 checksum. Used by the catalog and by payments.

What does not live here: signatures, and anything of a chain (gateway/payments).
"""

from __future__ import annotations

from Crypto.Hash import keccak


def keccak_256(data: bytes) -> bytes:
    """Return the Keccak-256 digest, 32 bytes (Ethereum's hash, not SHA3-256)."""
    return keccak.new(data=data, digest_bits=256).digest()


def checksum(address: str) -> str:
    """Return an address, 0x and 40 hexadecimal digits, in the mixed case of EIP-55."""
    digits = address[2:].lower()
    digest = keccak_256(digits.encode()).hex()
    return "0x" + "".join(
        digit.upper() if nibble >= "8" else digit for digit, nibble in zip(digits, digest, strict=False)
    )


def is_checksummed(address: str) -> bool:
    """Return whether an address's case is its EIP-55 checksum."""
    return checksum(address) == address
