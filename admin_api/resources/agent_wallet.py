"""Category `agent-wallet`: balance, bonuses, history, recovery, referrals. Deposits on a chain are in deposits.py.

A card deposit is only begun here; its money is booked by billing/card_deposits.py. Amounts on the wire: `*_atomic` of
the default asset, `*_usd` with a leading $.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request

from admin_api.kit.access import Public, ServicesDep, guess
from admin_api.kit.body import StrictRoute
from admin_api.kit.envelope import Offset, SuspensionTold
from admin_api.kit.needs import AccountManager, WalletReader
from admin_api.kit.once import Once
from admin_api.kit.problems import refusals
from admin_api.resources import wallet_models as models
from admin_api.resources.agent import agent_info, setup_instructions, skill_files
from gateway.billing import credits, payment_methods
from gateway.catalog.assets import Asset
from gateway.catalog.refusals import refused
from gateway.database.pool import Connection
from gateway.errors import BudgetLocked, Conflict, Forbidden
from gateway.identity import codes, recovery, referrals
from gateway.identity.accounts import load
from gateway.identity.principals import Principal
from gateway.ledger.wallets import BALANCES, FROZEN, GRANTED_TOTAL, HISTORY, HISTORY_COUNT, OWED, SourceBalance, Wallet
from gateway.services import Services
from gateway.suspensions import OF_WALLET
from pricing.money import format_usd

router = APIRouter(tags=["agent-wallet"], route_class=StrictRoute)

SAVE_CODE = "Save the recovery code now: it is shown only once, and brings this money back if you lose your API key."
NO_RECOVERY = "No recovery is set up: if you lose your API key, this money is lost. POST /wallet/recovery makes a code."


@router.get("/wallet/balance", operation_id="get_wallet_balance", responses=refusals(401))
async def get_wallet_balance(caller: WalletReader, services: ServicesDep) -> models.WalletBalanceDataResponse:
    """Return the spendable balance, by source. Expired credit is not balance."""
    asset = services.catalog.default_asset
    async with services.database.acquire() as connection:
        wallet = await credits.wallet_of(connection, caller.account_id, asset.id)
        account = await load(connection, caller.account_id)
        balances = await _general(connection, wallet)
        frozen, owed = await FROZEN.one(connection, wallet.id), await OWED.one(connection, wallet.id)
        suspended = await OF_WALLET.first(connection, caller.account_id)
        purchases = await GRANTED_TOTAL.one(connection, wallet.id, ["fiat_purchase"])
    funded = sum(item.balance for item in balances if item.purpose == "funded")
    promotional = sum(item.balance for item in balances if item.purpose == "promotional")
    return models.WalletBalanceDataResponse(
        data=models.WalletBalanceResponse(
            wallet_address=wallet.address,
            balance_atomic=funded + promotional,
            balance_usd=_usd(funded + promotional, asset),
            funded_balance_atomic=funded,
            funded_balance_usd=_usd(funded, asset),
            promotional_balance_atomic=promotional,
            promotional_balance_usd=_usd(promotional, asset),
            by_source=[_source(item, asset) for item in balances],
            frozen_balance_atomic=frozen,
            frozen_balance_usd=_usd(frozen, asset),
            owed_atomic=owed,
            owed_usd=_usd(owed, asset),
            total_purchases_cents=purchases * 100 // 10**asset.decimals,
            total_purchases_usd=_usd(purchases, asset),
            has_recovery=account.has_recovery,
            recovery_warning=None if account.has_recovery else NO_RECOVERY,
            suspension=None if suspended is None else SuspensionTold.model_validate(suspended),
        )
    )


@router.post("/wallet/bonus/signup", operation_id="claim_signup_bonus", responses=refusals(400, 401, 409))
async def claim_signup_bonus(
    caller: AccountManager, once: Once, services: ServicesDep
) -> models.BonusClaimDataResponse:
    """Grant the signup bonus, once."""
    asset = services.catalog.default_asset
    amount = await credits.claim_signup(
        services.database, caller.account_id, asset.id, services.settings.money, datetime.now(UTC)
    )
    return models.BonusClaimDataResponse(
        data=models.BonusClaimResponse(
            success=True, bonus_type=credits.SIGNUP, amount_atomic=amount, amount_usd=_usd(amount, asset)
        )
    )


@router.post(
    "/wallet/bonus/payment-method", operation_id="claim_payment_method_bonus", responses=refusals(400, 401, 409)
)
async def claim_payment_method_bonus(
    caller: AccountManager, once: Once, services: ServicesDep
) -> models.BonusClaimDataResponse:
    """Grant the bonus for a stored card: once per account, and once per card, whoever stores it."""
    asset = services.catalog.default_asset
    amount = await payment_methods.claim_bonus(services.database, caller.account_id, asset.id, services.settings.money)
    return models.BonusClaimDataResponse(
        data=models.BonusClaimResponse(
            success=True, bonus_type=payment_methods.BONUS, amount_atomic=amount, amount_usd=_usd(amount, asset)
        )
    )


@router.get("/wallet/daily/eligibility", operation_id="check_daily_eligibility", responses=refusals(401))
async def check_daily_eligibility(
    caller: WalletReader, services: ServicesDep
) -> models.DailyClaimEligibilityDataResponse:
    """Say whether today's credit can be claimed (UTC days), and if not, why and until when."""
    asset, money = services.catalog.default_asset, services.settings.money
    async with services.database.acquire() as connection:
        state = await credits.daily_state(connection, caller.account_id, asset.id, money, datetime.now(UTC))
    return models.DailyClaimEligibilityDataResponse(
        data=models.DailyClaimEligibilityResponse(
            can_claim=state.can_claim,
            claim_amount_usd=_usd(money.daily_claim, asset) if state.can_claim else None,
            claims_remaining_this_month=state.remaining,
            reason=state.reason,
            resets_in_seconds=state.resets_in_seconds,
        )
    )


@router.post("/wallet/daily/claim", operation_id="claim_daily", responses=refusals(400, 401))
async def claim_daily(caller: AccountManager, once: Once, services: ServicesDep) -> models.DailyClaimDataResponse:
    """Claim today's credit: once per UTC day, a limited number of times a month."""
    asset, money = services.catalog.default_asset, services.settings.money
    state = await credits.claim_daily(services.database, caller.account_id, asset.id, money, datetime.now(UTC))
    async with services.database.acquire() as connection:
        wallet = await credits.wallet_of(connection, caller.account_id, asset.id)
        balance = sum(item.balance for item in await _general(connection, wallet))
    return models.DailyClaimDataResponse(
        data=models.DailyClaimResponse(
            success=True,
            amount_atomic=money.daily_claim,
            amount_usd=_usd(money.daily_claim, asset),
            balance_atomic=balance,
            balance_usd=_usd(balance, asset),
            claims_remaining_this_month=state.remaining,
        )
    )


@router.post("/wallet/deposit", operation_id="create_deposit", responses=refusals(400, 401, 409, 501))
async def create_deposit(
    body: models.DepositRequest, caller: AccountManager, once: Once, services: ServicesDep
) -> models.DepositDataResponse:
    """Start a card deposit: `checkout_url` is where somebody pays. The money arrives when Stripe says that it has."""
    asset, money = services.catalog.default_asset, services.settings.money
    least, most = money.minimum_deposit_cents, money.maximum_deposit_cents
    if not least <= body.amount_cents <= most:
        raise refused("amount_cents", f"must be {least} to {most} (US cents)")
    if body.referral_code is not None:
        await _check_referral(services, caller, body.referral_code)
    services.stripe.demand()
    if body.referral_code is not None:
        await _refer(services, caller.account_id, body.referral_code)
    deposit = await services.cards.begin(once.effect_id, caller.account_id, body.amount_cents, asset)
    code, warning = await _recovery(services, caller)
    total = deposit.amount + deposit.bonus
    return models.DepositDataResponse(
        data=models.DepositResponse(
            deposit_id=deposit.id,
            checkout_url=deposit.checkout_url or "",
            amount_atomic=deposit.amount,
            amount_usd=_usd(deposit.amount, asset),
            bonus_atomic=deposit.bonus,
            bonus_usd=_usd(deposit.bonus, asset),
            total_atomic=total,
            total_usd=_usd(total, asset),
            recovery_code=code,
            recovery_warning=warning,
        )
    )


@router.post("/wallet/recover", operation_id="wallet_recover", responses=refusals(400, 401, 429, 500))
async def wallet_recover(
    body: models.WalletRecoverRequest, request: Request, _address: Public, services: ServicesDep
) -> models.WalletRecoverDataResponse:
    """Exchange a recovery code for a new key and a new code. Every old key stops working at once."""
    await guess(request, services)
    try:
        recovered = await recovery.recover(services.database, body.recovery_code)
    except codes.CodeRefused as error:
        raise refused("recovery_code", str(error)) from None
    services.identities.told(f"account:{recovered.agent.account.id}")
    public_url = services.settings.public_url
    return models.WalletRecoverDataResponse(
        data=models.WalletRecoverResponse(
            success=True,
            message="Recovered. Save the api_key and the new recovery code now: both are shown only once.",
            agent=agent_info(recovered.agent),
            new_recovery_code=recovered.code,
            setup=setup_instructions(public_url),
            skill_files=skill_files(public_url),
        )
    )


@router.post("/wallet/recovery", operation_id="set_recovery", responses=refusals(400, 401, 403))
async def set_recovery(
    body: models.SetRecoveryRequest, caller: AccountManager, services: ServicesDep
) -> models.RecoveryDataResponse:
    """Make a recovery code if there is none, shown this once; set, change or (with null) remove the contact e-mail."""
    change = "email" in body.model_fields_set
    state = await recovery.set_up(services.database, caller, body.email, change_email=change)
    message = "Save the recovery code now: it is shown only once." if state.code else "Recovery is already set up."
    return models.RecoveryDataResponse(
        data=models.RecoveryResponse(
            has_recovery=True, has_recovery_email=state.has_email, recovery_code=state.code, message=message
        )
    )


@router.get("/wallet/referral", operation_id="get_referral_info", responses=refusals(401))
async def get_referral_info(caller: WalletReader, services: ServicesDep) -> models.ReferralInfoDataResponse:
    """Return the caller's referral code and what it has earned."""
    asset, money = services.catalog.default_asset, services.settings.money
    async with services.database.acquire() as connection:
        account = await load(connection, caller.account_id)
        wallet = await credits.wallet_of(connection, caller.account_id, asset.id)
        earned = await GRANTED_TOTAL.one(connection, wallet.id, [credits.REFERRAL])
        pending = await credits.pending_rewards(connection, caller.account_id) * money.referral_reward
        count = await referrals.COUNT_REFERRED.one(connection, caller.account_id)
    return models.ReferralInfoDataResponse(
        data=models.ReferralInfoResponse(
            referral_code=account.referral_code,
            referral_url=f"{services.settings.public_url}/?ref={account.referral_code}",
            total_referrals=count,
            total_earnings_atomic=earned,
            total_earnings_usd=_usd(earned, asset),
            pending_earnings_atomic=pending,
            pending_earnings_usd=_usd(pending, asset),
        )
    )


@router.post("/wallet/referral/apply", operation_id="apply_referral_code", responses=refusals(400, 401, 409))
async def apply_referral_code(
    body: models.ApplyReferralRequest, caller: AccountManager, once: Once, services: ServicesDep
) -> dict[str, Any]:
    """Name who referred the caller, once. The referrer is rewarded once the caller has claimed its signup bonus."""
    asset, money = services.catalog.default_asset, services.settings.money
    applied = await credits.apply_referral(
        services.database, caller.account_id, body.referral_code, asset.id, money, datetime.now(UTC)
    )
    match applied.verdict:
        case "unknown":
            raise refused("referral_code", "is not a referral code of an agent here")
        case "own":
            raise refused("referral_code", "is your own code")
        case "circular":
            raise refused("referral_code", "belongs to an agent that you referred")
        case "again":
            raise Conflict("You have named a referrer before.")
        case _:
            return {}


@router.get("/wallet/transactions", operation_id="get_transactions", responses=refusals(400, 401))
async def get_transactions(
    caller: WalletReader, services: ServicesDep, limit: Annotated[int, Query(ge=1, le=100)] = 50, offset: Offset = 0
) -> models.WalletTransactionHistoryDataResponse:
    """List credits (positive, with what is left of them), calls (negative), refunds and expiries; newest first."""
    asset = services.catalog.default_asset
    async with services.database.acquire() as connection:
        wallet = await credits.wallet_of(connection, caller.account_id, asset.id)
    async with services.database.transaction(isolation="repeatable_read", readonly=True) as connection:
        lines = await HISTORY.all(connection, wallet.id, limit, offset)
        total = await HISTORY_COUNT.one(connection, wallet.id)
    return models.WalletTransactionHistoryDataResponse(
        data=models.WalletTransactionHistoryResponse(
            transactions=[models.transaction(line, asset) for line in lines], total=total, limit=limit, offset=offset
        )
    )


async def _general(connection: Connection, wallet: Wallet) -> list[SourceBalance]:
    """Return what can be spent everywhere. A deposit for one publisher is no general balance."""
    return [item for item in await BALANCES.all(connection, wallet.id) if item.purpose != "deposit"]


def _source(item: SourceBalance, asset: Asset) -> models.WalletSourceBalance:
    return models.WalletSourceBalance(
        source=models.credit_source(item),
        kind=models.WalletBalanceKind(item.purpose),
        balance_atomic=item.balance,
        balance_usd=_usd(item.balance, asset),
    )


async def _check_referral(services: Services, caller: Principal, code: str) -> None:
    async with services.database.acquire() as connection:
        referrer = await referrals.FIND_REFERRER.first(connection, codes.normalise_referral(code))
    if referrer is None or referrer == caller.account_id:
        raise refused("referral_code", "is not a referral code of another agent here")


async def _refer(services: Services, account_id: UUID, code: str) -> None:
    """Name a deposit's referrer, as apply_referral_code does; whoever has one keeps that, and may deposit."""
    asset, money = services.catalog.default_asset, services.settings.money
    applied = await credits.apply_referral(services.database, account_id, code, asset.id, money, datetime.now(UTC))
    if applied.verdict not in ("applied", "again"):
        raise refused("referral_code", "is not a referral code of another agent here")


async def _recovery(services: Services, caller: Principal) -> tuple[str | None, str | None]:
    """Make a recovery code with the first deposit, where there is none, and say what is to be done with it."""
    try:
        state = await recovery.set_up(services.database, caller, None, change_email=False)
    except (BudgetLocked, Forbidden):  # a key with limits makes no codes: they would bring keys without
        return None, NO_RECOVERY
    return state.code, None if state.code is None else SAVE_CODE


def _usd(amount: int, asset: Asset) -> str:
    return format_usd(amount, asset.decimals)
