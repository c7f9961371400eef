"""What a payer has signed, in bytes and numbers: the terms that a chain will enforce."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Method = Literal["eip3009", "permit2_exact", "permit2_upto"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """One signed authorization to move a token, verified by whoever made this object.

    Addresses have 20 bytes, the nonce 32 (a Permit2 nonce is its number, big-endian). `authorized` is atomic units: the
    amount of an exact payment, the most of an `upto` one. Valid from `valid_after` until before `valid_before` (Unix
    seconds; a Permit2 deadline). `signature` is what the token or Permit2 takes: r, s, v of an EOA, or a contract
    wallet's; an ERC-6492 wrapper is taken apart into `deploy_target` and `deploy_data`.
    """

    asset: bytes
    payer: bytes
    payee: bytes
    nonce: bytes
    method: Method
    authorized: int
    valid_after: int
    valid_before: int
    signature: bytes
    deploy_target: bytes | None = None
    deploy_data: bytes | None = None
