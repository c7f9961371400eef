"""The audit log over the API: what every operation that changes something leaves there, and how it is read."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from gateway.audit.actions import ACTIONS
from gateway.ids import uuid7
from tests.admin_api.conftest import SECRET, Api, Clerk, Member
from tests.support.reference import DOCUMENT

MUTATING = {
    operation["operationId"]: f"{method.upper()} {path}"
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
    if method in ("post", "put", "patch", "delete")
}
ROOT = Path(__file__).resolve().parents[2]
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
OPENAPI = (
    "openapi: 3.0.3\ninfo: {title: A, version: '1'}\npaths: {/a: {get: {responses: {'200': {description: ok}}}}}\n"
)

# What changes something and has no entry, with the reason. Whoever adds an operation names it here, in SCENES or PROVEN.
REASONS = {
    "publisher_root_handler": "a paid call: the ledger is its record",
    "proxy_to_publisher_post": "a paid call: the ledger is its record",
    "onchain_deposit": "a payment: the ledger is its record",
    "facilitator_verify": "changes nothing",
    "facilitator_settle": "a payment of somebody else's: chain.payment is its record",
    "handle_stripe_webhook": "an event: card.event is its record, and what follows from it has entries of its own",
    "estimate_query": "changes nothing",
    "test_new_publisher_connection": "changes nothing",
    "test_publisher_connection": "keeps what the server showed, which nobody decided",
    "signup": "nothing exists before its link is used, which verify_email records",
    "look_at_invitation": "changes nothing",
    "resend_verification_email": "has a letter sent",
    "forgot_password": "has a letter sent",
    "refresh": "goes on with a login; one that ends by it is proven in tests/people/test_trail.py",
}
# Operations whose entry is proven by another test: "file::function".
OF_MEMBERS = "tests/admin_api/test_audit_of_members.py::test_the_life_of_an_organization_is_in_its_log"
OF_CHANGES = "tests/admin_api/test_organizations.py::test_changes_of_members_are_in_the_audit_log"
OF_OAUTH = "tests/admin_api/test_oauth_connections.py::test_the_log_says_who_connected_and_what_was_changed"
OF_INVOICES = "tests/admin_api/test_invoices.py::test_what_is_done_with_an_invoice_is_in_its_organizations_log"
OF_PEOPLE = "tests/people/test_trail.py::test_what_people_do_is_in_the_log"
OF_CHARGES = "tests/admin_api/test_charges.py::test_both_sides_hear_of_it_and_the_publishers_log_has_it"
OF_PAYOUTS = "tests/admin_api/test_payouts.py::test_what_is_queued_can_be_cancelled_once_and_all_of_it_is_in_the_log"
OF_METHODS = "tests/payments/stripe/test_payment_methods.py::test_what_is_done_is_in_the_log"
OF_FOUR_EYES = "tests/operators/test_four_eyes.py::test_all_of_it_is_audited"
OF_OPERATORS = "tests/operators/test_suspensions.py"
OF_OPERATORS += "::test_a_suspended_publisher_sells_nothing_until_an_operator_restores_it"
PROVEN = {
    "create_org_publisher_payout": OF_PAYOUTS,
    "create_payout": OF_PAYOUTS,
    "approve_publisher_payout": OF_PAYOUTS,
    "cancel_publisher_payout": OF_PAYOUTS,
    "change_organization_plan": "tests/admin_api/test_plans.py::test_a_change_is_in_the_audit_log_and_told",
    "create_charge": OF_CHARGES,
    "refund_charge": OF_CHARGES,
    "slash_charge": OF_CHARGES,
    "generate_invoices": OF_INVOICES,
    "issue_invoice": OF_INVOICES,
    "void_invoice": OF_INVOICES,
    "create_payment_intent": OF_INVOICES,
    "update_billing_details": OF_INVOICES,
    "verify_email": OF_PEOPLE,
    "login": OF_PEOPLE,
    "logout": OF_PEOPLE,
    "change_password": OF_PEOPLE,
    "reset_password": OF_PEOPLE,
    "revoke_session": OF_PEOPLE,
    "revoke_other_sessions": OF_PEOPLE,
    "revoke_all_sessions": OF_PEOPLE,
    "create_organization": OF_MEMBERS,
    "update_organization": OF_MEMBERS,
    "delete_organization": OF_MEMBERS,
    "create_organization_role": OF_MEMBERS,
    "update_role": OF_MEMBERS,
    "delete_organization_role": OF_MEMBERS,
    "create_invite": OF_MEMBERS,
    "revoke_invite": OF_MEMBERS,
    "accept_invitation": OF_MEMBERS,
    "decline_invitation": OF_MEMBERS,
    "leave_organization": OF_MEMBERS,
    "resend_invite": "tests/people/test_mailed_invitations.py::test_the_log_says_who_had_a_letter_sent_again",
    "assign_role": OF_CHANGES,
    "remove_member": OF_CHANGES,
    "create_org_oauth_provider": OF_OAUTH,
    "update_org_oauth_provider": OF_OAUTH,
    "delete_org_oauth_provider": OF_OAUTH,
    "revoke_connection": "tests/admin_api/test_oauth_connections.py"
    "::test_a_connection_that_is_ended_by_the_platforms_name_is_in_the_log",
    "revoke_connection_by_id": OF_OAUTH,
    "replay_webhook": "tests/webhooks/test_deliveries.py::test_events_since_a_time_come_again_with_their_ids",
    "replay_webhook_delivery": "tests/webhooks/test_deliveries.py"
    "::test_after_the_last_try_an_event_has_failed_and_can_be_sent_again",
    "add_payment_method": OF_METHODS,
    "delete_payment_method": OF_METHODS,
    "claim_payment_method_bonus": OF_METHODS,
    "create_deposit": "tests/payments/stripe/test_deposits.py::test_the_log_and_webhooks_hear_of_it",
    "suspend": OF_OPERATORS,
    "refund_call": "tests/operators/test_search.py::test_a_settled_call_is_refunded_once_and_both_sides_read_why",
    "restore": OF_OPERATORS,
    "approve_request": OF_FOUR_EYES,
    "decline_request": OF_FOUR_EYES,
    "correct_wallet": "tests/operators/test_corrections.py::test_the_owner_and_the_platform_read_it",
    "resolve_exchange": "tests/faults/test_resolutions.py::test_an_operator_resolves_by_command_and_over_http",
}

Scene = Callable[[Api, Clerk, Member], Awaitable[httpx.Response]]


def of(owner: Member, rest: str = "") -> str:
    return f"/organizations/{owner.organization_id}{rest}"


async def registers(api: Api, _clerk: Clerk, _owner: Member) -> httpx.Response:
    return await api.call("POST", "/auth/agent", json={}, expect=201)


def makes_a_key(path: Callable[[Member], str]) -> Scene:
    async def scene(api: Api, _clerk: Clerk, owner: Member) -> httpx.Response:
        return await api.call("POST", path(owner), owner.key, json={"name": "second"}, expect=201)

    return scene


def changes_a_key(method: str, path: Callable[[Member], str], **options: Any) -> Scene:
    async def scene(api: Api, clerk: Clerk, owner: Member) -> httpx.Response:
        made = (await makes_a_key(path)(api, clerk, owner)).json()["data"]
        return await api.call(method, f"{path(owner)}/{made['id']}", owner.key, expect=200, **options)

    return scene


def changes_a_publisher(
    method: str, rest: str = "", body: Callable[[dict[str, Any]], Any] | None = None, expect: int = 200
) -> Scene:
    async def scene(api: Api, clerk: Clerk, owner: Member) -> httpx.Response:
        made = await clerk.publisher(owner)
        options = {} if body is None else {"json": body(made)}
        return await api.call(method, of(owner, f"/publishers/{made['id']}{rest}"), owner.key, expect=expect, **options)

    return scene


def changes_an_endpoint(method: str, **options: Any) -> Scene:
    async def scene(api: Api, clerk: Clerk, owner: Member) -> httpx.Response:
        made = await clerk.publisher(owner, endpoints=[{"method": "GET", "path": "/x"}])
        path = of(owner, f"/publishers/{made['id']}/endpoints")
        (known,) = (await api.call("GET", path, owner.key, expect=200)).json()["data"]
        return await api.call(method, f"{path}/{known['id']}", owner.key, expect=200, **options)

    return scene


async def makes_a_publisher(api: Api, clerk: Clerk, owner: Member) -> httpx.Response:
    return await api.call("POST", of(owner, "/publishers"), owner.key, json=clerk.order(), expect=201)


def claims(path: str) -> Scene:
    async def scene(api: Api, _clerk: Clerk, owner: Member) -> httpx.Response:
        return await api.call("POST", path, owner.key, expect=200)

    return scene


async def names_a_referrer(api: Api, clerk: Clerk, owner: Member) -> httpx.Response:
    referrer = await clerk.agent()
    code = (await api.call("GET", "/wallet/referral", referrer.key)).json()["data"]["referral_code"]
    return await api.call("POST", "/wallet/referral/apply", owner.key, json={"referral_code": code}, expect=200)


async def sets_up_recovery(api: Api, _clerk: Clerk, owner: Member) -> httpx.Response:
    return await api.call("POST", "/wallet/recovery", owner.key, json={}, expect=200)


async def recovers(api: Api, clerk: Clerk, owner: Member) -> httpx.Response:
    code = (await sets_up_recovery(api, clerk, owner)).json()["data"]["recovery_code"]
    return await api.call("POST", "/wallet/recover", json={"recovery_code": code}, expect=200)


HOOK = {"name": "Ours", "url": "http://127.0.0.1:9/hook", "events": ["*"]}


async def makes_a_webhook(api: Api, _clerk: Clerk, owner: Member) -> httpx.Response:
    return await api.call("POST", of(owner, "/webhooks"), owner.key, json=HOOK, expect=201)


def changes_a_webhook(method: str, rest: str, expect: int, **options: Any) -> Scene:
    async def scene(api: Api, clerk: Clerk, owner: Member) -> httpx.Response:
        made = (await makes_a_webhook(api, clerk, owner)).json()["data"]["webhook"]
        return await api.call(method, of(owner, f"/webhooks/{made['id']}{rest}"), owner.key, expect=expect, **options)

    return scene


async def makes_a_project(api: Api, _clerk: Clerk, owner: Member) -> httpx.Response:
    return await api.call("POST", "/projects", owner.key, json={"name": "One", "region": "local"}, expect=201)


def changes_a_project(method: str, rest: str, expect: int, **options: Any) -> Scene:
    async def scene(api: Api, clerk: Clerk, owner: Member) -> httpx.Response:
        made = (await makes_a_project(api, clerk, owner)).json()["data"]
        return await api.call(method, f"/projects/{made['id']}{rest}", owner.key, expect=expect, **options)

    return scene


async def takes_an_address_out(api: Api, clerk: Clerk, owner: Member) -> httpx.Response:
    body = {"json": {"ip_address": "0.0.0.0/0"}}
    made = (await changes_a_project("POST", "/ip-allow", 201, **body)(api, clerk, owner)).json()["data"]
    path = f"/projects/{made['project_id']}/ip-allow/{made['id']}"
    return await api.call("DELETE", path, owner.key, expect=204)


def keys(owner: Member) -> str:
    return of(owner, "/api-keys")


def default_keys(_owner: Member) -> str:
    return "/organizations/default/api-keys"


BUDGET = {"json": {"budget": {"per_day": "1"}}}
# Operation: the action that it leaves, and how it is done.
SCENES: dict[str, tuple[str, Scene]] = {
    "agent_register": ("account.register", registers),
    "create_org_api_key": ("api_key.create", makes_a_key(keys)),
    "create_default_org_api_key": ("api_key.create", makes_a_key(default_keys)),
    "update_org_api_key": ("api_key.update", changes_a_key("PATCH", keys, **BUDGET)),
    "update_default_org_api_key": ("api_key.update", changes_a_key("PATCH", default_keys, **BUDGET)),
    "revoke_org_api_key": ("api_key.revoke", changes_a_key("DELETE", keys)),
    "revoke_default_org_api_key": ("api_key.revoke", changes_a_key("DELETE", default_keys)),
    "create_publisher": ("publisher.create", makes_a_publisher),
    "update_publisher": ("publisher.update", changes_a_publisher("PUT", body=lambda _: {"name": "New"})),
    "delete_publisher": ("publisher.delete", changes_a_publisher("DELETE")),
    "update_publisher_pricing": (
        "publisher.update_pricing",
        changes_a_publisher(
            "PUT", "/pricing", lambda made: {"asset_id": made["accepted_assets"][0]["id"], "price_per_call": "0.07"}
        ),
    ),
    "upload_publisher_logo": (
        "publisher.upload_logo",
        changes_a_publisher("POST", "/logo", lambda _: {"logo": PNG, "content_type": "image/png"}),
    ),
    "import_publisher_openapi": (
        "publisher.import_openapi",
        changes_a_publisher("POST", "/import-openapi", lambda _: {"document": OPENAPI}),
    ),
    "add_publisher_endpoint": (
        "publisher.add_endpoint",
        changes_a_publisher("POST", "/endpoints", lambda _: {"method": "GET", "path": "/new"}, expect=201),
    ),
    "change_publisher_endpoint": ("publisher.change_endpoint", changes_an_endpoint("PATCH", json={"price": "0.2"})),
    "remove_publisher_endpoint": ("publisher.remove_endpoint", changes_an_endpoint("DELETE")),
    "claim_signup_bonus": ("wallet.claim_signup_bonus", claims("/wallet/bonus/signup")),
    "claim_daily": ("wallet.claim_daily", claims("/wallet/daily/claim")),
    "apply_referral_code": ("wallet.apply_referral", names_a_referrer),
    "set_recovery": ("account.set_recovery", sets_up_recovery),
    "wallet_recover": ("account.recover", recovers),
    "create_webhook": ("webhook.create", makes_a_webhook),
    "update_webhook": ("webhook.update", changes_a_webhook("PATCH", "", 200, json={"name": "New"})),
    "delete_webhook": ("webhook.delete", changes_a_webhook("DELETE", "", 204)),
    "rotate_webhook_secret": ("webhook.rotate_secret", changes_a_webhook("POST", "/rotate-secret", 200)),
    "create_project": ("project.create", makes_a_project),
    "update_project": ("project.update", changes_a_project("PATCH", "", 200, json={"name": "New"})),
    "delete_project": ("project.delete", changes_a_project("DELETE", "", 200)),
    "add_ip_to_allow_list": (
        "ip_allow_list.add",
        changes_a_project("POST", "/ip-allow", 201, json={"ip_address": "0.0.0.0/0"}),
    ),
    "reset_ip_allow_list": (
        "ip_allow_list.update",
        changes_a_project("PUT", "/ip-allow/reset", 200, json={"entries": []}),
    ),
    "remove_ip_from_allow_list": ("ip_allow_list.remove", takes_an_address_out),
    "test_webhook": ("webhook.test", changes_a_webhook("POST", "/test", 202)),
}


async def log_of(api: Api, member: Member, key: str | None = None, **filters: Any) -> list[dict[str, Any]]:
    answer = await api.call("GET", of(member, "/audit-logs"), key or member.key, params=filters, expect=200)
    return answer.json()["data"]["data"]


def test_every_operation_that_changes_something_is_audited_or_has_a_reason() -> None:
    said = [*SCENES, *PROVEN, *REASONS]
    assert sorted(said) == sorted(set(said)), "said twice"
    assert sorted(MUTATING) == sorted(said)


def test_what_is_proven_elsewhere_is_there() -> None:
    for place in PROVEN.values():
        file, _, name = place.partition("::")
        assert f"def {name}(" in (ROOT / file).read_text(), place


@pytest.mark.parametrize("operation", SCENES)
async def test_an_operation_leaves_its_entry(api: Api, clerk: Clerk, operation: str) -> None:
    action, scene = SCENES[operation]
    owner = await clerk.agent()
    answer = await scene(api, clerk, owner)
    row = await api.services.database.read(
        lambda connection: connection.fetchrow(
            "SELECT * FROM audit.entry WHERE request_id = $1", answer.headers["x-request-id"]
        )
    )
    assert row is not None
    assert (row["action"], row["status"], row["actor_type"], row["ip_address"]) == (
        action, "success", "agent", "203.0.113.7",
    )  # fmt: skip
    if operation != "agent_register":
        assert (row["chain"], row["actor_id"]) == (owner.organization_id, owner.id)
    assert row["category"] == ACTIONS[action]


async def test_an_entry_says_what_was_changed_and_never_to_what(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    made = await clerk.publisher(owner, upstream_api_key=SECRET)
    change = {"name": "Another name", "upstream_api_key": SECRET + "2", "price_per_call": "0.09"}
    await api.call("PUT", of(owner, f"/publishers/{made['id']}"), owner.key, json=change, expect=200)
    (entry,) = await log_of(api, owner, action="publisher.update")
    assert entry["metadata"]["changed"] == ["name", "price_per_call", "upstream_api_key"]
    assert (entry["resource_type"], entry["resource_id"]) == ("publisher", made["id"])
    assert entry["metadata"]["slug"] == made["slug"]
    assert entry["metadata"]["before"] != entry["metadata"]["after"]
    assert entry["metadata"]["credential"]["type"] == "api_key"
    assert entry["organization_id"] == str(owner.organization_id)
    assert SECRET not in str(await log_of(api, owner))


async def test_what_fails_leaves_no_entry(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    made = await clerk.publisher(owner)
    before = await log_of(api, owner)
    await api.call("POST", of(owner, "/publishers"), owner.key, json=clerk.order(slug=made["slug"]), expect=409)
    await api.call("PUT", of(owner, f"/publishers/{made['id']}"), owner.key, json={"api_url": "no"}, expect=400)
    await api.call("DELETE", of(owner, f"/publishers/{uuid7()}"), owner.key, expect=404)
    assert await log_of(api, owner) == before


async def test_filters_narrow_together_and_pages_are_newest_first(api: Api, clerk: Clerk) -> None:
    owner, colleague = await clerk.agent(), await clerk.agent()
    await clerk.join(colleague, owner.organization_id, "editor")
    made = await clerk.publisher(owner)
    for number in range(3):
        body = {"name": f"Name {number}"}
        await api.call("PUT", of(owner, f"/publishers/{made['id']}"), colleague.key, json=body, expect=200)
    every = await log_of(api, owner)
    assert [entry["action"] for entry in every] == ["publisher.update"] * 3 + ["publisher.create", "account.register"]
    cases: list[tuple[dict[str, Any], int]] = [
        ({"actor_id": str(colleague.id)}, 3),
        ({"action": "publisher.create"}, 1),
        ({"resource_type": "publisher"}, 4),
        ({"resource_id": made["id"], "actor_id": str(owner.id)}, 1),
        ({"status": "denied"}, 0),
        ({"action_category": "access"}, 1),
        ({"start_date": every[1]["created_at"]}, 2),
        ({"end_date": every[1]["created_at"]}, 3),
        ({"start_date": every[-1]["created_at"][:10], "end_date": every[0]["created_at"][:10]}, 5),
        ({"end_date": "2020-01-01"}, 0),
    ]
    for filters, number in cases:
        assert len(await log_of(api, owner, **filters)) == number, filters
    answer = await api.call("GET", of(owner, "/audit-logs"), owner.key, params={"limit": 2, "offset": 1}, expect=200)
    page = answer.json()["data"]
    assert (page["total"], page["limit"], page["offset"], page["data"]) == (5, 2, 1, every[1:3])
    for wrong in ({"limit": 101}, {"limit": 0}, {"offset": -1}, {"start_date": "soon"}, {"actor_id": "me"}):
        await api.call("GET", of(owner, "/audit-logs"), owner.key, params=wrong, expect=400)


async def test_an_entry_is_found_in_its_own_organization_only(api: Api, clerk: Clerk) -> None:
    owner, stranger = await clerk.agent(), await clerk.agent()
    (entry,) = await log_of(api, owner)
    answer = await api.call("GET", of(owner, f"/audit-logs/{entry['id']}"), owner.key, expect=200)
    assert answer.json()["data"] == entry
    await api.call("GET", of(stranger, f"/audit-logs/{entry['id']}"), stranger.key, expect=404)
    await api.call("GET", of(owner, f"/audit-logs/{entry['id']}"), stranger.key, expect=403)


async def test_a_refused_member_is_in_the_log_and_a_stranger_is_not(api: Api, clerk: Clerk) -> None:
    owner, viewer, stranger = await clerk.agent(), await clerk.agent(), await clerk.agent()
    await clerk.join(viewer, owner.organization_id, "viewer")
    refused = await api.call("POST", keys(owner), viewer.key, json={"name": "mine"}, expect=403)
    await api.call("POST", keys(owner), stranger.key, json={"name": "mine"}, expect=403)
    await api.call("GET", keys(owner), stranger.key, expect=403)
    (entry,) = await log_of(api, owner, status="denied")
    assert (entry["action"], entry["actor_id"]) == ("permission.deny", str(viewer.id))
    assert entry["request_id"] == refused.headers["x-request-id"]
    assert entry["error_message"] == refused.json()["detail"]
    assert entry["metadata"]["permission"] == "api_keys.create"
    assert entry["metadata"]["operation"] == "create_org_api_key"


async def test_an_export_has_every_entry_in_order(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    formula = {"User-Agent": '=HYPERLINK("http://evil.example")'}
    await api.call("POST", keys(owner), owner.key, json={"name": "one"}, headers=formula, expect=201)
    await clerk.publisher(owner)
    path = of(owner, "/audit-logs/export")
    lines = await api.call("GET", path, owner.key, expect=200)
    assert lines.headers["content-type"].startswith("application/x-ndjson")
    documents = [json.loads(line) for line in lines.text.splitlines()]
    assert [one["sequence"] for one in documents] == [1, 2, 3]
    shown = [{name: value for name, value in one.items() if name not in ("sequence", "digest")} for one in documents]
    assert shown == (await log_of(api, owner))[::-1]
    table = await api.call("GET", path, owner.key, params={"format": "csv", "action": "api_key.create"}, expect=200)
    (row,) = csv.DictReader(io.StringIO(table.text))
    assert row["id"] == documents[1]["id"]
    assert row["user_agent"] == "'" + formula["User-Agent"], "a spreadsheet would run it"
    assert UUID(row["resource_id"])
    await api.call("GET", path, owner.key, params={"format": "xml"}, expect=400)
