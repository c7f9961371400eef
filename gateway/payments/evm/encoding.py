"""Bytes as the EVM wants them: hex, addresses, RLP and the few ABI shapes that we send.

Inside Tollway addresses are 20 bytes and nonces 32, never text: bytes have one spelling, so an address in upper case
cannot be another payer, and a malformed one cannot get past the parser at the edge.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from gateway.eip55 import checksum, keccak_256

_ADDRESS = re.compile(r"0[xX][0-9a-fA-F]{40}")
_HEX = re.compile(r"0x[0-9a-fA-F]*")
WORD = 32

Item = bytes | int | Sequence["Item"]
Argument = int | bytes | bool


def parse_address(text: str) -> bytes:
    """Return an address's 20 bytes; any case is read. Raises ValueError."""
    if not _ADDRESS.fullmatch(text):
        raise ValueError("an address is 0x and 40 hexadecimal digits")
    return bytes.fromhex(text[2:])


def parse_configured_address(text: str) -> bytes:
    """The same of what an operator wrote: a mixed case has to be its EIP-55 checksum. Raises ValueError."""
    address = parse_address(text)
    digits = text[2:]
    if digits not in (digits.lower(), digits.upper()) and show_address(address) != text:
        raise ValueError("its EIP-55 checksum (the mixed case) is wrong: a digit may be mistyped; copy it again")
    return address


def show_address(address: bytes) -> str:
    """Return an address in the mixed case of EIP-55."""
    return checksum("0x" + address.hex())


def parse_hex(value: object) -> bytes:
    """Return the bytes of 0x-prefixed hex data from a node. Raises ValueError on anything else."""
    if not isinstance(value, str) or not _HEX.fullmatch(value) or len(value) % 2:
        raise ValueError("not 0x-prefixed hex data")
    return bytes.fromhex(value[2:])


def parse_quantity(value: object) -> int:
    """Return a 0x-prefixed hex number from a node. Raises ValueError on anything else."""
    if not isinstance(value, str) or not _HEX.fullmatch(value) or not 2 < len(value) <= 66:
        raise ValueError("not a 0x-prefixed hex number")
    return int(value, 16)


def rlp(item: Item) -> bytes:
    """Return the RLP encoding of bytes, non-negative integers and lists of them."""
    if isinstance(item, int):
        item = item.to_bytes((item.bit_length() + 7) // 8, "big")
    if isinstance(item, bytes):
        return item if len(item) == 1 and item[0] < 0x80 else _rlp_prefix(0x80, len(item)) + item
    body = b"".join(rlp(part) for part in item)
    return _rlp_prefix(0xC0, len(body)) + body


def _rlp_prefix(base: int, length: int) -> bytes:
    if length < 56:
        return bytes([base + length])
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([base + 55 + len(size)]) + size


def selector(signature: str) -> bytes:
    """Return the four bytes that name a function, from its canonical signature."""
    return keccak_256(signature.encode())[:4]


def topic(signature: str) -> bytes:
    """Return the first topic of an event, from its canonical signature."""
    return keccak_256(signature.encode())


def word(value: Argument) -> bytes:
    """Return one static ABI word: integers and booleans right-aligned, addresses too, bytes32 as they are."""
    if isinstance(value, int):
        return value.to_bytes(WORD, "big")
    if len(value) not in (20, WORD):
        raise ValueError("a static argument has 20 or 32 bytes")
    return value.rjust(WORD, b"\0")


def tail(data: bytes) -> bytes:
    """Return dynamic ABI bytes: the length and the zero-padded content."""
    return len(data).to_bytes(WORD, "big") + data + bytes(-len(data) % WORD)


def call_data(name: bytes, *static: Argument, data: bytes | None = None) -> bytes:
    """Return call data: a selector, static words, and at most one dynamic `bytes` argument, which stands last."""
    head = b"".join(word(value) for value in static)
    if data is None:
        return name + head
    return name + head + word(len(head) + WORD) + tail(data)
