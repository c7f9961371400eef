"""Why a payment is refused: the protocol's own codes, and the one exception that carries them."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Reason codes as clients know them: of the x402 specification (section 9), else of the official SDKs."""

    VERSION = "invalid_x402_version"
    PAYLOAD = "invalid_payload"
    SCHEME = "unsupported_scheme"
    NETWORK = "invalid_network"
    REQUIREMENTS = "invalid_payment_requirements"

    SIGNATURE = "invalid_exact_evm_payload_signature"
    PAYEE = "invalid_exact_evm_payload_recipient_mismatch"
    VALUE = "invalid_exact_evm_payload_authorization_value_mismatch"
    NOT_YET_VALID = "invalid_exact_evm_payload_authorization_valid_after"
    EXPIRED = "invalid_exact_evm_payload_authorization_valid_before"
    FACTORY = "eip6492_factory_not_allowed"
    WALLET = "invalid_exact_evm_payload_undeployed_smart_wallet"

    PERMIT2_SIGNATURE = "invalid_permit2_signature"
    PERMIT2_SPENDER = "invalid_permit2_spender"
    PERMIT2_PAYEE = "invalid_permit2_recipient_mismatch"
    PERMIT2_AMOUNT = "permit2_amount_mismatch"
    PERMIT2_TOKEN = "permit2_token_mismatch"  # noqa: S105 - a code of the protocol
    PERMIT2_NOT_YET_VALID = "permit2_not_yet_valid"
    PERMIT2_EXPIRED = "permit2_deadline_expired"
    UPTO_FACILITATOR = "upto_facilitator_mismatch"
    UPTO_EXCEEDED = "invalid_upto_evm_payload_settlement_exceeds_amount"

    # What only the chain can say (evm/reasons.py).
    FUNDS = "insufficient_funds"
    NONCE_USED = "invalid_exact_evm_nonce_already_used"
    ALLOWANCE = "permit2_allowance_required"
    SIMULATION = "invalid_exact_evm_transaction_simulation_failed"
    TRANSACTION_FAILED = "transaction_failed"
    PENDING = "settlement_pending"

    PAYER = "payer_not_accepted"  # ours: an operator has suspended the wallet


class PaymentRefused(Exception):
    """A payment is not accepted. `detail` says what is wrong and what to do, for the payer; it holds no secret."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
