"""EIP-712: the 32 bytes that a payer's wallet signed, for each way to move a token.

The domain part is fixed per contract and computed once when kinds are compiled; a payment costs two or three hashes.
"""

from __future__ import annotations

from gateway.eip55 import keccak_256
from gateway.payments.x402.terms import SignedTerms

_DOMAIN = keccak_256(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
_DOMAIN_WITHOUT_VERSION = keccak_256(b"EIP712Domain(string name,uint256 chainId,address verifyingContract)")
_TRANSFER = keccak_256(
    b"TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,"
    b"bytes32 nonce)"
)
_TOKEN_PERMISSIONS = b"TokenPermissions(address token,uint256 amount)"
_EXACT_WITNESS = b"Witness(address to,uint256 validAfter)"
_UPTO_WITNESS = b"Witness(address to,address facilitator,uint256 validAfter)"
_PERMIT = (
    b"PermitWitnessTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,uint256 deadline,"
    b"Witness witness)" + _TOKEN_PERMISSIONS
)
_PERMITTED_HASH = keccak_256(_TOKEN_PERMISSIONS)
_EXACT_WITNESS_HASH = keccak_256(_EXACT_WITNESS)
_UPTO_WITNESS_HASH = keccak_256(_UPTO_WITNESS)
_EXACT_PERMIT_HASH = keccak_256(_PERMIT + _EXACT_WITNESS)
_UPTO_PERMIT_HASH = keccak_256(_PERMIT + _UPTO_WITNESS)
_PAD = bytes(12)


def domain_separator(name: str, version: str, chain_id: int, contract: bytes) -> bytes:
    """Return the EIP-712 domain separator of a token contract."""
    parts = (_DOMAIN, keccak_256(name.encode()), keccak_256(version.encode()), _number(chain_id), _PAD + contract)
    return keccak_256(b"".join(parts))


def permit2_separator(chain_id: int, permit2: bytes) -> bytes:
    """Return the domain separator of Permit2, which has no version."""
    return keccak_256(_DOMAIN_WITHOUT_VERSION + keccak_256(b"Permit2") + _number(chain_id) + _PAD + permit2)


def digest(separator: bytes, terms: SignedTerms) -> bytes:
    """Return what must have been signed for these terms in this domain."""
    hashed = _hash_transfer(terms) if terms.method == "eip3009" else _hash_permit(terms)
    return keccak_256(b"\x19\x01" + separator + hashed)


def _hash_transfer(terms: SignedTerms) -> bytes:
    return keccak_256(
        b"".join(
            (
                _TRANSFER, _PAD, terms.payer, _PAD, terms.payee, _number(terms.value), _number(terms.valid_after),
                _number(terms.valid_before), terms.nonce,
            )
        )
    )  # fmt: skip


def _hash_permit(terms: SignedTerms) -> bytes:
    if terms.method == "permit2_upto":
        typehash = _UPTO_PERMIT_HASH
        witness = _UPTO_WITNESS_HASH + _PAD + terms.payee + _PAD + terms.facilitator + _number(terms.valid_after)
    else:
        typehash = _EXACT_PERMIT_HASH
        witness = _EXACT_WITNESS_HASH + _PAD + terms.payee + _number(terms.valid_after)
    permitted = keccak_256(_PERMITTED_HASH + _PAD + terms.token + _number(terms.value))
    return keccak_256(
        b"".join(
            (
                typehash, permitted, _PAD, terms.spender, terms.nonce, _number(terms.valid_before),
                keccak_256(witness),
            )
        )
    )  # fmt: skip


def _number(value: int) -> bytes:
    return value.to_bytes(32, "big")
