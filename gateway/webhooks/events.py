"""Every event type, and which audited actions are events.

An event that belongs to a change is written by `record` (gateway/audit/entries.py) in the transaction of the change.
The others come from jobs, which derive them from what calls and payments write anyway.
"""

from __future__ import annotations

EVENT_OF_ACTION: dict[str, str] = {
    "account.recover": "account.recovered",
    "api_key.create": "api_key.created",
    "api_key.update": "api_key.updated",
    "api_key.revoke": "api_key.revoked",
    "charge.create": "charge.created",
    "charge.refund": "charge.refunded",
    "charge.slash": "charge.slashed",
    "deposit.complete": "deposit.completed",
    "deposit.fail": "deposit.failed",
    "deposit.refund": "deposit.refunded",
    "deposit.dispute": "deposit.disputed",
    "deposit.dispute_won": "deposit.dispute_closed",
    "deposit.dispute_lost": "deposit.dispute_closed",
    "invitation.create": "invitation.created",
    "member.add": "member.added",
    "member.remove": "member.removed",
    "member.leave": "member.removed",
    "member.assign_role": "member.role_changed",
    "organization.update": "organization.updated",
    "plan.change": "plan.changed",
    "payout.create": "payout.requested",
    "payout.approve": "payout.approved",
    "payout.cancel": "payout.cancelled",
    "payout.complete": "payout.completed",
    "payout.fail": "payout.failed",
    "publisher.create": "publisher.created",
    "publisher.update": "publisher.updated",
    "publisher.update_pricing": "publisher.pricing_updated",
    "publisher.import_openapi": "publisher.updated",
    "publisher.add_endpoint": "publisher.updated",
    "publisher.change_endpoint": "publisher.updated",
    "publisher.remove_endpoint": "publisher.updated",
    "publisher.upload_logo": "publisher.updated",
    "publisher.delete": "publisher.deleted",
    "project.create": "project.created",
    "project.update": "project.updated",
    "project.delete": "project.deleted",
    "ip_allow_list.add": "project.ip_allow_list_updated",
    "ip_allow_list.remove": "project.ip_allow_list_updated",
    "ip_allow_list.update": "project.ip_allow_list_updated",
    "wallet.claim_signup_bonus": "wallet.credited",
    "wallet.claim_daily": "wallet.credited",
    "wallet.claim_payment_method_bonus": "wallet.credited",
    "wallet.grant": "wallet.credited",
    "webhook.disable": "webhook.disabled",
    "webhook.rotate_secret": "webhook.secret_rotated",
    "publisher.first_party": "publisher.updated",
}
DEPOSIT_COMPLETED = "deposit.completed"
LOW_BALANCE = "wallet.low_balance"
BUDGET_REACHED = "api_key.budget_reached"
QUOTA_REACHED = "quota.reached"
TEST = "webhook.test"
"""Sent when somebody asks for it, to one endpoint, whatever that has subscribed to."""

MEANINGS: dict[str, str] = {
    "account.recovered": "An agent of the organization has used its recovery code: all its keys are new.",
    "api_key.created": "An API key was made.",
    "api_key.updated": "What an API key may spend was changed.",
    "api_key.revoked": "An API key was revoked.",
    BUDGET_REACHED: "An API key has spent what it may in this day or month.",
    DEPOSIT_COMPLETED: "A deposit by card or on a chain has arrived.",
    "deposit.failed": "A payment failed after it was credited: what was left of it was taken back, the rest is owed.",
    "deposit.refunded": "Money of a card deposit went back to its card.",
    "deposit.disputed": "A bank asks the money of a card deposit back: what is left of it is frozen.",
    "deposit.dispute_closed": "A bank has decided; `won` says whether the money stays.",
    "invitation.created": "Somebody was invited.",
    "invoice.issued": "An invoice was issued; from now on nothing of it changes.",
    "invoice.paid": "An invoice was paid, or issued with nothing due.",
    "invoice.due_again": "Money of a paid invoice went back, so that much is due again; `reason` says why.",
    "member.added": "Somebody has joined the organization.",
    "member.removed": "Somebody has left the organization, or was removed.",
    "member.role_changed": "A member has another role.",
    "organization.updated": "The organization was renamed.",
    "plan.changed": "The organization has another plan, or will have one from the next month on.",
    "payout.requested": "A payout was requested; `needs_approval` says whether it waits for a second member.",
    "payout.approved": "A second member has let a payout go.",
    "payout.cancelled": "A payout was cancelled; its money is back in the earnings.",
    "payout.completed": "A payout has arrived, by `transaction`, in a block that is final.",
    "payout.failed": "A payout cannot be made, `reason` says why; its money is back in the earnings.",
    "project.created": "A project was made.",
    "project.updated": "A project's settings were changed.",
    "project.deleted": "A project was deleted.",
    "project.ip_allow_list_updated": "From where a project is reached was changed.",
    "publisher.created": "A publisher was created.",
    "publisher.updated": "A publisher was changed.",
    "publisher.pricing_updated": "Prices of a publisher were changed.",
    "publisher.deleted": "A publisher was deleted.",
    QUOTA_REACHED: "80 % of the paid calls that the plan includes in this month are used, or all of them.",
    "wallet.credited": "A bonus, a daily claim or a grant was credited.",
    LOW_BALANCE: "A wallet has fallen below what TOLLWAY_WEBHOOKS_LOW_BALANCE says.",
    "charge.created": "A first-party service has charged an agent directly: told to both.",
    "charge.refunded": "A direct charge was given back, with its penalties: told to both.",
    "charge.slashed": "A penalty was taken for a direct charge: told to both.",
    "webhook.disabled": "A webhook was switched off because it had failed for too long, or answered 410.",
    "webhook.secret_rotated": "A webhook has a new secret; the one before it signs too for 24 hours.",
    TEST: "Somebody tries a webhook.",
}
EVENT_TYPES = sorted(MEANINGS)
ALL = "*"
