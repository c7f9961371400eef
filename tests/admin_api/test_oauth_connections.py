"""Connecting an account at an OAuth provider: a real authorization server, and everything that can go wrong with one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
import pytest_asyncio

from gateway.identity.connections import MAX_FLOWS, forget_flows
from gateway.settings import ServerSettings
from tests.admin_api.conftest import PUBLIC_URL, Api, Clerk, close_api, open_api, settings_for
from tests.admin_api.oauth_visit import Visit, query_of, visit_of
from tests.support.authorization_server import CLAIMED, CLIENT, EMAIL, SECRET, USER, Provider

ELSEWHERE = "https://app.example.com"


@pytest_asyncio.fixture(scope="module")
async def api(database_url: str) -> AsyncIterator[Api]:
    server = ServerSettings(public_url=PUBLIC_URL, return_origins=(ELSEWHERE,))
    opened, _ = await open_api(settings_for(database_url, server=server))
    yield opened
    await close_api(opened)


@pytest_asyncio.fixture
async def provider() -> AsyncIterator[Provider]:
    server = Provider()
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture
async def visit(api: Api, clerk: Clerk, provider: Provider) -> Visit:
    """A provider that some publisher in the store is called by, so that everybody may connect to it."""
    return await visit_of(api, clerk, provider, "acme")


# --- The way it goes ---


async def test_an_account_connects_and_sees_its_connection_without_tokens(visit: Visit) -> None:
    assert await visit.connections() == []
    await visit.connect()
    (made,) = await visit.connections()
    assert made["is_valid"] is True
    assert (made["provider_id"], made["provider_slug"], made["provider_name"]) == (visit.id, "acme", "Test provider")
    assert (made["provider_user_id"], made["provider_email"]) == (USER, EMAIL)
    assert made["scopes"] == ["read", "write"]
    assert made["expires_at"] is not None
    (given,) = visit.server.given
    assert given.access not in str(made)
    async with visit.api.services.database.acquire() as connection:
        row = await connection.fetchrow("SELECT * FROM oauth.connection WHERE id = $1", made["id"])
    assert all(secret.encode() not in bytes(row["tokens"]) for secret in (given.access, str(given.refresh)))


async def test_consent_is_asked_for_with_s256_state_and_the_providers_own_callback(visit: Visit) -> None:
    first, second = query_of(await visit.begin()), query_of(await visit.begin())
    assert first["redirect_uri"] == f"{PUBLIC_URL}{visit.path}/callback"
    assert (first["response_type"], first["client_id"], first["scope"]) == ("code", CLIENT, "read write")
    assert first["code_challenge_method"] == "S256"
    for name in ("state", "code_challenge"):
        assert len(first[name]) >= 43
        assert first[name] != second[name]
    assert SECRET not in str(first)


async def test_connecting_again_replaces_the_connection(visit: Visit) -> None:
    await visit.connect()
    (first,) = await visit.connections()
    await visit.connect()
    (second,) = await visit.connections()
    assert second["id"] == first["id"]
    assert len(visit.server.given) == 2


async def test_the_platforms_provider_goes_by_its_slug(api: Api, clerk: Clerk, provider: Provider) -> None:
    visit = await visit_of(api, clerk, provider, "platforms")
    own = await api.call("GET", "/oauth/providers", visit.user.key, expect=200)
    assert own.json() == {"providers": []}
    await api.call("GET", "/oauth/platforms/authorize", visit.user.key, expect=404)
    await visit.share()
    (listed,) = (await api.call("GET", "/oauth/providers", visit.user.key, expect=200)).json()["providers"]
    assert (listed["slug"], listed["organization_id"]) == ("platforms", None)
    answer = await api.call("GET", "/oauth/platforms/authorize", visit.user.key, expect=302)
    api.http.cookies.clear()
    visit.cookies = {"tollway_oauth": answer.headers["set-cookie"].partition(";")[0].partition("=")[2]}
    back = await visit.consent(answer.headers["location"])
    assert urlsplit(back).path == "/oauth/platforms/callback"
    await visit.back(back)
    assert [one["is_valid"] for one in await visit.connections()] == [True]
    ended = await api.call("DELETE", "/oauth/connections/platforms", visit.user.key, expect=200)
    assert ended.json()["success"] is True
    assert await visit.connections() == []
    async with api.services.database.acquire() as connection:
        await connection.execute("DELETE FROM oauth.provider WHERE id = $1", visit.id)


async def test_a_member_sees_and_connects_to_the_organizations_own(visit: Visit) -> None:
    listed = await visit.api.call("GET", "/oauth/providers", visit.seller.key, expect=200)
    assert [one["id"] for one in listed.json()["providers"]] == [visit.id]
    assert "client_id" not in listed.json()["providers"][0]


# --- Whose consent it is ---


async def test_another_browser_is_asked_whose_account_it_is(visit: Visit) -> None:
    back = await visit.consent(await visit.begin())
    away = (await visit.back(back, cookies=False)).headers["location"]
    assert urlsplit(away).path == "/oauth/confirm"
    assert await visit.connections() == []
    assert visit.server.given == []
    page = await visit.back(away, 200, cookies=False)
    assert visit.user.name in page.text
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    answer = await visit.api.call(
        "POST", "/oauth/confirm", content=urlencode({**query_of(away), "answer": "connect"}), expect=303
    )
    assert answer.headers["location"] == f"{PUBLIC_URL}/oauth/done?provider=acme&status=connected"
    assert len(await visit.connections()) == 1
    again = await visit.api.call(
        "POST", "/oauth/confirm", content=urlencode({**query_of(away), "answer": "connect"}), expect=404
    )
    assert "Nothing to confirm" in again.text


async def test_who_does_not_confirm_is_not_connected(visit: Visit) -> None:
    away = (await visit.back(await visit.consent(await visit.begin()), cookies=False)).headers["location"]
    for answer, expect in (("no", 303), ("connect", 404)):
        await visit.api.call(
            "POST", "/oauth/confirm", content=urlencode({**query_of(away), "answer": answer}), expect=expect
        )
    assert (visit.server.given, await visit.connections()) == ([], [])


async def test_the_accounts_own_key_needs_no_page(visit: Visit) -> None:
    back = await visit.consent(await visit.begin())
    answer = await visit.back(back, cookies=False, headers={"Authorization": f"Bearer {visit.user.key}"})
    assert "status=connected" in answer.headers["location"]


async def test_another_accounts_key_or_cookie_does_not_stand_for_who_began(visit: Visit) -> None:
    back = await visit.consent(await visit.begin())
    headers = {"Authorization": f"Bearer {visit.seller.key}", "Cookie": "tollway_oauth=" + "x" * 43}
    away = (await visit.back(back, cookies=False, headers=headers)).headers["location"]
    assert urlsplit(away).path == "/oauth/confirm"


async def test_a_state_works_once(visit: Visit) -> None:
    back = await visit.consent(await visit.begin())
    await visit.back(back)
    refused = await visit.back(back, 400)
    assert refused.json()["errors"][0]["field"] == "state"
    assert len(visit.server.given) == 1


async def test_a_state_is_over_after_its_time(visit: Visit) -> None:
    back = await visit.consent(await visit.begin())
    async with visit.api.services.database.acquire() as connection:
        await connection.execute("UPDATE oauth.flow SET expires_at = now() WHERE account_id = $1", visit.user.id)
    await visit.back(back, 400)
    await forget_flows(visit.api.services.database)
    async with visit.api.services.database.acquire() as connection:
        assert await connection.fetchval("SELECT count(*) FROM oauth.flow WHERE account_id = $1", visit.user.id) == 0


async def test_an_invented_state_is_refused(visit: Visit) -> None:
    callback = f"{PUBLIC_URL}{visit.path}/callback"
    for query in ("state=x&code=y", "code=y", "state=x", "", "state=&code=&error="):
        await visit.back(f"{callback}?{query}", 400)
    await visit.back(f"{PUBLIC_URL}/oauth/nobody/callback?state=x&code=y", 400)
    await visit.back(f"{PUBLIC_URL}/oauth/providers/01890000-0000-7000-8000-000000000001/callback?state=x&code=y", 404)


async def test_an_account_has_so_many_consents_under_way(visit: Visit) -> None:
    first = await visit.consent(await visit.begin())
    for _ in range(MAX_FLOWS):
        last = await visit.begin()
    await visit.back(first, 400)
    await visit.back(await visit.consent(last))


async def test_a_closed_account_gets_no_connection(visit: Visit) -> None:
    back = await visit.consent(await visit.begin())
    async with visit.api.services.database.acquire() as connection:
        await connection.execute("UPDATE identity.account SET status = 'disabled' WHERE id = $1", visit.user.id)
    answer = await visit.back(back)
    assert "error=account_closed" in answer.headers["location"]
    assert [one.alive for one in visit.server.given] == [False], "revoked where they came from"


# --- Servers that are mixed up, lie or fail ---


async def test_one_providers_answer_is_not_taken_at_anothers_address(visit: Visit, clerk: Clerk) -> None:
    other = await visit_of(visit.api, clerk, visit.server, "other")
    back = await visit.consent(await visit.begin())
    await visit.back(back.replace(visit.id, other.id), 400)
    assert visit.server.given == []
    await visit.back(back)
    assert len(visit.server.given) == 1, "and it is not used up by that"


async def test_an_answer_of_another_issuer_is_refused(visit: Visit) -> None:
    await visit.change(issuer="https://id.example.com")
    visit.server.says_issuer = "https://evil.example.com"
    answer = await visit.back(await visit.consent(await visit.begin()))
    assert "status=failed&error=wrong_issuer" in answer.headers["location"]
    assert (visit.server.given, await visit.connections()) == ([], [])
    visit.server.says_issuer = "https://id.example.com"
    await visit.back(await visit.consent(await visit.begin()))
    assert len(await visit.connections()) == 1


async def test_denied_consent_ends_with_its_word(visit: Visit) -> None:
    visit.server.denies = True
    back = await visit.consent(await visit.begin())
    answer = await visit.back(back)
    assert answer.headers["location"] == f"{PUBLIC_URL}/oauth/done?provider=acme&status=failed&error=access_denied"
    assert await visit.connections() == []
    await visit.back(back, 400)


async def test_what_a_provider_says_is_a_word_or_nothing(visit: Visit) -> None:
    state = query_of(await visit.begin())["state"]
    url = f"{PUBLIC_URL}{visit.path}/callback?" + urlencode({"state": state, "error": "<script>&status=connected"})
    assert (await visit.back(url)).headers["location"].endswith("status=failed&error=provider_error")


async def test_a_challenge_that_was_taken_out_on_the_way_ends_it(visit: Visit) -> None:
    url = urlsplit(await visit.begin())
    kept = {name: value for name, value in parse_qsl(url.query) if not name.startswith("code_challenge")}
    back = await visit.consent(url._replace(query=urlencode(kept)).geturl())
    assert "status=failed&error=invalid_request" in (await visit.back(back)).headers["location"]
    assert visit.server.given == []
    assert visit.server.asked("/token")[-1]["code_verifier"], "shown, so that the server can see what was done"


async def test_a_code_of_somebody_elses_consent_is_worth_nothing(visit: Visit) -> None:
    theirs = query_of(await visit.consent(await visit.begin()))
    mine = await visit.consent(await visit.begin())
    answer = await visit.back(mine.replace(query_of(mine)["code"], theirs["code"]))
    assert "error=invalid_grant" in answer.headers["location"], "the verifier is another"
    assert visit.server.given == []


@pytest.mark.parametrize(
    ("claims", "kept"),
    [
        ({}, True),
        ({"nonce": "replayed"}, False),
        ({"aud": "another-client"}, False),
        ({"aud": [CLIENT, "b"], "azp": "b"}, False),
        ({"iss": "https://evil.example.com"}, False),
        ({"exp": 1_000_000}, False),
    ],
)
async def test_an_id_token_is_about_this_very_consent(
    api: Api, clerk: Clerk, provider: Provider, claims: dict[str, Any], kept: bool
) -> None:
    issuer = "https://id.example.com"
    visit = await visit_of(api, clerk, provider, "openid", scopes=["openid", "email"], issuer=issuer)
    CLAIMED.clear()
    CLAIMED.update({"iss": issuer, **claims})
    url = await visit.begin()
    assert len(query_of(url)["nonce"]) >= 32
    answer = await visit.back(await visit.consent(url))
    assert ("status=connected" in answer.headers["location"]) is kept
    assert len(await visit.connections()) == kept
    assert ("error=bad_id_token" in answer.headers["location"]) is not kept


async def test_a_token_server_in_trouble_connects_nobody(visit: Visit) -> None:
    visit.server.trouble = 503
    answer = await visit.back(await visit.consent(await visit.begin()))
    assert "error=provider_unavailable" in answer.headers["location"]
    assert await visit.connections() == []


async def test_secrets_go_by_the_way_that_was_chosen(visit: Visit) -> None:
    await visit.connect()
    assert "client_secret" not in visit.server.asked("/token")[-1]
    await visit.change(token_endpoint_auth_method="client_secret_post")
    await visit.connect()
    assert visit.server.asked("/token")[-1]["client_secret"] == SECRET


# --- Where the browser goes at the end ---


@pytest.mark.parametrize(
    ("asked", "went"),
    [
        ("/store", f"{PUBLIC_URL}/store?"),
        (f"{PUBLIC_URL}/store?a=1", f"{PUBLIC_URL}/store?a=1&"),
        (f"{ELSEWHERE}/connected", f"{ELSEWHERE}/connected?"),
    ],
)
async def test_the_browser_goes_where_it_was_asked_to(visit: Visit, asked: str, went: str) -> None:
    back = await visit.consent(await visit.begin(redirect_uri=asked))
    assert (await visit.back(back)).headers["location"] == f"{went}provider=acme&status=connected"


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example.com/", "//evil.example.com", "/\\evil.example.com", "\\\\evil.example.com",
        f"{PUBLIC_URL}.evil.example.com/", f"{PUBLIC_URL}@evil.example.com/", "javascript:alert(1)", "store",
        f"{ELSEWHERE}:444/", "https://app.example.com.evil.com/", "/store#x", "/a\r\nSet-Cookie: x=1", "/%0a" * 600,
        "ftp://tollway.test/", "https://tollway.test/", " /store", "/st\u00f6re", "http:/evil.example.com", "http:evil",
    ],
)  # fmt: skip
async def test_no_browser_is_led_astray(visit: Visit, target: str) -> None:
    answer = await visit.api.call(
        "GET", f"{visit.path}/authorize", visit.user.key, params={"redirect_uri": target}, expect=400
    )
    assert answer.json()["errors"][0]["field"] == "redirect_uri"


# --- Who may ---


async def test_nobody_connects_without_a_key(visit: Visit) -> None:
    for method, path in (
        ("GET", "/oauth/providers"), ("GET", "/oauth/connections"), ("GET", f"{visit.path}/authorize"),
        ("GET", "/oauth/acme/authorize"), ("DELETE", "/oauth/connections/acme"),
        ("DELETE", f"/oauth/connections/providers/{visit.id}"),
    ):  # fmt: skip
        await visit.api.call(method, path, expect=401)


async def test_a_provider_that_no_publisher_needs_is_not_there_for_strangers(visit: Visit) -> None:
    async with visit.api.services.database.acquire() as connection:
        await connection.execute(
            "UPDATE catalog.publisher SET document = document - 'oauth_provider_id' WHERE organization_id = $1",
            visit.seller.organization_id,
        )
    unknown = "/oauth/providers/01890000-0000-7000-8000-000000000001/authorize"
    answers = [
        (await visit.api.call("GET", path, visit.user.key, expect=404)).json()
        for path in (f"{visit.path}/authorize", unknown)
    ]
    assert answers[0] | {"instance": ""} == answers[1] | {"instance": ""}
    await visit.api.call("GET", f"{visit.path}/authorize", visit.seller.key, expect=302)
    visit.api.http.cookies.clear()


async def test_a_switched_off_provider_connects_nobody(visit: Visit) -> None:
    back = await visit.consent(await visit.begin())
    await visit.change(is_active=False)
    await visit.begin(expect=404)
    answer = await visit.back(back)
    assert "status=failed" in answer.headers["location"]
    assert await visit.connections() == []


# --- Its end ---


async def test_revoking_ends_a_connection_here_and_at_the_provider(visit: Visit) -> None:
    await visit.connect()
    url = f"/oauth/connections/providers/{visit.id}"
    await visit.api.call("DELETE", url, visit.seller.key, expect=404)
    ended = (await visit.api.call("DELETE", url, visit.user.key, expect=200)).json()
    assert ended["success"] is True
    assert "at the provider" in ended["message"]
    assert [one.alive for one in visit.server.given] == [False]
    assert [one["token_type_hint"] for one in visit.server.asked("/revoke")] == ["refresh_token", "access_token"]
    assert await visit.connections() == []
    await visit.api.call("DELETE", url, visit.user.key, expect=404)


async def test_a_provider_that_cannot_be_told_stops_no_revocation(visit: Visit) -> None:
    await visit.connect()
    await visit.server.stop()
    answer = await visit.api.call("DELETE", f"/oauth/connections/providers/{visit.id}", visit.user.key, expect=200)
    assert "look into your account there" in answer.json()["message"]
    assert await visit.connections() == []
    await visit.server.start(port=visit.server.port)


@pytest.mark.parametrize(
    ("name", "value", "valid"),
    [
        ("token_url", "https://other.example.com/token", False),
        ("authorization_url", "https://other.example.com/authorize", False),
        ("revocation_url", "https://other.example.com/revoke", False),
        ("client_id", "another", False),
        ("issuer", "https://other.example.com", False),
        ("revocation_url", None, True),
        ("name", "Renamed", True),
        ("client_secret", "rotated", True),
        ("scopes", ["more"], True),
    ],
)
async def test_tokens_of_one_server_are_not_shown_to_another(visit: Visit, name: str, value: Any, valid: bool) -> None:
    await visit.connect()
    waiting = await visit.consent(await visit.begin())
    await visit.change(**{name: value})
    assert [one["is_valid"] for one in await visit.connections()] == [valid]
    if not valid:
        await visit.back(waiting, 400)


async def test_a_deleted_provider_takes_its_connections_along(visit: Visit) -> None:
    await visit.connect()
    url = f"/organizations/{visit.seller.organization_id}/oauth/providers/{visit.id}"
    await visit.api.call("DELETE", url, visit.seller.key, expect=204)
    assert await visit.connections() == []


async def test_the_log_says_who_connected_and_what_was_changed(visit: Visit) -> None:
    await visit.connect()
    await visit.change(name="Renamed")
    await visit.api.call("DELETE", f"/oauth/connections/providers/{visit.id}", visit.user.key, expect=200)
    path = f"/organizations/{visit.seller.organization_id}/oauth/providers/{visit.id}"
    await visit.api.call("DELETE", path, visit.seller.key, expect=204)
    async with visit.api.services.database.acquire() as connection:
        rows = await connection.fetch(
            "SELECT chain, action, resource_id, metadata::text FROM audit.entry WHERE action LIKE 'oauth%' AND chain = ANY ($1::uuid[])"
            " ORDER BY created_at", [visit.seller.organization_id, visit.user.organization_id],
        )  # fmt: skip
    assert [(row["chain"], row["action"]) for row in rows] == [
        (visit.seller.organization_id, "oauth_provider.create"),
        (visit.user.organization_id, "oauth_connection.create"),
        (visit.seller.organization_id, "oauth_provider.update"),
        (visit.user.organization_id, "oauth_connection.revoke"),
        (visit.seller.organization_id, "oauth_provider.delete"),
    ]
    assert str(rows[-1]["resource_id"]) == visit.id
    given = visit.server.given[0]
    assert not any(secret in str(row) for row in rows for secret in (SECRET, given.access, str(given.refresh)))


async def test_a_connection_that_is_ended_by_the_platforms_name_is_in_the_log(visit: Visit) -> None:
    await visit.connect()
    await visit.share()
    ended = await visit.api.call("DELETE", f"/oauth/connections/{visit.slug}", visit.user.key, expect=200)
    async with visit.api.services.database.acquire() as connection:
        row = await connection.fetchrow(
            "SELECT chain, action FROM audit.entry WHERE request_id = $1", ended.headers["x-request-id"]
        )
    assert row is not None
    assert (row["chain"], row["action"]) == (visit.user.organization_id, "oauth_connection.revoke")


async def test_the_page_at_the_end_repeats_nothing_but_words(api: Api) -> None:
    page = await api.call("GET", "/oauth/done?status=failed&error=access_denied", expect=200)
    assert "not connected (access_denied)" in page.text
    page = await api.call("GET", "/oauth/done?status=failed&error=%3Cscript%3E", expect=200)
    assert "script" not in page.text.partition("<main")[2].partition("</main")[0]
    assert "You can close this page" in (await api.call("GET", "/oauth/done?status=connected", expect=200)).text
