"""One body per operation as the OpenAPI document shows it: ready to send, once the ids in it are yours.

tests/conformance sends each of them. Nothing here is or looks like a secret.
"""

from __future__ import annotations

from typing import Any

# Ids of nothing that exists.
PUBLISHER = "0198c2a4-7d3e-7cc1-9a55-2f6f0f7a9e10"
USDC_ON_BASE_SEPOLIA = "814c96c3-02aa-5713-a56f-98e066b6afa0"

# An x402 payment for somebody's offer, its signature and nonce cut short.
_OFFER: dict[str, Any] = {
    "scheme": "exact",
    "network": "eip155:84532",
    "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
    "amount": "10000",
    "payTo": "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
    "maxTimeoutSeconds": 300,
    "extra": {"name": "USDC", "version": "2"},
}
_PAYMENT: dict[str, Any] = {
    "x402Version": 2,
    "paymentRequirements": _OFFER,
    "paymentPayload": {
        "x402Version": 2,
        "accepted": _OFFER,
        "payload": {
            "signature": "0x2d6a…1b",
            "authorization": {
                "from": "0x857b06519E91e3A54538791bDbb0E22373e36b66",
                "to": _OFFER["payTo"],
                "value": _OFFER["amount"],
                "validAfter": "1766000000",
                "validBefore": "1766000300",
                "nonce": "0xf374…98",
            },
        },
    },
}

REQUESTS: dict[str, dict[str, Any]] = {
    "agent_register": {"name": "price-watcher"},
    "signup": {"email": "ada@example.com", "password": "<your password>", "name": "Ada Lovelace"},
    "verify_email": {"token": "<the letter's token>"},
    "resend_verification_email": {"email": "ada@example.com"},
    "login": {"email": "ada@example.com", "password": "<your password>"},
    "refresh": {"refresh_token": "<the last refresh token>"},
    "change_password": {"current_password": "<your password>", "new_password": "<another one>"},
    "forgot_password": {"email": "ada@example.com"},
    "reset_password": {"token": "<the letter's token>", "new_password": "<another one>"},
    "create_organization": {"name": "Weather Ltd"},
    "update_organization": {"name": "Weather and Tides Ltd"},
    "change_organization_plan": {"plan_id": "0199c0de-0000-7000-8000-000000000002"},
    "create_invite": {"email": "colleague@example.com", "role": "editor"},
    "look_at_invitation": {"invitation": "XXXXXXXX"},
    "accept_invitation": {"invitation": "XXXXXXXX"},
    "decline_invitation": {"invitation": "XXXXXXXX"},
    "assign_role": {"role_name": "viewer"},
    "create_organization_role": {
        "name": "accountant",
        "description": "Sees what is earned and asks for payouts.",
        "permissions": ["org.read", "publishers.read", "earnings.read", "payouts.create"],
    },
    "update_role": {"permissions": ["org.read", "publishers.read", "earnings.read"]},
    "create_default_org_api_key": {"name": "nightly job", "expires_in_days": 90, "scopes": ["buy", "wallet.read"]},
    "create_webhook": {
        "name": "Operations",
        "url": "https://example.com/tollway",
        "events": ["publisher.updated", "api_key.created"],
    },
    "create_project": {"name": "Tides", "region": "local", "compute_unit_min": 1, "compute_unit_max": 4},
    "update_project": {"name": "Tides and winds", "history_retention_seconds": 86400},
    "add_ip_to_allow_list": {"ip_address": "203.0.113.0/24", "description": "The office"},
    "reset_ip_allow_list": {
        "entries": [
            {"ip_address": "203.0.113.0/24", "description": "The office"},
            {"ip_address": "2001:db8:7::/48", "description": "The build servers"},
        ]
    },
    "replay_webhook": {"since": "2026-11-30T00:00:00Z", "only_failed": True},
    "update_webhook": {"name": "Operations", "events": ["*"]},
    "create_org_api_key": {
        "name": "nightly job",
        "expires_in_days": 90,
        "budget": {"per_call": "0.05", "per_day": "1.00", "per_month": "20.00"},
    },
    "update_default_org_api_key": {"budget": {"per_day": "2.50"}},
    "update_org_api_key": {"budget": {"per_day": "2.50", "per_month": None}, "ip_allow_list": None},
    "create_org_oauth_provider": {
        "name": "Notes",
        "slug": "notes",
        "authorization_url": "https://id.example.com/authorize",
        "token_url": "https://id.example.com/token",
        "revocation_url": "https://id.example.com/revoke",
        "client_id": "tollway",
        "client_secret": "<the client's secret>",
        "scopes": ["notes.read"],
    },
    "update_org_oauth_provider": {"scopes": ["notes.read", "notes.write"]},
    "generate_invoices": {"month": 10, "year": 2026},
    "void_invoice": {"reason": "The address was wrong."},
    "update_billing_details": {
        "legal_name": "Weather Ltd",
        "address": "1 Harbour Road\nCork T12 X70A",
        "country": "IE",
        "tax_id": "IE1234567FA",
    },
    "create_deposit": {"amount_cents": 2000},
    "add_payment_method": {"stripe_payment_method_id": "pm_1PgafmB7WZ01zgkW6dKueIc5", "set_as_default": True},
    "create_charge": {
        "agent_wallet": "agent:01a22b77-5f65-7804-9be5-8d41a38d9571",
        "amount_atomic": 250000,
        "description": "2 hours of a compute endpoint",
        "idempotency_key": "b0c0a4b8-3e3c-4c0e-9b7b-0d2f6f1f4a11",
    },
    "refund_charge": {"reason": "The endpoint was not reachable."},
    "slash_charge": {"slash_amount_atomic": 50000, "reason": "The reserved capacity was not released."},
    "onchain_deposit": {"publisher_id": PUBLISHER, "amount": "5.00"},
    "set_recovery": {"email": "owner@example.com"},
    "wallet_recover": {"recovery_code": "XXXX-XXXX-XXXX-XXXX-XXXX-XXXX"},
    "apply_referral_code": {"referral_code": "XXXXXXXX"},
    "add_publisher_endpoint": {"method": "GET", "path": "/towns/{town}", "price": "0.002"},
    "change_publisher_endpoint": {"price": "0.003", "refund_rules": {"empty_result": "observations"}},
    "import_publisher_openapi": {
        "document": "openapi: 3.1.0\ninfo: {title: Weather, version: '1'}\npaths:\n  /towns/{town}:\n    get:\n"
        "      summary: The weather of a town\n      x-payment-info: {price: {amount: '0.01', currency: USD}}\n"
        "      responses: {'200': {description: The weather}}\n",
        "dry_run": True,
    },
    "create_publisher": {
        "name": "Weather",
        "slug": "weather",
        "publisher_category": "integration",
        "integration_type": "api",
        "description": "Hourly forecasts for any place.",
        "api_url": "https://api.example.com/v1",
        "wallet_address": "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "wallet_network_id": "eip155:84532",
        "billing_model": "prepaid_credits",
        "price_per_call": "0.002",
        "endpoints": [
            {"method": "GET", "path": "/forecast/{place}", "description": "The next 48 hours.", "price": "0.005"},
        ],
    },
    "update_publisher": {"description": "Hourly forecasts for any place on land.", "price_per_call": "0.003"},
    "update_publisher_pricing": {"asset_id": USDC_ON_BASE_SEPOLIA, "price_per_get": "0.001", "price_per_post": "0.004"},
    "test_new_publisher_connection": {"api_url": "https://api.example.com/v1", "path": "/forecast/berlin"},
    "test_publisher_connection": {"path": "/forecast/berlin"},
    "create_org_publisher_payout": {"asset_id": USDC_ON_BASE_SEPOLIA},
    "create_payout": {
        "amount_atomic": 25000000,
        "destination_wallet": "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "description": "Earnings of October",
        "idempotency_key": "6f1b1d4e-9a3c-4a58-9c0e-2b8f4b7d3c55",
    },
    "upload_publisher_logo": {
        "content_type": "image/png",
        "logo": "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
    },
    "estimate_query": {"publisher_id": PUBLISHER, "query": "GET /forecast/berlin"},
    "publisher_root_handler": {"query": "SELECT 1"},
    "facilitator_verify": _PAYMENT,
    "facilitator_settle": _PAYMENT,
    "refund_call": {"reason": "The answer was empty; the publisher agrees."},
    "decline_request": {"note": "The case says another amount."},
    "correct_wallet": {
        "direction": "credit",
        "amount_atomic": "250000",
        "reference": "case-4711",
        "reason": "The deposit of 3 May was credited twice to another account.",
    },
    "suspend": {"kind": "publisher", "subject": "no-such-shop", "reason": "It sells data that is not its own."},
    "restore": {"kind": "publisher", "subject": "no-such-shop", "note": "It has shown the licence."},
    "resolve_exchange": {"decision": "refund", "note": "The upstream confirms that it never saw the call."},
}
