"""Owners try a publisher's server before and after it exists; others cannot, and nobody without limit."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

from gateway.settings import LimitSettings
from tests.admin_api.conftest import SECRET, Api, Clerk, Member, close_api, open_api, settings_for
from tests.support.upstream import RecordingUpstream


def path_of(owner: Member, publisher_id: object = "") -> str:
    middle = f"/publishers/{publisher_id}" if publisher_id else ""
    return f"/organizations/{owner.organization_id}{middle}/test-connection"


async def test_a_server_is_tried_before_there_is_a_publisher(
    api: Api, clerk: Clerk, upstream: RecordingUpstream
) -> None:
    owner = await clerk.agent()
    upstream.forget()
    body = {
        "api_url": f"{upstream.url}/v1",
        "upstream_api_key": SECRET,
        "api_key_header": "X-Api-Key",
        "api_headers": {"X-Second": SECRET},
        "path": "/status/204?x=1",
    }
    answer = await api.call("POST", path_of(owner), owner.key, json=body, expect=200)
    data = answer.json()["data"]
    assert (data["ok"], data["outcome"], data["status"], data["tls"]) == (True, "answered", 204, None)
    assert all(isinstance(took, int) for took in data["times"].values())
    (request,) = upstream.requests
    assert request.request_line == "GET /v1/status/204?x=1 HTTP/1.1"
    assert (request.all("x-api-key"), request.all("x-second")) == ([SECRET], [SECRET])
    assert owner.key not in request.head.decode()
    assert SECRET not in answer.text


async def test_a_publisher_is_tried_with_its_stored_credentials(
    api: Api, clerk: Clerk, upstream: RecordingUpstream
) -> None:
    owner = await clerk.agent()
    made = await clerk.publisher(owner, api_url=upstream.url, upstream_api_key=SECRET, is_active=...)
    upstream.forget()
    for body, status, outcome in (
        ({}, 200, "answered"),
        ({"path": "/status/401"}, 401, "unauthorized"),
        ({"path": "/status/500", "method": "HEAD"}, 500, "server_error"),
    ):
        answer = await api.call("POST", path_of(owner, made["id"]), owner.key, json=body, expect=200)
        data = answer.json()["data"]
        assert (data["status"], data["outcome"], data["ok"]) == (status, outcome, status == 200)
        assert SECRET not in answer.text
    assert [request.all("authorization") for request in upstream.requests] == [[f"Bearer {SECRET}"]] * 3
    assert [request.method for request in upstream.requests] == ["GET", "GET", "HEAD"]


@pytest.mark.parametrize(
    ("url", "outcome"),
    [
        ("http://127.0.0.1:1", "connect_failed"),
        ("https://10.0.0.1", "address_refused"),
        ("https://no-such-host.invalid", "dns_failed"),
    ],
)
async def test_why_a_server_cannot_be_reached(api: Api, clerk: Clerk, url: str, outcome: str) -> None:
    owner = await clerk.agent()
    data = (await api.call("POST", path_of(owner), owner.key, json={"api_url": url}, expect=200)).json()["data"]
    assert (data["ok"], data["outcome"], data["status"]) == (False, outcome, None)
    assert data["detail"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"api_url": "http://example.com"}, "api_url"),
        ({"api_url": "ftp://example.com"}, "api_url"),
        ({}, "api_url"),
        ({"api_url": "https://example.com", "path": "x"}, "path"),
        ({"api_url": "https://example.com", "path": "/../x"}, "path"),
        ({"api_url": "https://example.com", "path": "/a b"}, "path"),
        ({"api_url": "https://example.com", "path": "/a\n"}, "path"),
        ({"api_url": "https://example.com", "method": "POST"}, "method"),
        ({"api_url": "https://example.com", "api_headers": {"X": "a\r\nY: b"}}, "api_headers"),
        ({"api_url": "https://example.com", "other": 1}, "other"),
    ],
)
async def test_what_is_no_test_is_refused_by_field(api: Api, clerk: Clerk, body: dict[str, Any], field: str) -> None:
    owner = await clerk.agent()
    problem = (await api.call("POST", path_of(owner), owner.key, json=body, expect=400)).json()
    assert problem["errors"][0]["field"] == field


async def test_only_who_may_change_publishers_may_make_the_gateway_knock(
    api: Api, clerk: Clerk, upstream: RecordingUpstream
) -> None:
    owner, stranger, viewer = await clerk.agent(), await clerk.agent(), await clerk.agent()
    await clerk.join(viewer, owner.organization_id, "viewer")
    made = await clerk.publisher(owner, api_url=upstream.url)
    upstream.forget()
    for path, options in (
        (path_of(owner), {"json": {"api_url": upstream.url}}),
        (path_of(owner, made["id"]), {"json": {}}),
    ):
        for member in (stranger, viewer):
            await api.call("POST", path, member.key, expect=403, **options)
        await api.call("POST", path, expect=401, **options)
    await api.call("POST", path_of(stranger, made["id"]), stranger.key, json={}, expect=404)
    await api.call("POST", path_of(owner, uuid4()), owner.key, json={}, expect=404)
    assert upstream.calls == 0


async def test_a_publisher_without_a_server_of_its_own_cannot_be_tried(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    made = await clerk.publisher(owner)
    async with api.services.database.acquire() as connection:  # a database: its connection is another one
        await connection.execute(
            "UPDATE catalog.publisher SET category = 'database', document = document - 'api_url' WHERE id = $1",
            UUID(made["id"]),
        )
    problem = (await api.call("POST", path_of(owner, made["id"]), owner.key, json={}, expect=400)).json()
    assert problem["errors"][0]["field"] == "api_url"


async def test_tests_are_limited_per_organization(database_url: str, upstream: RecordingUpstream) -> None:
    limits = LimitSettings(per_key=100_000, per_address=100_000, registrations=10_000, connection_tests=3)
    opened, _ = await open_api(settings_for(database_url, limits=limits))
    try:
        clerk = Clerk(opened)
        owner, other, colleague = [await clerk.agent() for _ in range(3)]
        await clerk.join(colleague, owner.organization_id, "admin")
        upstream.forget()

        async def status(member: Member, organization: Member) -> int:
            body = {"api_url": upstream.url}
            return (await opened.call("POST", path_of(organization), member.key, json=body)).status_code

        assert sorted(await asyncio.gather(*(status(owner, owner) for _ in range(5)))) == [200, 200, 200, 429, 429]
        assert await status(colleague, owner) == 429
        assert await status(other, other) == 200
        assert upstream.calls == 4
    finally:
        await close_api(opened)
