"""Bodies and answers of the wallet operations, named and shaped as the contract has them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field, StrictInt, StrictStr

from admin_api.kit.envelope import Answer, Moment, SuspensionTold
from admin_api.resources.agent import AgentInfo, SetupInstructions, SkillFiles
from gateway.catalog.assets import Asset
from gateway.catalog.fields import EXTENSION, Email
from gateway.ledger.wallets import SourceBalance, WalletLine
from gateway.request_body import RequestBody
from pricing.money import format_usd

MAX_CENTS = 100_000_000


class WalletBalanceKind(StrEnum):
    """Whether somebody paid for a credit."""

    FUNDED = "funded"
    PROMOTIONAL = "promotional"


class AgentCreditSource(StrEnum):
    """Where a credit came from."""

    FIAT_PURCHASE = "fiat_purchase"
    SIGNUP_BONUS = "signup_bonus"
    PAYMENT_METHOD_BONUS = "payment_method_bonus"
    DAILY_CLAIM = "daily_claim"
    REFERRAL_REWARD = "referral_reward"
    ADMIN_GRANT = "admin_grant"
    PROMO_CODE = "promo_code"
    TIER_BONUS = "tier_bonus"
    REFUND = "refund"
    PUBLISHER_PAYOUT = "publisher_payout"


class WalletSourceBalance(Answer):
    """Spendable money of one source."""

    source: AgentCreditSource
    kind: WalletBalanceKind
    balance_atomic: int
    balance_usd: str


class WalletBalanceResponse(Answer):
    """A wallet's balance."""

    wallet_address: str
    balance_atomic: int
    balance_usd: str
    funded_balance_atomic: int
    funded_balance_usd: str
    promotional_balance_atomic: int
    promotional_balance_usd: str
    by_source: list[WalletSourceBalance]
    frozen_balance_atomic: int
    frozen_balance_usd: str
    owed_atomic: int
    owed_usd: str
    total_purchases_cents: int
    total_purchases_usd: str
    has_recovery: bool
    recovery_warning: str | None
    suspension: Annotated[SuspensionTold | None, EXTENSION]


class WalletBalanceDataResponse(Answer):
    """Envelope."""

    data: WalletBalanceResponse


class BonusClaimResponse(Answer):
    """A granted bonus."""

    success: bool
    bonus_type: str
    amount_atomic: int
    amount_usd: str


class BonusClaimDataResponse(Answer):
    """Envelope."""

    data: BonusClaimResponse


class DailyClaimEligibilityResponse(Answer):
    """Whether a daily claim is open."""

    can_claim: bool
    claim_amount_usd: str | None
    claims_remaining_this_month: int
    reason: str | None
    resets_in_seconds: int | None


class DailyClaimEligibilityDataResponse(Answer):
    """Envelope."""

    data: DailyClaimEligibilityResponse


class DailyClaimResponse(Answer):
    """A granted daily claim and the balance with it."""

    success: bool
    amount_atomic: int
    amount_usd: str
    balance_atomic: int
    balance_usd: str
    claims_remaining_this_month: int


class DailyClaimDataResponse(Answer):
    """Envelope."""

    data: DailyClaimResponse


class DepositRequest(RequestBody):
    """A card deposit."""

    amount_cents: Annotated[StrictInt, Field(le=MAX_CENTS)]
    referral_code: Annotated[StrictStr, Field(max_length=64)] | None = None


class DepositResponse(Answer):
    """A deposit that was started at the card processor."""

    deposit_id: UUID
    checkout_url: str
    amount_atomic: int
    amount_usd: str
    bonus_atomic: int
    bonus_usd: str
    total_atomic: int
    total_usd: str
    recovery_code: str | None
    recovery_warning: str | None


class DepositDataResponse(Answer):
    """Envelope."""

    data: DepositResponse


class OnchainDepositRequest(RequestBody):
    """A deposit on a chain, for one publisher."""

    publisher_id: UUID
    amount: Annotated[StrictStr, Field(max_length=64)]
    asset_id: UUID | None = None


class OnchainDepositResponse(Answer):
    """A settled deposit."""

    publisher_id: UUID
    agent_wallet: str
    asset_symbol: str
    deposited_amount: str
    balance_amount: str
    message: str
    tx_hash: str | None


class ResourceInfo(Answer):
    """What is to be paid for."""

    url: str
    description: str
    mimeType: str


class PaymentRequirements(Answer):
    """One way to pay."""

    scheme: str
    network: str
    asset: str
    amount: str
    payTo: str
    maxTimeoutSeconds: int
    extra: Any


class TypedParam(Answer):
    """A member of an EIP-712 type."""

    name: str
    type: str


class Eip712Domain(Answer):
    """EIP-712 domain."""

    name: str
    version: str
    chainId: int
    verifyingContract: str


class Eip712Message(Answer):
    """ERC-3009 authorisation."""

    from_: Annotated[str, Field(alias="from")]
    to: str
    value: str
    validAfter: str
    validBefore: str
    nonce: str


class Eip712Types(Answer):
    """The types that are signed."""

    EIP712Domain: list[TypedParam]
    TransferWithAuthorization: list[TypedParam]


class Eip712TypedData(Answer):
    """What a wallet signs."""

    domain: Eip712Domain
    types: Eip712Types
    primaryType: str
    message: Eip712Message


class CostEstimate(Answer):
    """What a query is expected to cost."""

    asset_symbol: str
    base_cost: str
    estimated_rows: int
    markup_multiplier: str
    min_charge: str
    total_cost: str
    total_cost_atomic: int


class PaymentRequestInfo(Answer):
    """Our part of a 402."""

    payment_request_id: str
    publisher_id: UUID
    expires: int
    estimate: CostEstimate | None = None
    eip712TypedData: Eip712TypedData | None = None


class PaymentRequiredResponseWithInfo(Answer):
    """x402 v2 PaymentRequired with our block."""

    x402Version: int
    error: str | None = None
    resource: ResourceInfo
    accepts: list[PaymentRequirements]
    extensions: Any = None
    availableBalanceAtomic: int | None = None
    seren: PaymentRequestInfo | None = None


class WalletRecoverRequest(RequestBody):
    """A recovery code as it was written down."""

    recovery_code: Annotated[StrictStr, Field(max_length=128)]


class WalletRecoverResponse(Answer):
    """A recovered agent; key and code are shown this once."""

    success: bool
    message: str
    agent: AgentInfo
    new_recovery_code: str
    setup: SetupInstructions
    skill_files: SkillFiles


class WalletRecoverDataResponse(Answer):
    """Envelope."""

    data: WalletRecoverResponse


class SetRecoveryRequest(RequestBody):
    """Recovery settings. Null removes the e-mail, absent leaves it."""

    email: Email | None = None


class RecoveryResponse(Answer):
    """Recovery as it stands; the code only when it was made now."""

    has_recovery: bool
    has_recovery_email: bool
    recovery_code: str | None
    message: str


class RecoveryDataResponse(Answer):
    """Envelope."""

    data: RecoveryResponse


class ReferralInfoResponse(Answer):
    """A referral code and its earnings."""

    referral_code: str
    referral_url: str
    total_referrals: int
    total_earnings_atomic: int
    total_earnings_usd: str
    pending_earnings_atomic: int
    pending_earnings_usd: str


class ReferralInfoDataResponse(Answer):
    """Envelope."""

    data: ReferralInfoResponse


class ApplyReferralRequest(RequestBody):
    """Somebody else's referral code."""

    referral_code: Annotated[StrictStr, Field(max_length=64)]


class WalletTransactionResponse(Answer):
    """One line of a wallet's history."""

    id: UUID
    source: str
    amount_atomic: int
    amount_usd: str
    remaining_atomic: int
    remaining_usd: str
    paid_amount_usd: str | None
    bonus_amount_usd: str | None
    description: str | None
    created_at: Moment
    expires_at: Moment | None


class WalletTransactionHistoryResponse(Answer):
    """A page of the history."""

    transactions: list[WalletTransactionResponse]
    total: int
    limit: int
    offset: int


class WalletTransactionHistoryDataResponse(Answer):
    """Envelope."""

    data: WalletTransactionHistoryResponse


def credit_source(item: SourceBalance) -> AgentCreditSource:
    """Return the contract's word for a source; one that it does not know is told by its kind."""
    try:
        return AgentCreditSource(item.source)
    except ValueError:
        funded = item.purpose == "funded"
        return AgentCreditSource.FIAT_PURCHASE if funded else AgentCreditSource.ADMIN_GRANT


def transaction(line: WalletLine, asset: Asset) -> WalletTransactionResponse:
    """Return a line of the history. What was paid and what was added to it are told apart for credits only."""
    text = format_usd(line.amount, asset.decimals)
    is_credit = line.kind == "credit"
    return WalletTransactionResponse(
        id=line.id,
        source=line.source,
        amount_atomic=line.amount,
        amount_usd=text,
        remaining_atomic=line.remaining,
        remaining_usd=format_usd(line.remaining, asset.decimals),
        paid_amount_usd=text if is_credit and line.source == "fiat_purchase" else None,
        bonus_amount_usd=text if is_credit and line.source != "fiat_purchase" else None,
        description=line.description,
        created_at=line.created_at,
        expires_at=line.expires_at,
    )
