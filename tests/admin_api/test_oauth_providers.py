"""OAuth providers of organizations: what is stored, what is shown, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.admin_api.conftest import Api, Clerk, Member

SECRET = "client-secret-9a1b"


def definition(slug: str = "acme", **changes: Any) -> dict[str, Any]:
    body = {
        "name": "Acme", "slug": slug, "authorization_url": "https://id.example.com/authorize?access_type=offline",
        "token_url": "https://id.example.com/token", "client_id": "tollway", "client_secret": SECRET,
        "scopes": ["read", "read", "write"], **changes,
    }  # fmt: skip
    return {name: value for name, value in body.items() if value is not ...}


def path_of(owner: Member, provider: dict[str, Any] | None = None) -> str:
    return f"/organizations/{owner.organization_id}/oauth/providers" + (f"/{provider['id']}" if provider else "")


async def made(api: Api, owner: Member, **changes: Any) -> dict[str, Any]:
    answer = await api.call("POST", path_of(owner), owner.key, json=definition(**changes), expect=201)
    return answer.json()["data"]


async def test_what_is_defined_is_shown_without_its_secret(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    provider = await made(api, owner, description="Of Acme", issuer="https://id.example.com")
    shown = (await api.call("GET", path_of(owner, provider), owner.key, expect=200)).json()["data"]
    listed = (await api.call("GET", path_of(owner), owner.key, expect=200)).json()
    assert listed == {"data": [shown]}
    assert shown == provider
    assert SECRET not in str(listed)
    assert (shown["scopes"], shown["pkce_required"], shown["is_active"]) == (["read", "write"], True, True)
    assert shown["token_endpoint_auth_method"] == "client_secret_basic"
    assert shown["organization_id"] == str(owner.organization_id)


async def test_the_secret_is_sealed_at_rest(api: Api, clerk: Clerk) -> None:
    provider = await made(api, await clerk.agent())
    async with api.services.database.acquire() as connection:
        row = await connection.fetchrow("SELECT * FROM oauth.provider WHERE id = $1", provider["id"])
    assert SECRET not in str(dict(row))
    assert SECRET.encode() not in row["client_secret"]


async def test_null_clears_what_may_be_empty_and_nothing_else(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    provider = await made(
        api, owner, description="x", logo_url="https://a.example/x.png", userinfo_url="https://id.example.com/me",
        revocation_url="https://id.example.com/revoke", issuer="https://id.example.com",
    )  # fmt: skip
    nothing = dict.fromkeys(definition() | provider)
    for name in ("id", "created_at", "updated_at", "organization_id"):
        del nothing[name]
    changed = (await api.call("PATCH", path_of(owner, provider), owner.key, json=nothing, expect=200)).json()["data"]
    cleared = {"description", "logo_url", "userinfo_url", "revocation_url", "issuer"}
    assert {name for name in changed if changed[name] != provider[name]} == {*cleared, "updated_at"}


async def test_a_new_secret_replaces_the_old_one(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    provider = await made(api, owner)
    await api.call("PATCH", path_of(owner, provider), owner.key, json={"client_secret": "another"}, expect=200)
    async with api.services.database.acquire() as connection:
        row = await connection.fetchrow("SELECT * FROM oauth.provider WHERE id = $1", provider["id"])
    assert api.services.box.open(row["client_secret"], row["id"].bytes) == b"another"


async def test_a_slug_is_taken_in_its_own_organization_only(api: Api, clerk: Clerk) -> None:
    owner, other = await clerk.agent(), await clerk.agent()
    await made(api, owner)
    await api.call("POST", path_of(owner), owner.key, json=definition(), expect=409)
    await made(api, other)
    second = await made(api, owner, slug="second")
    await api.call("PATCH", path_of(owner, second), owner.key, json={"slug": "acme"}, expect=409)


async def test_nobody_but_an_operator_gives_a_provider_away(api: Api, clerk: Clerk) -> None:
    owner, other = await clerk.agent(), await clerk.agent()
    provider = await made(api, owner)
    for organization in (None, str(other.organization_id), "01890000-0000-7000-8000-000000000001"):
        change = {"organization_id": organization}
        await api.call("PATCH", path_of(owner, provider), owner.key, json=change, expect=403)
    change = {"organization_id": str(owner.organization_id)}
    await api.call("PATCH", path_of(owner, provider), owner.key, json=change, expect=200)


async def test_a_deleted_provider_is_gone(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    provider = await made(api, owner)
    await api.call("DELETE", path_of(owner, provider), owner.key, expect=204)
    for method in ("GET", "DELETE"):
        await api.call(method, path_of(owner, provider), owner.key, expect=404)
    await api.call("PATCH", path_of(owner, provider), owner.key, json={"name": "x"}, expect=404)


async def test_another_organizations_provider_is_not_there(api: Api, clerk: Clerk) -> None:
    owner, other = await clerk.agent(), await clerk.agent()
    provider = await made(api, owner)
    for method in ("GET", "PATCH", "DELETE"):
        body = {"json": {"name": "x"}} if method == "PATCH" else {}
        await api.call(method, path_of(other, provider), other.key, expect=404, **body)
        await api.call(method, path_of(owner, provider), other.key, expect=403, **body)
    for method in ("GET", "POST"):
        body = {"json": definition()} if method == "POST" else {}
        await api.call(method, path_of(owner), other.key, expect=403, **body)


async def test_viewers_see_providers_and_change_none(api: Api, clerk: Clerk) -> None:
    owner, viewer = await clerk.agent(), await clerk.agent()
    await clerk.join(viewer, owner.organization_id, "viewer")
    provider = await made(api, owner)
    await api.call("GET", path_of(owner, provider), viewer.key, expect=200)
    await api.call("POST", path_of(owner), viewer.key, json=definition("mine"), expect=403)
    await api.call("PATCH", path_of(owner, provider), viewer.key, json={"name": "x"}, expect=403)
    await api.call("DELETE", path_of(owner, provider), viewer.key, expect=403)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("authorization_url", "http://id.example.com/authorize"),
        ("authorization_url", "https://192.168.1.10/authorize"),
        ("authorization_url", "https://id.example.com/authorize?state=1"),
        ("authorization_url", "https://id.example.com/authorize?code_challenge_method=plain"),
        ("token_url", "https://[::1]/token"),
        ("token_url", "https://0x0a000005/token"),
        ("token_url", "javascript:alert(1)"),
        ("userinfo_url", "https://169.254.169.254/latest"),
        ("revocation_url", "https://10.0.0.5/revoke"),
        ("scopes", ["with blank"]),
        ("scopes", [""]),
        ("scopes", ["a" * 300]),
        ("scopes", ["x"] * 101),
        ("client_secret", ""),
        ("client_secret", "two\r\nlines"),
        ("client_id", " "),
        ("slug", "Upper"),
        ("token_endpoint_auth_method", "private_key_jwt"),
        ("pkce_required", "yes"),
        ("issuer", "nobody"),
        ("surprise", 1),
    ],
)
async def test_what_cannot_be_is_refused_by_name(api: Api, clerk: Clerk, name: str, value: Any) -> None:
    owner = await clerk.agent()
    provider = await made(api, owner)
    body = {**definition("other"), name: value}
    for answer in (
        await api.call("POST", path_of(owner), owner.key, json=body, expect=400),
        await api.call("PATCH", path_of(owner, provider), owner.key, json={name: value}, expect=400),
    ):
        assert [error["field"].partition(".")[0] for error in answer.json()["errors"]] == [name]
        assert SECRET not in answer.text
