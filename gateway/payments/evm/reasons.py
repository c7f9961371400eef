"""Why a chain refuses a payment, in the protocol's words: revert data in, x402 reason codes out. Pure."""

from __future__ import annotations

from gateway.payments.evm.encoding import selector
from gateway.payments.evm.rpc import NodeRefused

INSUFFICIENT_FUNDS = "insufficient_funds"
INVALID_SIGNATURE = "invalid_exact_evm_payload_signature"
NOT_YET_VALID = "invalid_exact_evm_payload_authorization_valid_after"
EXPIRED = "invalid_exact_evm_payload_authorization_valid_before"
NONCE_USED = "invalid_exact_evm_nonce_already_used"
TRANSACTION_FAILED = "transaction_failed"
UNDEPLOYED_WALLET = "invalid_exact_evm_payload_undeployed_smart_wallet"
ALLOWANCE_REQUIRED = "permit2_allowance_required"
GAS_LIMIT = "invalid_exact_evm_transaction_simulation_failed"
PENDING = "settlement_pending"

_ERROR_STRING = selector("Error(string)")
# Parts of the messages of USDC, OpenZeppelin's and older ERC-20 tokens, solmate's transfer library, and Permit2.
_WORDS = (
    ("exceeds balance", INSUFFICIENT_FUNDS),
    ("insufficient balance", INSUFFICIENT_FUNDS),
    ("exceeds allowance", ALLOWANCE_REQUIRED),
    ("insufficient allowance", ALLOWANCE_REQUIRED),
    ("transfer_from_failed", INSUFFICIENT_FUNDS),
    ("used or canceled", NONCE_USED),
    ("authorization is expired", EXPIRED),
    ("not yet valid", NOT_YET_VALID),
    ("invalid signature", INVALID_SIGNATURE),
    ("ecrecover", INVALID_SIGNATURE),
    ("signature", INVALID_SIGNATURE),
)
_SELECTORS = {
    selector("ERC20InsufficientBalance(address,uint256,uint256)"): INSUFFICIENT_FUNDS,
    selector("ERC20InsufficientAllowance(address,uint256,uint256)"): ALLOWANCE_REQUIRED,
    selector("InvalidNonce()"): NONCE_USED,
    selector("InvalidSigner()"): INVALID_SIGNATURE,
    selector("InvalidSignature()"): INVALID_SIGNATURE,
    selector("InvalidSignatureLength()"): INVALID_SIGNATURE,
    selector("InvalidContractSignature()"): INVALID_SIGNATURE,
    selector("SignatureExpired(uint256)"): EXPIRED,
    selector("PaymentTooEarly()"): NOT_YET_VALID,
}


def reason_of(refused: NodeRefused) -> str:
    """Return the reason code of a reverted call; `transaction_failed` when the contract's words are not known."""
    data = refused.data
    if data[:4] in _SELECTORS:
        return _SELECTORS[data[:4]]
    words = _text(data) if data[:4] == _ERROR_STRING else refused.message
    return next((code for part, code in _WORDS if part in words.lower()), TRANSACTION_FAILED)


def reverted(refused: NodeRefused) -> bool:
    """Say whether the node ran the call and the contract refused it, as opposed to a complaint about the request."""
    words = refused.message.lower()
    return bool(refused.data) or refused.code == 3 or "revert" in words or "gas required exceeds" in words


def _text(data: bytes) -> str:
    """Return the text of an ABI-encoded Error(string); garbage gives garbage, never an exception."""
    length = int.from_bytes(data[36:68], "big")
    return data[68 : 68 + min(length, 200)].decode(errors="replace")
