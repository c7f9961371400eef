"""What is refused before any operation looks at it, and how refusals look."""

from __future__ import annotations

import asyncio
import gc
import gzip
import logging
import weakref
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from admin_api.app import build
from gateway.errors import every_problem
from gateway.settings import LimitSettings, ProxySettings, ServerSettings
from tests.admin_api.conftest import SECRET, Api, Clerk, close_api, open_api, settings_for

DEEP = b'{"name":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
BODIES = {
    "not JSON": b"{",
    "two values": b"{} {}",
    "duplicate key": b'{"name":"a","name":"b"}',
    "nested duplicate key": b'{"x":{"a":1,"a":2}}',
    "NaN": b'{"name":NaN}',
    "infinite": b'{"x":1e999}',
    "NUL": b'{"name":"a\\u0000b"}',
    "half a surrogate": b'{"name":"\\ud800"}',
    "surrogate in a list": b'{"x":[["\\udfff"]]}',
    "surrogate at the top": b'["\\udfff"]',
    "not UTF-8": b'{"name":"\xff"}',
    "UTF-16": '{"name":"a"}'.encode("utf-16"),
    "deep": DEEP,
    "endless string of escapes": b'{"name":"' + b'\\"' * 400_000,
    "huge number": b'{"name":' + b"9" * 100_000 + b"}",
    "array": b"[]",
    "text": b'"x"',
    "nothing": b"",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
async def test_a_body_with_no_single_meaning_is_refused(api: Api, body: bytes) -> None:
    fields = {"Content-Type": "application/json"}
    answer = await asyncio.wait_for(api.call("POST", "/auth/agent", content=body, headers=fields), 60)
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == "/problems/invalid-request"
    assert problem["instance"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None])
async def test_a_body_of_another_type_is_refused(api: Api, kind: str | None) -> None:
    headers = {"Content-Type": kind} if kind else {}
    answer = await api.call("POST", "/auth/agent", content=b'{"name":"x"}', headers=headers, expect=415)
    assert answer.json()["type"] == "/problems/unsupported-media-type"
    assert answer.headers["accept"] == "application/json"


async def test_a_compressed_body_is_refused(api: Api) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = await api.call("POST", "/auth/agent", content=gzip.compress(b"{}"), headers=headers, expect=415)
    assert answer.headers["accept-encoding"] == "identity"


async def test_a_media_type_with_parameters_or_of_the_json_family_is_json(api: Api) -> None:
    for kind in ("application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.tollway+json"):
        await api.call("POST", "/auth/agent", content=b"{}", headers={"Content-Type": kind}, expect=201)


@pytest.mark.parametrize(
    "path", ["/publishers/shop%2Fx", "/%70ublishers/shop/x", "/publishers%2Fshop/x", "/publishers/shop%2F"]
)
async def test_a_publisher_call_in_another_spelling_is_refused(api: Api, path: str) -> None:
    """The gateway sends plain spellings down the pipeline; these reach the admin API instead."""
    answer = await api.call("GET", path, expect=400)
    assert answer.json()["type"] == "/problems/invalid-target"


async def test_the_word_suggest_names_no_publisher(api: Api) -> None:
    answer = await api.call("POST", "/publishers/suggest", json={}, expect=405)
    assert answer.headers["allow"] == "GET, HEAD"
    for path in ("/publishers/suggest/x", "/publishers/suggest/logo", "/publishers/suggest/"):
        await api.call("GET", path, expect=404)
        await api.call("POST", path, json={}, expect=404)


async def test_a_large_body_is_refused_announced_or_not(api: Api, clerk: Clerk) -> None:
    member = await clerk.agent()
    path = f"/organizations/{member.organization_id}/publishers"
    body = b'{"name":"' + b"x" * 1_100_000 + b'"}'
    headers = {"Content-Type": "application/json"}
    assert (await api.call("POST", path, member.key, content=body, headers=headers)).status_code == 413

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 65_536):
            yield body[start : start + 65_536]

    answer = await api.call("POST", path, member.key, content=chunks(), headers=headers)
    assert answer.status_code == 413
    assert answer.json()["type"] == "/problems/payload-too-large"


class Silent:
    """The `receive` of a caller who announces a body, sends nothing of it, and leaves once he is answered."""

    def __init__(self) -> None:
        self.answered = asyncio.Event()

    async def __call__(self) -> dict[str, Any]:
        await self.answered.wait()
        return {"type": "http.disconnect"}


@pytest.fixture
async def hasty(database_url: str) -> AsyncIterator[Api]:
    opened, _ = await open_api(settings_for(database_url, proxy=ProxySettings(body_timeout=1)))
    yield opened
    await close_api(opened)


@pytest.mark.parametrize(
    ("path", "length", "status"),
    [
        ("/auth/agent", b"50", 408),
        ("/payments/verify", b"50", 501),
        ("/auth/agent", b"50000000", 413),
        ("/publishers", b"50", 405),
        ("/nowhere", b"50", 404),
    ],
)
async def test_nothing_holds_a_request_whose_body_never_came(hasty: Api, path: str, length: bytes, status: int) -> None:
    """Not even until the next garbage collection: some servers keep the connection open for as long."""
    receive, statuses = Silent(), list[int]()
    held, answered = weakref.ref(receive), receive.answered

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])
        else:
            answered.set()

    headers = [(b"host", b"tollway.test"), (b"content-type", b"application/json"), (b"content-length", length)]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": path, "raw_path": path.encode(), "root_path": "", "query_string": b"", "headers": headers,
        "client": ("203.0.113.7", 4711), "server": ("tollway.test", 80),
    }  # fmt: skip
    gc.disable()
    try:
        await asyncio.create_task(build(hasty.services)(scope, receive, send))
        del receive, scope
        await asyncio.sleep(0)
        assert (statuses, held()) == ([status], None)
    finally:
        gc.enable()


async def test_unknown_paths_and_methods_are_problems(api: Api) -> None:
    assert (await api.call("GET", "/nothing/here", expect=404)).json()["type"] == "/problems/not-found"
    answer = await api.call("PATCH", "/organizations/01890000-0000-7000-8000-000000000001/publishers", expect=405)
    assert answer.json()["type"] == "/problems/method-not-allowed"
    assert answer.headers["allow"] == "GET, HEAD, POST"


@pytest.mark.parametrize("value", ["Bearer", "Bearer x", "Basic abc", "Bearer seren_0000000000000000_" + "a" * 43, ""])
async def test_a_bad_credential_is_401_with_a_challenge(api: Api, value: str) -> None:
    answer = await api.call("GET", "/auth/me", headers={"Authorization": value}, expect=401)
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json()["type"] == "/problems/unauthenticated"


async def test_no_credential_is_401_before_the_body_is_judged(api: Api) -> None:
    await api.call("POST", "/wallet/deposit", json={}, expect=401)
    await api.call("GET", "/organizations/not-a-uuid/publishers", expect=401)


async def test_two_credentials_are_refused(api: Api, clerk: Clerk) -> None:
    key = f"Bearer {(await clerk.agent()).key}"
    request = api.http.build_request("GET", "/auth/me", headers=[("Authorization", key), ("Authorization", key)])
    assert (await api.http.send(request)).status_code == 400


async def test_a_fault_of_ours_shows_nothing_but_its_id(
    api: Api, clerk: Clerk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    member = await clerk.agent()

    async def broken(*_arguments: object) -> None:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(type(api.services.identities), "resolve", broken)
    with caplog.at_level(logging.ERROR):
        answer = await api.call("GET", "/auth/me", member.key, expect=500)
    assert SECRET not in answer.text
    (line,) = [record for record in caplog.records if record.exc_info]
    assert answer.json()["instance"] == vars(line)["request_id"]
    assert SECRET in caplog.text


async def test_every_problem_type_has_its_page(api: Api) -> None:
    for kind in every_problem():
        page = await api.call("GET", f"/problems/{kind.name}", expect=200)
        assert kind.title in page.text
        assert page.headers["content-type"].startswith("text/markdown")
    await api.call("GET", "/problems/none-such", expect=404)


async def test_the_front_page_leads_to_what_exists(api: Api) -> None:
    links: dict[str, str] = (await api.call("GET", "/", expect=200)).json()["links"]
    for name in ("publishers", "openapi", "docs", "skill", "problems"):
        await api.call("GET", httpx.URL(links[name]).path, expect=200)
    assert (await api.call("GET", "/openapi.json")).json()["openapi"].startswith("3.1")


async def test_health_and_metrics(api: Api) -> None:
    assert (await api.call("GET", "/health/live", expect=200)).json() == {"status": "live"}
    ready = await api.call("GET", "/health/ready", expect=503)
    assert ready.json()["missing"] == ["valkey"]
    assert b"tollway_build_info" in (await api.call("GET", "/metrics", expect=200)).content


async def test_a_missing_database_is_named_and_answers_503(api: Api, database_url: str) -> None:
    gone, _ = await open_api(settings_for(database_url))
    await gone.services.database.stop()
    try:
        assert "database" in (await gone.call("GET", "/health/ready", expect=503)).json()["missing"]
        await gone.call("GET", "/health/live", expect=200)
        answer = await gone.call("GET", "/publishers", expect=503)
        assert answer.json()["type"] == "/problems/unavailable"
        assert int(answer.headers["retry-after"]) >= 1
    finally:
        await gone.http.aclose()
        await gone.services.upstreams.aclose()


@pytest.fixture
async def tight(database_url: str) -> AsyncIterator[Any]:
    limits = LimitSettings(per_key=3, per_address=4, registrations=2, guesses=2)
    server = ServerSettings(public_url="http://tollway.test", trusted_proxies=("203.0.113.0/24",))
    opened, _ = await open_api(settings_for(database_url, limits=limits, server=server))
    yield opened
    await close_api(opened)


def at(address: str) -> dict[str, str]:
    return {"X-Forwarded-For": f"198.51.100.1, {address}"}


async def test_requests_without_a_key_count_by_address(tight: Api) -> None:
    for _ in range(4):
        await tight.call("GET", "/publishers", headers=at("192.0.2.1"), expect=200)
    answer = await tight.call("GET", "/publishers", headers=at("192.0.2.1"), expect=429)
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["ratelimit-policy"].startswith('"address"')
    await tight.call("GET", "/publishers", headers=at("192.0.2.2"), expect=200)


async def test_registrations_are_limited_by_address(tight: Api) -> None:
    for _ in range(2):
        await tight.call("POST", "/auth/agent", json={}, headers=at("192.0.2.3"), expect=201)
    answer = await tight.call("POST", "/auth/agent", json={}, headers=at("192.0.2.3"), expect=429)
    assert answer.headers["ratelimit-policy"].startswith('"registrations"')
    await tight.call("POST", "/auth/agent", json={}, headers=at("192.0.2.4"), expect=201)


async def test_guesses_of_keys_and_codes_are_limited(tight: Api) -> None:
    headers = {"Authorization": "Bearer seren_0000000000000000_" + "a" * 43, **at("192.0.2.5")}
    for _ in range(2):
        await tight.call("GET", "/auth/me", headers=headers, expect=401)
    await tight.call("GET", "/auth/me", headers=headers, expect=429)
    body = {"recovery_code": "AAAA-AAAA-AAAA-AAAA-AAAA-AAAA"}
    await tight.call("POST", "/wallet/recover", json=body, headers=at("192.0.2.5"), expect=429)
    await tight.call("POST", "/wallet/recover", json=body, headers=at("192.0.2.6"), expect=401)


async def test_requests_with_a_key_count_by_key(tight: Api) -> None:
    key = (await tight.call("POST", "/auth/agent", json={}, headers=at("192.0.2.7"), expect=201)).json()
    bearer = key["data"]["agent"]["api_key"]
    for last in range(3):
        await tight.call("GET", "/auth/me", bearer, headers=at(f"192.0.2.{10 + last}"), expect=200)
    await tight.call("GET", "/auth/me", bearer, headers=at("192.0.2.20"), expect=429)


async def test_the_application_builds_without_services() -> None:
    assert build(None).title == "Tollway"  # pyright: ignore[reportArgumentType] - the document needs no parts


async def test_head_answers_as_get_without_a_body(api: Api) -> None:
    for path in ("/publishers", "/health/live", "/publishers/nobody"):
        full, head = await api.call("GET", path), await api.call("HEAD", path)
        assert (head.status_code, head.content) == (full.status_code, b"")
        assert head.headers["content-type"] == full.headers["content-type"]
    await api.call("HEAD", "/auth/agent", expect=405)


async def test_publishers_of_one_organization_are_limited(database_url: str) -> None:
    opened, _ = await open_api(settings_for(database_url, limits=LimitSettings(publishers=1)))
    clerk = Clerk(opened)
    try:
        owner = await clerk.agent()
        made = await clerk.publisher(owner)
        path = f"/organizations/{owner.organization_id}/publishers"
        await opened.call("DELETE", f"{path}/{made['id']}", owner.key, expect=200)
        await opened.call("POST", path, owner.key, json=clerk.order(), expect=409)
    finally:
        await close_api(opened)
