"""Webhooks from the change to the receiver, which verifies with the published library."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from standardwebhooks import WebhookVerificationError

from gateway.webhooks.events import EVENT_TYPES
from tests.webhooks.conftest import Stage


async def test_a_change_arrives_signed_and_is_in_the_log(stage: Stage) -> None:
    hook = await stage.hook("api_key.created")
    await hook.happens("fresh")
    (message,) = await stage.receiver.waits_for(1)
    event = message.opened(hook.secret)
    assert event["type"] == "api_key.created"
    assert event["data"]["name"] == "fresh"
    assert event["data"]["organization_id"] == str(hook.owner.organization_id)
    assert event["data"]["actor"] == {"type": "agent", "id": str(hook.owner.id)}
    assert (message.headers["content-type"], message.headers["user-agent"]) == ("application/json", "tollway")
    (row,) = await hook.deliveries(1)
    assert (row["event_id"], row["payload"], row["response_status"]) == (message.id, event, 204)
    assert (row["attempt_number"], row["error_message"], row["next_retry_at"]) == (1, None, None)
    assert row["delivered_at"]
    with pytest.raises(WebhookVerificationError):
        message.opened("whsec_" + "A" * 44)
    secret = await stage.connection.fetchval("SELECT secret FROM webhook.endpoint WHERE id::text = $1", hook.id)
    assert hook.secret.removeprefix("whsec_").encode() not in secret


async def test_only_what_was_subscribed_and_committed_is_sent(stage: Stage) -> None:
    hook = await stage.hook("api_key.created")
    stranger = await stage.world.agent()
    await stage.makes_key(stranger, "of another organization")
    path = f"/organizations/{hook.owner.organization_id}/publishers"
    answer = await stage.gateway.client.post(path, headers=hook.owner.headers, json={"name": "x"})
    assert answer.status_code == 400
    await hook.happens("theirs")
    (message,) = await stage.receiver.waits_for(1)
    assert message.opened(hook.secret)["data"]["name"] == "theirs"
    assert await stage.connection.fetchval(
        "SELECT count(*) FROM webhook.event WHERE organization_id = $1", hook.owner.organization_id
    ) == 1  # fmt: skip


async def test_two_failures_and_a_success_are_three_tries_of_one_event(stage: Stage) -> None:
    hook = await stage.hook()
    stage.receiver.fresh(500, 503)
    await hook.happens()
    tries = await stage.receiver.waits_for(3)
    assert len({message.id for message in tries}) == 1
    assert [message.opened(hook.secret)["type"] for message in tries] == ["api_key.created"] * 3
    log = await hook.deliveries(3)
    assert [(row["attempt_number"], row["response_status"]) for row in log] == [(3, 204), (2, 503), (1, 500)]
    assert [row["error_message"] for row in log] == [
        None, "the receiver answered 503", "the receiver answered 500",
    ]  # fmt: skip
    assert log[2]["next_retry_at"]
    state = await stage.connection.fetchval("SELECT state FROM webhook.delivery WHERE endpoint_id::text = $1", hook.id)
    assert state == "delivered"


async def test_first_tries_come_in_order_and_a_failed_one_holds_up_none(stage: Stage) -> None:
    hook = await stage.hook("api_key.created")
    stage.receiver.fresh(500)
    for number in range(4):
        await hook.happens(f"key {number}")
    names = [message.opened(hook.secret)["data"]["name"] for message in await stage.receiver.waits_for(5)]
    firsts = list(dict.fromkeys(names))
    assert firsts == [f"key {number}" for number in range(4)]
    assert names.count("key 0") == 2


async def test_after_the_last_try_an_event_has_failed_and_can_be_sent_again(stage: Stage) -> None:
    hook = await stage.hook()
    stage.receiver.fresh(500, 500, 500, 500)
    await hook.happens()
    log = await hook.deliveries(4)
    assert (log[0]["attempt_number"], log[0]["next_retry_at"]) == (4, None)
    queued = await hook.call("POST", f"/deliveries/{log[0]['id']}/replay", expect=202)
    assert queued["data"]["event_id"] == log[0]["event_id"]
    messages = await stage.receiver.waits_for(5)
    assert {message.id for message in messages} == {log[0]["event_id"]}
    assert (await hook.deliveries(5))[0]["response_status"] == 204
    action = "SELECT action FROM audit.entry WHERE chain = $1 ORDER BY seq DESC LIMIT 1"
    assert await stage.connection.fetchval(action, hook.owner.organization_id) == "webhook.replay"
    await hook.call("POST", f"/deliveries/{uuid4()}/replay", expect=404)
    other = await stage.hook()
    await other.call("POST", f"/deliveries/{log[0]['id']}/replay", expect=404)


async def test_a_rotated_secret_and_the_one_before_it_both_verify(stage: Stage) -> None:
    hook = await stage.hook("api_key.created")
    fresh = (await hook.call("POST", "/rotate-secret"))["data"]["secret"]
    assert fresh != hook.secret
    await hook.happens()
    (message,) = await stage.receiver.waits_for(1)
    assert message.opened(hook.secret) == message.opened(fresh)
    stage.receiver.fresh()
    await stage.connection.execute("UPDATE webhook.endpoint SET previous_until = now() WHERE id::text = $1", hook.id)
    await hook.happens()
    (message,) = await stage.receiver.waits_for(1)
    assert message.opened(fresh)
    with pytest.raises(WebhookVerificationError):
        message.opened(hook.secret)


async def test_a_rotation_is_told(stage: Stage) -> None:
    hook = await stage.hook("webhook.secret_rotated")
    fresh = (await hook.call("POST", "/rotate-secret"))["data"]["secret"]
    (message,) = await stage.receiver.waits_for(1)
    event = message.opened(fresh)
    assert event == message.opened(hook.secret)
    assert (event["type"], event["data"]["webhook_id"]) == ("webhook.secret_rotated", hook.id)
    assert "whsec_" not in message.body.decode()


@pytest.mark.parametrize("status", [429, 503])
async def test_a_receiver_that_asks_to_wait_is_left_alone_until_then(stage: Stage, status: int) -> None:
    hook = await stage.hook("api_key.created")
    stage.receiver.answers[:] = [(status, {"Retry-After": "3600"}, b"")]
    await hook.happens("refused")
    (first,) = await hook.deliveries(1)
    wait = datetime.fromisoformat(first["next_retry_at"]) - datetime.fromisoformat(first["created_at"])
    assert timedelta(minutes=59) < wait <= timedelta(hours=1)
    await hook.happens("kept back")  # nothing else is sent to it either
    other = await stage.hook("api_key.created")
    await other.happens("meanwhile")
    assert len(await stage.receiver.waits_for(2)) == 2
    await stage.connection.execute("UPDATE webhook.endpoint SET paused_until = now() WHERE id::text = $1", hook.id)
    messages = await stage.receiver.waits_for(3)
    assert messages[-1].opened(hook.secret)["data"]["name"] == "kept back"


async def test_a_wait_without_end_is_bounded_and_ends_with_a_new_start(stage: Stage) -> None:
    hook = await stage.hook("api_key.created")
    stage.receiver.answers[:] = [(503, {"Retry-After": "9" * 30}, b"")]
    await hook.happens()
    (first,) = await hook.deliveries(1)
    wait = datetime.fromisoformat(first["next_retry_at"]) - datetime.fromisoformat(first["created_at"])
    assert timedelta(hours=23) < wait <= timedelta(days=1)
    await hook.call("PATCH", json={"enabled": False})
    await hook.call("PATCH", json={"enabled": True})
    await hook.happens("at once")
    messages = await stage.receiver.waits_for(2)
    assert messages[-1].opened(hook.secret)["data"]["name"] == "at once"


async def test_tries_are_paged(stage: Stage) -> None:
    hook = await stage.hook("api_key.created")
    for number in range(5):
        await hook.happens(f"key {number}")
    every = await hook.deliveries(5)
    pages = [await hook.call("GET", f"/deliveries?limit=2&offset={offset}") for offset in (0, 2, 4, 6)]
    assert [len(page) for page in pages] == [2, 2, 1, 0]
    assert [row for page in pages for row in page] == every
    for wrong in ("limit=0", "limit=101", "offset=-1", "limit=x"):
        await hook.call("GET", f"/deliveries?{wrong}", expect=400)


async def test_events_since_a_time_come_again_with_their_ids(stage: Stage) -> None:
    hook = await stage.hook("api_key.created")
    for number in range(3):
        await hook.happens(f"key {number}")
    first, second, third = [message.id for message in await stage.receiver.waits_for(3)]
    log = await hook.deliveries(3)
    times = {row["event_id"]: row["payload"]["timestamp"] for row in log}
    stage.receiver.fresh()
    again = await hook.call("POST", "/replay", expect=202, json={"since": times[second]})
    assert again["data"] == {"events": 2, "next_since": None}
    assert {message.id for message in await stage.receiver.waits_for(2)} == {second, third}
    await hook.deliveries(5)
    between = {"since": times[first], "until": times[second]}
    assert (await hook.call("POST", "/replay", expect=202, json=between))["data"]["events"] == 1
    await hook.deliveries(6)
    only_failed = {"since": times[first], "only_failed": True}
    assert (await hook.call("POST", "/replay", expect=202, json=only_failed))["data"]["events"] == 0
    entry = "SELECT action, metadata FROM audit.entry WHERE chain = $1 ORDER BY seq DESC LIMIT 1"
    audited = await stage.connection.fetchrow(entry, hook.owner.organization_id)
    assert (audited["action"], audited["metadata"]["events"]) == ("webhook.replay", 0)


async def test_what_failed_comes_again_once_however_often_it_is_asked_for(stage: Stage) -> None:
    hook = await stage.hook("api_key.created")
    stage.receiver.fresh(500, 500, 500, 500, 500)
    await hook.happens()
    await hook.deliveries(4)
    await stage.connection.execute(
        "UPDATE webhook.endpoint SET paused_until = now() + interval '1 hour' WHERE id::text = $1", hook.id
    )
    wanted = {"since": "2000-01-01", "only_failed": True}
    asked = [(await hook.call("POST", "/replay", expect=202, json=wanted))["data"]["events"] for _ in range(3)]
    assert asked == [1, 0, 0]
    await stage.connection.execute("UPDATE webhook.endpoint SET paused_until = NULL WHERE id::text = $1", hook.id)
    messages = await stage.receiver.waits_for(6)  # it fails once more and has a new schedule
    assert len({message.id for message in messages}) == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"since": "yesterday"}, "since"),
        ({"since": "0001-01-01T00:00:00+14:00"}, "since"),
        ({"since": 5}, "since"),
        ({}, "since"),
        ({"since": "2026-01-02", "until": "2026-01-01"}, "until"),
    ],
)
async def test_a_replay_of_no_time_is_refused(stage: Stage, body: dict[str, Any], field: str) -> None:
    hook = await stage.hook()
    answer = await hook.call("POST", "/replay", expect=400, json=body)
    assert answer["errors"][0]["field"] == field


async def test_a_receiver_that_is_gone_is_switched_off_and_its_owner_told(stage: Stage) -> None:
    watching = await stage.hook("webhook.disabled")
    hook = await stage.hook("api_key.created", owner=watching.owner)
    stage.receiver.fresh(410)
    await hook.happens()
    gone, notice = await stage.receiver.waits_for(2)
    assert gone.opened(hook.secret)["type"] == "api_key.created"
    told = notice.opened(watching.secret)
    assert (told["type"], told["data"]["webhook_id"], told["data"]["actor"]["type"]) == (
        "webhook.disabled", hook.id, "system",
    )  # fmt: skip
    shown = (await hook.call("GET"))["data"]
    assert (shown["enabled"], shown["disabled_reason"]) == (False, "its receiver answered 410 Gone")
    log = await stage.gateway.client.get(
        f"/organizations/{hook.owner.organization_id}/audit-logs?action=webhook.disable", headers=hook.owner.headers
    )
    assert [entry["resource_id"] for entry in log.json()["data"]["data"]] == [hook.id]
    await hook.call("POST", "/test", expect=409)
    again = (await hook.call("PATCH", json={"enabled": True}))["data"]
    assert (again["enabled"], again["disabled_reason"]) == (True, None)


async def test_a_webhook_that_fails_for_too_long_is_switched_off(stage: Stage) -> None:
    hook = await stage.hook()
    await stage.connection.execute(
        "UPDATE webhook.endpoint SET failing_since = now() - interval '2 days' WHERE id::text = $1", hook.id
    )
    stage.receiver.fresh(500)
    await hook.happens()
    async with asyncio.timeout(60):
        while (await hook.call("GET"))["data"]["enabled"]:
            await asyncio.sleep(0.05)
    assert (await hook.call("GET"))["data"]["disabled_reason"] == "nothing was delivered for 1 days"


async def test_a_test_event_comes_whatever_was_subscribed(stage: Stage) -> None:
    hook = await stage.hook("publisher.deleted")
    queued = await hook.call("POST", "/test", expect=202)
    (message,) = await stage.receiver.waits_for(1)
    assert message.id == queued["data"]["event_id"]
    assert message.opened(hook.secret)["type"] == "webhook.test"


async def test_a_pause_keeps_what_waits_and_takes_nothing_new(stage: Stage) -> None:
    hook = await stage.hook("api_key.created")
    await hook.call("PATCH", json={"enabled": False})
    await hook.happens("while paused")
    await hook.call("PATCH", json={"enabled": True, "name": "Again"})
    await hook.happens("afterwards")
    (message,) = await stage.receiver.waits_for(1)
    assert message.opened(hook.secret)["data"]["name"] == "afterwards"
    assert (await hook.call("GET"))["data"]["name"] == "Again"


async def test_a_redirect_is_not_followed_and_a_long_answer_not_kept(stage: Stage) -> None:
    hook = await stage.hook()
    stage.receiver.answers[:] = [
        (307, {"Location": "http://10.0.0.5/"}, b""),
        (200, {}, b"<" + b"x" * 100_000),
    ]
    await hook.happens()
    second, first = await hook.deliveries(2)
    assert first["error_message"] == "the receiver answered 307; redirects are not followed"
    assert len(second["response_body"]) == 500
    assert len(stage.receiver.messages) == 2


async def test_a_dead_receiver_is_a_named_failure(stage: Stage) -> None:
    hook = await stage.hook(url="http://127.0.0.1:9/hook?a=1&b")
    await hook.happens()
    row = (await hook.deliveries(1))[-1]
    assert row["response_status"] is None
    assert row["error_message"]


@pytest.mark.parametrize(
    "url",
    [
        "http://0x7f000001/",
        "https://3232235777/",
        "https://0xc0a80101/",
        "https://10.0.0.5/",
        "https://[::1]/x",
        "https://169.254.169.254/latest",
        "https://[::ffff:192.168.1.1]/",
        "http://example.com/plain",
        "ftp://example.com/",
        "https://user:pass@example.com/",
        "nonsense",
        "",
    ],
)
async def test_a_url_that_must_not_be_contacted_is_refused(stage: Stage, url: str) -> None:
    owner = await stage.world.agent()
    path = f"/organizations/{owner.organization_id}/webhooks"
    body = {"name": "x", "url": url, "events": ["*"]}
    answer = await stage.gateway.client.post(path, headers=owner.headers, json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["errors"][0]["field"] == "url"


async def test_a_url_that_was_harmless_when_it_was_stored_is_judged_again(stage: Stage) -> None:
    hook = await stage.hook()
    await stage.connection.execute(
        "UPDATE webhook.endpoint SET url = 'https://10.0.0.5/x' WHERE id::text = $1", hook.id
    )
    await hook.happens()
    (row, *_) = await hook.deliveries(1)
    assert row["response_status"] is None
    assert "private" in row["error_message"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"events": ["publisher.painted"]}, "events"),
        ({"events": []}, "events"),
        ({"name": ""}, "name"),
        ({"project_id": str(uuid4())}, "project_id"),
        ({"secret": "whsec_AAAA"}, "secret"),
    ],
)
async def test_a_wrong_field_is_named(stage: Stage, change: dict[str, Any], field: str) -> None:
    owner = await stage.world.agent()
    body = {"name": "x", "url": stage.receiver.url, "events": ["*"], **change}
    path = f"/organizations/{owner.organization_id}/webhooks"
    answer = await stage.gateway.client.post(path, headers=owner.headers, json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["errors"][0]["field"] == field


async def test_a_secret_is_shown_once_and_a_foreign_webhook_is_not_there(stage: Stage) -> None:
    hook, stranger = await stage.hook(), await stage.hook()
    listing = await stage.gateway.client.get(
        f"/organizations/{hook.owner.organization_id}/webhooks", headers=hook.owner.headers
    )
    assert [one["id"] for one in listing.json()["data"]] == [hook.id]
    assert "whsec_" not in listing.text + str(await hook.call("GET"))
    foreign = f"/organizations/{stranger.owner.organization_id}/webhooks/{hook.id}"
    for method, rest in (
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("GET", "/deliveries"),
        ("POST", "/rotate-secret"),
    ):
        options: dict[str, Any] = {"json": {"name": "taken"}} if method == "PATCH" else {}
        answer: httpx.Response = await stage.gateway.client.request(
            method, foreign + rest, headers=stranger.owner.headers, **options
        )
        assert answer.status_code == 404, answer.text
    await hook.call("DELETE", expect=204)
    await hook.call("GET", expect=404)


async def test_the_event_types_are_listed(stage: Stage) -> None:
    agent = await stage.world.agent()
    answer = await stage.gateway.client.get("/webhooks/event-types", headers=agent.headers)
    assert answer.json() == EVENT_TYPES
    assert (await stage.gateway.client.get("/webhooks/event-types")).status_code == 401


async def test_alerts_come_from_what_calls_have_written_and_once(stage: Stage) -> None:
    hook = await stage.hook("wallet.low_balance", "api_key.budget_reached", owner=await stage.world.agent(1_050_000))
    shop = await stage.world.publisher(95_000)
    path = f"/organizations/{hook.owner.organization_id}/api-keys"
    body = {"name": "limited", "budget": {"per_day": "0.1"}}
    made = (await stage.gateway.client.post(path, headers=hook.owner.headers, json=body)).json()["data"]
    limited = {"Authorization": f"Bearer {made['api_key']}"}
    answer = await stage.gateway.client.get(f"/publishers/{shop.slug}/x", headers=limited)
    assert answer.status_code == 200, answer.text
    events = {message.opened(hook.secret)["type"]: message for message in await stage.receiver.waits_for(2)}
    assert set(events) == {"wallet.low_balance", "api_key.budget_reached"}
    low = events["wallet.low_balance"].opened(hook.secret)["data"]
    assert (low["balance_atomic"], low["asset_symbol"]) == ("955000", "USDC")
    spent = events["api_key.budget_reached"].opened(hook.secret)["data"]
    assert (spent["key_id"], spent["period"], spent["spent_atomic"]) == (made["key_id"], "day", "95000")
    again = await stage.connection.fetchval(
        "SELECT count(*) FROM webhook.event WHERE organization_id = $1", hook.owner.organization_id
    )
    assert again == 2
