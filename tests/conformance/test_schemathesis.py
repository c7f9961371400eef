"""Schemathesis against a running gateway: whatever it makes up, no fault of ours, and only answers that are declared.

Checked per answer: no server error, a declared status and media type, a body that fits its schema, rejection of bodies
that do not fit theirs, 405 with Allow for other methods, 401 where a credential is needed. Seed and size are fixed, but
for who explores further: TOLLWAY_FUZZ_SEED=7 TOLLWAY_FUZZ_EXAMPLES=100 pytest tests/conformance/test_schemathesis.py
(TOLLWAY_FUZZ_SERVER=hypercorn takes another server).
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.conformance.fuzz import DESTRUCTIVE, Fuzzer, Known, Outcome
from tests.conformance.shapes import operations
from tests.support.gateway import RunningGateway
from tests.support.reference import DOCUMENT
from tests.support.world import Agent

SPARED = tuple(word for one in DESTRUCTIVE for word in ("--exclude-operation-id", one))
# Why an operation need not succeed here.
MAY_FAIL = {
    "POST /wallet/deposit": "no card rail",
    "POST /organizations/{organization_id}/plan": "no card rail, so no payment method",
    "POST /webhooks/stripe": "no card rail",
    "POST /billing/payment-methods": "no card rail",
    "DELETE /billing/payment-methods/{id}": "no card rail, so nothing is stored",
    "POST /wallet/deposit/crypto": "no chain rail",
    "POST /payments/verify": "no chain rail",
    "POST /payments/settle": "no chain rail",
    "GET /payments": "no chain rail, so no payment to find",
    "GET /payments/{payment_id}": "no chain rail, so no payment to find",
    "GET /wallet/challenge": "no chain rail to prove a wallet for",
    "POST /wallet/bonus/payment-method": "no card rail",
    "POST /wallet/referral/apply": "codes cannot be guessed",
    "POST /organizations/{organization_id}/publishers/{publisher_id}/payouts": "no chain rail",
    "POST /organizations/{organization_id}/publishers/{publisher_id}/payouts/{payout_id}/approve": "no payout to find",
    "POST /organizations/{organization_id}/publishers/{publisher_id}/payouts/{payout_id}/cancel": "no payout to find",
    **{
        f"{method} /organizations/{{organization_id}}/publishers/{{publisher_id}}/endpoints/{{endpoint_id}}": (
            "ids of endpoints cannot be guessed"
        )
        for method in ("GET", "PATCH", "DELETE")
    },
    "POST /billing/publishers/{slug}/payouts": "no chain rail",
    "GET /billing/publishers/{slug}/payouts/{payout_id}": "no chain rail, so no payout to find",
    "GET /organizations/{organization_id}/billing/endpoints/{endpoint_id}/events": "there are no computes",
    "GET /billing/invoices/{id}": "there is no invoice",
    "GET /billing/invoices/{id}/html": "there is no invoice",
    "GET /billing/invoices/{id}/pdf": "there is no invoice",
    "GET /billing/invoices/{id}/payments": "there is no invoice",
    "POST /billing/invoices/{id}/issue": "there is no invoice",
    "POST /billing/invoices/{id}/void": "there is no invoice",
    "POST /billing/invoices/{id}/pay": "there is no invoice",
    "POST /billing/invoices/generate": "it is the operator's",
    "POST /operator/exchanges/{exchange_id}/resolve": "nothing is open",
    "GET /operator/calls/{request_id}": "request ids cannot be guessed",
    "POST /operator/calls/{request_id}/refund": "request ids cannot be guessed",
    "POST /operator/wallets/{wallet}/corrections": "wallets cannot be guessed",
    "GET /operator/wallets/{wallet}/corrections": "wallets cannot be guessed",
    "POST /operator/approvals/{id}/approve": "nothing waits",
    "POST /operator/approvals/{id}/decline": "nothing waits",
    "POST /operator/suspensions": "names cannot be guessed",
    "POST /operator/suspensions/restore": "nothing is suspended",
    "POST /billing/publishers/{slug}/charges": "no operator has named a first-party service",
    "GET /billing/publishers/{slug}/charges/{charge_id}": "nothing was charged",
    "POST /billing/publishers/{slug}/charges/{charge_id}/refund": "nothing was charged",
    "POST /billing/publishers/{slug}/charges/{charge_id}/slash": "nothing was charged",
    "GET /wallet/lookup/{agent_wallet}": "no operator has named a first-party service",
    "POST /auth/login": "passwords cannot be guessed",
    "POST /auth/password": "an API key is no login",
    "POST /auth/logout": "an API key is no login",
    "POST /auth/refresh": "tokens cannot be guessed",
    "POST /auth/verify-email": "tokens cannot be guessed",
    "POST /auth/reset-password": "tokens cannot be guessed",
    "DELETE /sessions/{session_id}": "an API key has no session",
    "POST /sessions/{session_id}/revoke-others": "an API key has no session",
    "GET /publishers/{slug}/logo": "made-up pictures are refused, so there may be none",
    "DELETE /organizations/{organization_id}": "an agent's own organization stays",
    "POST /organizations/{organization_id}/leave": "an account stays in its own organization",
    "DELETE /organizations/{organization_id}/members/{member_id}": "there is no other member",
    "PUT /organizations/{organization_id}/members/{member_id}/role": "there is no other member",
    "POST /invitations/accept": "tokens cannot be guessed",
    "POST /invitations/decline": "tokens cannot be guessed",
    "POST /invitations/look": "tokens cannot be guessed",
    "POST /organizations/{organization_id}/invites/{invite_id}/resend": "ids of open invitations cannot be guessed",
    "POST /organizations/{organization_id}/webhooks/{webhook_id}/deliveries/{delivery_id}/replay": "nothing was sent",
    "GET /oauth/{provider}/authorize": "no provider is defined",
    "GET /oauth/providers/{provider_id}/authorize": "no provider is defined",
    "GET /oauth/{provider}/callback": "no provider is defined",
    "GET /oauth/providers/{provider_id}/callback": "no provider is defined",
    "DELETE /oauth/connections/{provider}": "nothing is connected",
    "DELETE /oauth/connections/providers/{provider_id}": "nothing is connected",
    "GET /projects/{project_id}/connection_uri": "there is nothing to connect to",
    "DELETE /projects/{project_id}/ip-allow/{ip_id}": "ids of entries cannot be guessed",
    "POST /publishers/{slug}/estimate": "slug and publisher_id must agree",
}


@pytest.fixture
def fuzzer(gateway: RunningGateway, known: Known) -> Fuzzer:
    seed, examples = os.environ.get("TOLLWAY_FUZZ_SEED", "1"), os.environ.get("TOLLWAY_FUZZ_EXAMPLES", "8")
    return Fuzzer(gateway.url, known, int(seed), int(examples))


def every_operation() -> dict[str, Any]:
    return operations(DOCUMENT)


def succeeded(outcome: Outcome) -> set[str]:
    return {name for name, statuses in outcome.statuses.items() if any(200 <= status < 400 for status in statuses)}


async def test_without_a_credential(fuzzer: Fuzzer) -> None:
    outcome = await fuzzer.run(phases="fuzzing")
    assert outcome.clean, outcome.report
    assert outcome.statuses.keys() == every_operation().keys()


@pytest.mark.slow
async def test_with_an_agents_key(fuzzer: Fuzzer, agent: Agent) -> None:
    outcome = await fuzzer.run(*SPARED, key=agent.key, phases="examples,coverage,fuzzing,stateful")
    assert outcome.clean, outcome.report
    spared = {name for name, operation in every_operation().items() if operation["id"] in DESTRUCTIVE}
    assert every_operation().keys() - spared - succeeded(outcome) <= MAY_FAIL.keys()


@pytest.mark.slow
async def test_with_a_key_of_an_organization(fuzzer: Fuzzer, gateway: RunningGateway, agent: Agent) -> None:
    """The last: it revokes keys, its own among them, and deletes publishers."""
    path = f"/organizations/{agent.organization_id}/api-keys"
    made = await gateway.client.post(path, headers=agent.headers, json={"name": "fuzzer"})
    key = made.json()["data"]["api_key"]
    outcome = await fuzzer.run(
        "--include-path-regex", "^/organizations|^/projects|^/wallet/recover", key=key, phases="fuzzing,stateful"
    )
    assert outcome.clean, outcome.report
    assert "DELETE /organizations/{organization_id}/publishers/{publisher_id}" in succeeded(outcome)
