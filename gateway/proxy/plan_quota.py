"""What the plan of the caller's organization still includes: asked with the money, refused before anything is sent."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from gateway.billing import quotas
from gateway.billing.budgets import next_month
from gateway.errors import QuotaExceeded
from gateway.identity.principals import Principal
from gateway.ledger.counters import Counter
from gateway.ledger.exchanges import ChargeVerdict, HoldVerdict


def plan_counters(principal: Principal | None) -> tuple[Counter, ...]:
    """Return what a paid call of a caller counts towards its organization's plan."""
    if principal is None or principal.plan is None:
        return ()
    return quotas.counters(principal.organization_id, principal.plan, datetime.now(UTC).date())


def check_quota(principal: Principal | None, verdict: ChargeVerdict | HoldVerdict) -> None:
    """Raise QuotaExceeded where the ledger says that the plan includes no more."""
    if verdict.verdict != "beyond" or verdict.kind != quotas.KIND or principal is None or principal.plan is None:
        return
    plan, resets_at = principal.plan, next_month(datetime.now(UTC).date())
    included, resets = plan.included_calls or 0, f"{resets_at:%Y-%m-%dT%H:%M:%SZ}"
    wait = max(int(resets_at.timestamp() - time.time()) + 1, 1)
    raise QuotaExceeded(
        f"The plan {plan.display_name} of your organization includes {included} paid calls a month, and"
        f" {verdict.counted} are used; it begins anew at {resets}. To go on before, change the plan: GET /plans, POST"
        f" /organizations/{principal.organization_id}/plan. Nothing was sent or charged.",
        headers={"Retry-After": str(wait)},
        plan=plan.name,
        included=included,
        used=verdict.counted,
        resets_at=resets,
        retry_after=wait,
    )
