"""What is wrong with a value, in words of ours: the validation library's own speak of its parsers.

What does not live here: which fields there are, and checks with words of their own (gateway/catalog).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# Where an id that somebody has not is to be found, by the name of its parameter.
IDS = {
    "organization_id": "must be the organization's id, a UUID: GET /organizations names yours",
    "plan_id": "must be a plan's id, a UUID: GET /plans names them",
    "publisher_id": "must be the publisher's id, a UUID: it is the `id` that GET /publishers names, not the slug",
    "key_id": "must be the API key's `id`, a UUID, not the key itself: GET /organizations/default/api-keys names yours",
    "asset_id": "must be the asset's id, a UUID: the publisher's `accepted_assets` name theirs",
    "accepted_asset_ids": "must be assets' ids, UUIDs: a publisher's `accepted_assets` name theirs",
    "add_asset_ids": "must be assets' ids, UUIDs: a publisher's `accepted_assets` name theirs",
    "remove_asset_ids": "must be assets' ids, UUIDs: the publisher's `accepted_assets` name them",
    "request_id": "must be a call's id, a UUID: its answer names it as X-Request-Id",
    "session_id": "must be a session's id, a UUID: GET /sessions names yours",
    "member_id": "must be a member's id, a UUID: GET /organizations/{organization_id}/members names them",
    "invite_id": "must be an invitation's id, a UUID: GET /organizations/{organization_id}/invites names them",
    "role_id": "must be a role's id, a UUID: GET /organizations/{organization_id}/roles names them",
    "log_id": "must be an entry's id, a UUID: GET /organizations/{organization_id}/audit-logs names them",
    "webhook_id": "must be a webhook's id, a UUID: GET /organizations/{organization_id}/webhooks names them",
    "delivery_id": "must be a delivery's id, a UUID: GET …/webhooks/{webhook_id}/deliveries names them",
    "provider_id": "must be a provider's id, a UUID: GET /organizations/{organization_id}/oauth/providers names them",
    "charge_id": "must be a charge's `id`, a UUID, as POST …/charges answered it: GET /wallet/transactions has it too",
    "payout_id": "must be a payout's id, a UUID: GET …/publishers/{publisher_id}/payouts names them",
    "project_id": "must be the project's id, a UUID: GET /projects names yours",
    "ip_id": "must be an entry's id, a UUID: GET /projects/{project_id}/ip-allow names them",
    "id": "must be the id of an invoice (GET …/invoices) or of a payment method (GET /billing/payment-methods), a UUID",
    "endpoint_id": "must be a compute endpoint's id, a UUID; there are none: see GET …/consumption",
    "exchange_id": "must be an exchange's id, a UUID: GET /operator/exchanges names those that are open",
}
# What a value must look like that has a form of its own.
FORMS = {
    "payer": "must be an address: 0x and 40 hexadecimal digits",
    "nonce": "must be 32 bytes: 0x and 64 hexadecimal digits",
    "path": "must begin with / and have only visible ASCII characters",
}
ANY_ID = "must be a UUID, such as 01a22b77-5f65-7804-9be5-8d41a38d9571"

WORDS = {
    "string_type": "must be a string",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a smaller number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a number",
    "enum": "must be {expected}",
    "literal_error": "must be {expected}",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
}


def wording(error: Mapping[str, Any]) -> str:
    """Return what is wrong with a value that the validation library refused. The value itself is not repeated."""
    kind = str(error["type"])
    if kind.startswith("uuid_"):
        return IDS.get(_parameter(error["loc"]), ANY_ID)
    if kind == "string_pattern_mismatch":
        return FORMS.get(_parameter(error["loc"]), "does not have the form that it must have")
    if kind == "string_too_short" and error["ctx"]["min_length"] == 1:
        return "must not be empty"
    if kind in WORDS:
        return WORDS[kind].format_map(error.get("ctx", {}))
    return str(error["msg"])


def _parameter(location: Sequence[Any]) -> str:
    return next((part for part in reversed(location) if isinstance(part, str)), "")
