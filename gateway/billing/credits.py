"""Credits that nobody paid for: signup bonus, daily claim, referral reward, operator's grants.

Each is granted at most once per (source, reference), which the ledger enforces: twenty claims at the same instant are
one grant. What may be claimed is decided by pure functions of facts; the caller's wallet is locked while they are
gathered. What does not live here: paid deposits (payments/).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from gateway.audit.entries import record
from gateway.database.pool import Connection, Database
from gateway.database.statement import Command, Statement
from gateway.errors import Conflict, NotEligible
from gateway.identity import referrals
from gateway.identity.accounts import Account, load, wallet_address
from gateway.identity.organizations import default_of
from gateway.ledger.wallets import LOCK_WALLET, Wallet, grant, open_wallet
from gateway.settings import MoneySettings

SIGNUP, DAILY, REFERRAL = "signup_bonus", "daily_claim", "referral_reward"
SIGNUP_REFERENCE = "signup"


@dataclass(frozen=True, slots=True)
class Eligibility:
    """Whether a daily claim is open now. `reason` and `resets_in_seconds` say why not and until when."""

    can_claim: bool
    remaining: int
    reason: str | None = None
    resets_in_seconds: int | None = None


CLAIMED_IN_MONTH = Statement(
    """
    SELECT reference FROM ledger.account
     WHERE wallet_id = $1 AND granted IS NOT NULL AND source = 'daily_claim' AND starts_with(reference, $2)
    """,
    str,
    scalar=True,
)
# A referral is pending while the referred agent has not claimed its signup bonus.
COUNT_PENDING = Statement(
    """
    SELECT count(*) FROM identity.account a
     WHERE a.referred_by = $1
       AND NOT EXISTS (SELECT FROM ledger.wallet w JOIN ledger.account l ON l.wallet_id = w.id
                        WHERE w.owner_id = a.id AND l.granted IS NOT NULL AND l.source = 'signup_bonus')
    """,
    int,
    scalar=True,
)


HAS_SIGNED_UP = Statement(
    """
    SELECT EXISTS (SELECT FROM ledger.wallet w JOIN ledger.account l ON l.wallet_id = w.id
                    WHERE w.owner_id = $1 AND l.granted IS NOT NULL AND l.source = 'signup_bonus')
    """,
    bool,
    scalar=True,
)
# Whoever names a referrer at the same time waits, and then finds the bonus claimed.
HOLD_ACCOUNT = Command("SELECT FROM identity.account WHERE id = $1 FOR SHARE")


async def wallet_of(connection: Connection, account_id: UUID, asset_id: UUID) -> Wallet:
    """Return an account's prepaid wallet, opening it for accounts that have none yet."""
    return await open_wallet(connection, account_id, asset_id, wallet_address(account_id))


async def claim_signup(
    database: Database, account_id: UUID, asset_id: UUID, money: MoneySettings, now: datetime
) -> int:
    """Grant the signup bonus, and the referrer's reward with it. Raises Conflict when it was claimed before."""
    expires_at = now + timedelta(days=money.bonus_expiry_days)
    async with database.transaction() as connection:
        await HOLD_ACCOUNT.run(connection, account_id)
        account = await load(connection, account_id)
        wallet = await wallet_of(connection, account_id, asset_id)
        referrer = None
        if account.referred_by is not None and money.referral_reward:
            referrer = await wallet_of(connection, account.referred_by, asset_id)
        # Both wallets in id order: two claims that reward each other must not wait for each other.
        for wallet_id in sorted({wallet.id} | ({referrer.id} if referrer else set())):
            await LOCK_WALLET.run(connection, wallet_id)
        await grant_once(connection, wallet, SIGNUP, SIGNUP_REFERENCE, money.signup_bonus, expires_at)
        if referrer is not None:
            await _reward(connection, referrer, account, money, expires_at)
        await _note(connection, "wallet.claim_signup_bonus", account_id, wallet)
    return money.signup_bonus


async def apply_referral(
    database: Database, account_id: UUID, code: str, asset_id: UUID, money: MoneySettings, now: datetime
) -> referrals.Applied:
    """Record who referred an account. The reward falls due with the account's signup bonus, or now if it has that."""
    async with database.transaction() as connection:
        applied = await referrals.apply(connection, account_id, code)
        if applied.referrer is not None and money.referral_reward and await HAS_SIGNED_UP.one(connection, account_id):
            referrer = await wallet_of(connection, applied.referrer, asset_id)
            expires_at = now + timedelta(days=money.bonus_expiry_days)
            await _reward(connection, referrer, await load(connection, account_id), money, expires_at)
        if applied.referrer is not None:
            await _note(connection, "wallet.apply_referral", account_id, None, referrer=str(applied.referrer))
    return applied


async def claim_daily(
    database: Database, account_id: UUID, asset_id: UUID, money: MoneySettings, now: datetime
) -> Eligibility:
    """Grant today's claim and return what is left of the month. Raises NotEligible saying why and until when."""
    async with database.transaction() as connection:
        wallet = await wallet_of(connection, account_id, asset_id)
        await LOCK_WALLET.run(connection, wallet.id)
        state = daily(now, await _claimed(connection, wallet, now), money)
        if not state.can_claim:
            raise NotEligible(str(state.reason), resets_in_seconds=state.resets_in_seconds)
        expires_at = now + timedelta(days=money.daily_expiry_days)
        await grant(
            connection, wallet.id, source=DAILY, reference=now.date().isoformat(), amount=money.daily_claim,
            expires_at=expires_at, description="daily claim",
        )  # fmt: skip
        await _note(connection, "wallet.claim_daily", account_id, wallet)
    return Eligibility(False, state.remaining - 1)


async def daily_state(
    connection: Connection, account_id: UUID, asset_id: UUID, money: MoneySettings, now: datetime
) -> Eligibility:
    """Return whether the account can claim now."""
    wallet = await wallet_of(connection, account_id, asset_id)
    return daily(now, await _claimed(connection, wallet, now), money)


def daily(now: datetime, claimed: set[str], money: MoneySettings) -> Eligibility:
    """Decide a daily claim from the days of this UTC month that were claimed."""
    remaining = max(money.daily_claims_per_month - len(claimed), 0)
    midnight = datetime(now.year, now.month, now.day, tzinfo=UTC) + timedelta(days=1)
    if not money.daily_claim or not money.daily_claims_per_month:
        return Eligibility(False, 0, "This gateway grants no daily credit.")
    if remaining == 0:
        month_end = datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=UTC)
        used = money.daily_claims_per_month
        reason = f"All {used} claims of this month are used; the next month begins at {_z(month_end)}."
        return Eligibility(False, 0, reason, _seconds(month_end - now))
    if now.date().isoformat() in claimed:
        reason = f"Today's credit has been claimed; the next UTC day begins at {_z(midnight)}."
        return Eligibility(False, remaining, reason, _seconds(midnight - now))
    return Eligibility(True, remaining)


async def pending_rewards(connection: Connection, account_id: UUID) -> int:
    """Return how many referred agents have yet to claim their signup bonus."""
    return await COUNT_PENDING.one(connection, account_id)


async def _note(
    connection: Connection, action: str, account_id: UUID, wallet: Wallet | None, **details: object
) -> None:
    """Write a claim down in the log of the account's own organization."""
    home = await default_of(connection, account_id)
    if wallet is not None:
        details["wallet"] = wallet.address
    await record(connection, action, home.id if home else None, account_id, details=details)


async def _claimed(connection: Connection, wallet: Wallet, now: datetime) -> set[str]:
    return set(await CLAIMED_IN_MONTH.all(connection, wallet.id, now.strftime("%Y-%m-")))


async def _reward(
    connection: Connection, referrer: Wallet, referred: Account, money: MoneySettings, expires_at: datetime
) -> None:
    await grant(
        connection, referrer.id, source=REFERRAL, reference=str(referred.id), amount=money.referral_reward,
        expires_at=expires_at, description=f"referral of {referred.name}",
    )  # fmt: skip


async def grant_once(
    connection: Connection, wallet: Wallet, source: str, reference: str, amount: int, expires_at: datetime
) -> None:
    """Grant a bonus that there is once. Raises Conflict the second time, NotEligible where there is none."""
    if not amount:
        raise NotEligible("This gateway grants no such bonus.")
    granted = await grant(
        connection, wallet.id, source=source, reference=reference, amount=amount, expires_at=expires_at
    )
    if granted.verdict == "repeated":
        raise Conflict("This bonus has been claimed before.")


def _seconds(span: timedelta) -> int:
    """Return whole seconds, rounded up: a caller that waits this long must not come too early."""
    return -int(-span.total_seconds() // 1)


def _z(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
