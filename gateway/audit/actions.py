"""Every action that is audited, as `resource.action`, with its category. An action that is not here is not recorded:
`record` refuses it, so that filters and the documentation know them all.
"""

from __future__ import annotations

from typing import Literal

Category = Literal["access", "catalog", "money", "settings"]

_ACCESS = (
    *("account.register", "account.verify_email", "account.update", "account.change_password"),
    *("account.reset_password", "account.recover", "account.set_recovery", "account.delete"),
    *("api_key.create", "api_key.update", "api_key.revoke"),
    *("account.suspend", "account.restore", "api_key.suspend", "api_key.restore"),
    *("invitation.create", "invitation.accept", "invitation.decline", "invitation.revoke", "invitation.resend"),
    *("member.add", "member.remove", "member.leave", "member.assign_role"),
    *("role.create", "role.update", "role.delete"),
    *("session.create", "session.revoke", "session.revoke_others", "session.revoke_all"),
    *("oauth_provider.create", "oauth_provider.update", "oauth_provider.delete"),
    *("oauth_connection.create", "oauth_connection.revoke"),
    "permission.deny",
    *("ip_allow_list.add", "ip_allow_list.remove", "ip_allow_list.update"),
)
_CATALOG = (
    *("publisher.create", "publisher.update", "publisher.delete", "publisher.update_pricing"),
    *("publisher.upload_logo", "publisher.import_openapi", "publisher.first_party"),
    *("publisher.suspend", "publisher.restore"),
    *("publisher.add_endpoint", "publisher.change_endpoint", "publisher.remove_endpoint"),
)
_MONEY = (
    *("wallet.claim_signup_bonus", "wallet.claim_payment_method_bonus", "wallet.claim_daily"),
    *("wallet.apply_referral", "wallet.deposit", "wallet.grant"),
    *("wallet.suspend", "wallet.restore", "wallet.correct"),
    *("approval.request", "approval.approve", "approval.decline"),
    *("charge.create", "charge.refund", "charge.slash"),
    *("invoice.generate", "invoice.issue", "invoice.begin_payment", "invoice.pay", "invoice.void"),
    *("invoice.refund", "invoice.refund_back", "invoice.dispute", "invoice.dispute_lost", "invoice.dispute_won"),
    *("invoice.fail", "invoice.arrive"),
    *("payout.create", "payout.approve", "payout.retry", "payout.cancel", "payout.complete", "payout.fail"),
    *("purchase.forgive", "purchase.fund", "purchase.withdraw"),
    *(
        "deposit.create",
        "deposit.complete",
        "deposit.suspend",
        "deposit.refund",
        "deposit.refund_back",
        "deposit.give_back",
    ),
    *("payment_method.add", "payment_method.remove"),
    *("deposit.dispute", "deposit.dispute_won", "deposit.dispute_lost"),
    *("deposit.fail", "deposit.arrive"),
    *("payout.create", "exchange.resolve", "exchange.refund"),
    "plan.change",
)
_SETTINGS = (
    *("organization.create", "organization.update", "organization.delete", "organization.change_owner"),
    *("organization.suspend", "organization.restore"),
    "billing_details.update",
    *("webhook.create", "webhook.update", "webhook.delete", "webhook.rotate_secret", "webhook.disable"),
    *("webhook.test", "webhook.replay"),
    *("project.create", "project.update", "project.delete"),
    "credential.rotate",
)

ACTIONS: dict[str, Category] = {
    **dict.fromkeys(_ACCESS, "access"),
    **dict.fromkeys(_CATALOG, "catalog"),
    **dict.fromkeys(_MONEY, "money"),
    **dict.fromkeys(_SETTINGS, "settings"),
}
