"""Projects: their settings, whose they are, and what belongs to them."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from gateway.ids import uuid7
from tests.admin_api.conftest import Api, Clerk
from tests.admin_api.test_organizations import shared
from tests.support.reference import DOCUMENT

BELOW = [
    (method.upper(), path)
    for path, item in DOCUMENT["paths"].items()
    for method in item
    if path.startswith("/projects/{project_id}")
]
# What a project is of which nothing was said.
PLAIN = {
    "region": "local",
    "compute_unit_min": 1,
    "compute_unit_max": 1,
    "block_public_connections": False,
    "block_vpc_connections": False,
    "enable_logical_replication": False,
    "hipaa": False,
    "protected_branches_only": False,
    "is_service_project": False,
    "default_branch_id": None,
    "branch_count": 0,
    "storage_bytes": 0,
}
BODIES = {"POST": {"ip_address": "0.0.0.0/0"}, "PUT": {"entries": []}, "PATCH": {"name": "Taken over"}}


async def make(api: Api, key: str, **body: Any) -> dict[str, Any]:
    order = {"name": "Tides", "region": "local", **body}
    return (await api.call("POST", "/projects", key, json=order, expect=201)).json()["data"]


def at(project: dict[str, Any], rest: str = "") -> str:
    return f"/projects/{project['id']}{rest}"


async def names(api: Api, key: str, **query: Any) -> list[str]:
    answer = await api.call("GET", "/projects", key, params=query, expect=200)
    return [one["name"] for one in answer.json()["data"]]


async def test_a_project_is_made_changed_and_ended(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    made = await make(api, owner.key, name=" Tides  & winds ")
    assert PLAIN.items() <= made.items()
    assert (made["name"], made["organization_id"]) == ("Tides & winds", str(owner.organization_id))
    found = (await api.call("GET", at(made), owner.key, expect=200)).json()["data"]
    assert made.items() <= found.items()
    assert "postgres_version" not in found, "there is no database that could have one"
    assert (found["history_retention_seconds"], found["active_time_seconds"], found["compute_last_active_at"]) == (
        21_600, 0.0, None,
    )  # fmt: skip
    assert (found["created_by"], found["deleted_at"]) == (str(owner.id), None)
    change = {"name": "Winds", "compute_unit_max": 4, "history_retention_seconds": 3_600, "hipaa": None}
    changed = (await api.call("PATCH", at(made), owner.key, json=change, expect=200)).json()["data"]
    moved = {
        "name": "Winds",
        "compute_unit_max": 4,
        "default_compute_size_max": 4.0,
        "history_retention_seconds": 3_600,
    }
    assert changed == {**found, **moved, "updated_at": changed["updated_at"]}
    assert changed["updated_at"] > found["updated_at"]
    size = (await api.call("GET", at(made, "/size"), owner.key, expect=200)).json()["data"]
    assert size == {"project_id": made["id"], "size_bytes": 0}
    for query in ({}, {"branch_id": str(uuid7()), "pooled": "true", "database_name": "x", "role_name": "y"}):
        nowhere = await api.call("GET", at(made, "/connection_uri"), owner.key, params=query, expect=404)
        assert "no endpoint" in nowhere.json()["detail"]
    assert (await api.call("DELETE", at(made), owner.key, expect=200)).json() == {}
    assert await names(api, owner.key) == []
    for method, path in (("GET", at(made)), ("PATCH", at(made)), ("DELETE", at(made)), ("GET", at(made, "/ip-allow"))):
        await api.call(method, path, owner.key, expect=404, **({"json": {}} if method == "PATCH" else {}))


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "a\u202eb"}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": " "}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "Seren-Services"}, "name"),
        ({"region": "mars"}, "region"),
        ({"compute_unit_min": 0}, "compute_unit_min"),
        ({"compute_unit_min": 3, "compute_unit_max": 2}, "compute_unit_min"),
        ({"compute_unit_max": 17}, "compute_unit_max"),
        ({"compute_unit_min": 17}, "compute_unit_max"),
        ({"compute_unit_min": 1.5}, "compute_unit_min"),
        ({"block_public_connections": True, "block_vpc_connections": True}, "block_vpc_connections"),
        ({"hipaa": True}, "hipaa"),
        ({"hipaa": "yes"}, "hipaa"),
        ({"history_retention_seconds": 3_600}, "history_retention_seconds"),  # only of one that is there
        ({"organization_id": "mine"}, "organization_id"),
    ],
)
async def test_settings_that_cannot_be_are_refused(api: Api, clerk: Clerk, body: dict[str, Any], field: str) -> None:
    owner = await clerk.agent()
    refused = await api.call("POST", "/projects", owner.key, json={"name": "P", "region": "local", **body}, expect=400)
    assert refused.json()["errors"][0]["field"] == field
    assert await names(api, owner.key) == []


async def test_a_change_is_checked_as_the_whole_that_comes_out(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    made = await make(api, owner.key, compute_unit_min=2, compute_unit_max=4, block_public_connections=True)
    for change, field in (
        ({"compute_unit_max": 1}, "compute_unit_min"),
        ({"compute_unit_min": 5}, "compute_unit_min"),
        ({"block_vpc_connections": True}, "block_vpc_connections"),
        ({"history_retention_seconds": 3_599}, "history_retention_seconds"),
        ({"history_retention_seconds": 2_592_001}, "history_retention_seconds"),
        ({"region": "local"}, "region"),
    ):
        refused = await api.call("PATCH", at(made), owner.key, json=change, expect=400)
        assert refused.json()["errors"][0]["field"] == field
    swap = {"block_vpc_connections": True, "block_public_connections": False, "history_retention_seconds": 2_592_000}
    found = (await api.call("PATCH", at(made), owner.key, json=swap, expect=200)).json()["data"]
    assert swap.items() <= found.items()


async def test_the_list_has_pages_and_all_of_ones_organizations(api: Api, clerk: Clerk) -> None:
    owner, stranger = await clerk.agent(), await clerk.agent()
    base = await shared(api, owner)
    organization_id = base.rpartition("/")[2]
    await make(api, owner.key, name="a")
    theirs = await make(api, owner.key, name="b", organization_id=organization_id)
    await make(api, owner.key, name="a")  # a name may be had twice; the id tells
    await make(api, stranger.key, name="not theirs")
    assert theirs["organization_id"] == organization_id
    assert await names(api, owner.key) == ["a", "b", "a"]
    answer = await api.call("GET", "/projects", owner.key, params={"limit": 1, "offset": 1, "show_service": "true"})
    assert [one["name"] for one in answer.json()["data"]] == ["b"]
    assert answer.json()["pagination"] == {"count": 1, "total": 3, "limit": 1, "offset": 1, "has_more": True}
    for wrong in ({"limit": 0}, {"limit": 101}, {"offset": -1}, {"show_service": "perhaps"}):
        await api.call("GET", "/projects", owner.key, params=wrong, expect=400)
    # A key of the shared organization makes and sees only what is there; one without the scope nothing at all.
    key = (await api.call("POST", f"{base}/api-keys", owner.key, json={"name": "ci"}, expect=201)).json()["data"]
    assert (await make(api, key["api_key"], name="c"))["organization_id"] == organization_id
    assert await names(api, key["api_key"]) == ["c", "b"]
    body = {"name": "d", "region": "local", "organization_id": str(owner.organization_id)}
    await api.call("POST", "/projects", key["api_key"], json=body, expect=403)
    # Who may not see projects there does not find them in the list.
    role = {"name": "bookkeeper", "permissions": ["org.read"]}
    await api.call("POST", f"{base}/roles", owner.key, json=role, expect=201)
    await clerk.join(stranger, UUID(organization_id), "viewer")
    assert await names(api, stranger.key) == ["c", "not theirs", "b"]
    put = {"role_name": "bookkeeper"}
    await api.call("PUT", f"{base}/members/{stranger.id}/role", owner.key, json=put, expect=200)
    assert await names(api, stranger.key) == ["not theirs"]


async def test_a_project_is_made_only_where_one_may(api: Api, clerk: Clerk) -> None:
    owner, viewer, stranger = await clerk.agent(), await clerk.agent(), await clerk.agent()
    base = await shared(api, owner)
    organization_id = base.rpartition("/")[2]
    await clerk.join(viewer, UUID(organization_id), "viewer")
    body = {"name": "P", "region": "local", "organization_id": organization_id}
    said = [await api.call("POST", "/projects", who.key, json=body, expect=403) for who in (viewer, stranger)]
    assert "projects.write" in said[0].json()["detail"]
    unknown = await api.call(
        "POST", "/projects", stranger.key, json={**body, "organization_id": str(uuid7())}, expect=403
    )
    first, second = ({**answer.json(), "instance": ""} for answer in (said[1], unknown))
    assert first == second
    made = await make(api, owner.key, organization_id=organization_id)
    await api.call("GET", at(made), viewer.key, expect=200)
    await api.call("PATCH", at(made), viewer.key, json={"name": "x"}, expect=403)
    # The organization stays as long as it has one.
    refused = await api.call("DELETE", base, owner.key, expect=409)
    assert "projects" in refused.json()["detail"]
    await api.call("DELETE", at(made), owner.key, expect=200)
    await api.call("DELETE", base, owner.key, expect=204)
    await api.call("GET", at(made), owner.key, expect=404)


@pytest.mark.parametrize(("method", "path"), BELOW)
async def test_another_organizations_project_is_answered_like_none(
    api: Api, clerk: Clerk, method: str, path: str
) -> None:
    """Also to somebody whose organization has the same things, and whose ids are put in where they fit."""
    owner, stranger = await clerk.agent(), await clerk.agent()
    theirs, mine = await make(api, owner.key), await make(api, stranger.key)
    entry = await api.call("POST", at(theirs, "/ip-allow"), owner.key, json={"ip_address": "203.0.113.7"}, expect=201)
    before = (await api.call("GET", at(theirs), owner.key)).json()
    options = {"json": BODIES[method]} if method in BODIES else {}

    def target(project_id: str) -> str:
        return path.format(project_id=project_id, ip_id=entry.json()["data"]["id"])

    answers = [
        await api.call(method, target(project_id), stranger.key, expect=404, **options)
        for project_id in (theirs["id"], str(uuid7()))
    ]
    first, second = ({**answer.json(), "instance": ""} for answer in answers)
    assert first == second
    await api.call(method, target(theirs["id"]), expect=401, **options)
    assert (await api.call("GET", at(theirs), owner.key)).json() == before
    assert len((await api.call("GET", at(theirs, "/ip-allow"), owner.key)).json()["data"]) == 1
    if "{ip_id}" in path:
        await api.call(method, target(mine["id"]), stranger.key, expect=404)


async def test_no_more_projects_than_one_may_have(api: Api, clerk: Clerk, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = await clerk.agent()
    few = api.services.settings.projects.model_copy(update={"most": 2})
    settings = api.services.settings.model_copy(update={"projects": few})
    monkeypatch.setattr(api.services, "settings", settings)
    body = {"name": "P", "region": "local"}
    answers = await asyncio.gather(*(api.call("POST", "/projects", owner.key, json=body) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [201, 201, 409, 409, 409, 409]
    assert next(answer.json()["limit"] for answer in answers if answer.status_code == 409) == 2
    made = next(answer.json()["data"] for answer in answers if answer.status_code == 201)
    await api.call("DELETE", at(made), owner.key, expect=200)
    await make(api, owner.key)


async def test_publishers_and_webhooks_belong_to_projects_of_their_organization(api: Api, clerk: Clerk) -> None:
    owner, stranger = await clerk.agent(), await clerk.agent()
    mine, other, theirs = await make(api, owner.key), await make(api, owner.key), await make(api, stranger.key)
    base = f"/organizations/{owner.organization_id}"
    hook = {"name": "Ours", "url": "http://127.0.0.1:9/hook", "events": ["*"]}
    gone = await make(api, owner.key)
    await api.call("DELETE", at(gone), owner.key, expect=200)
    for wrong in (theirs["id"], gone["id"], str(uuid7())):
        order = clerk.order(project_id=wrong)
        refused = await api.call("POST", f"{base}/publishers", owner.key, json=order, expect=400)
        assert refused.json()["errors"][0] == {
            "field": "project_id", "message": "is no project of this organization",
        }  # fmt: skip
        await api.call("POST", f"{base}/webhooks", owner.key, json={**hook, "project_id": wrong}, expect=400)
    shop = await clerk.publisher(owner, project_id=mine["id"])
    assert shop["project_id"] == mine["id"]
    store = (await api.call("GET", f"/publishers/{shop['slug']}", owner.key)).json()["data"]
    assert store["project_id"] is None, "buyers need not know"
    place = f"{base}/publishers/{shop['id']}"
    await api.call("PUT", place, owner.key, json={"project_id": theirs["id"]}, expect=400)
    refused = await api.call("DELETE", at(mine), owner.key, expect=409)
    assert refused.json()["publishers"] == [shop["slug"]]
    moved = await api.call("PUT", place, owner.key, json={"project_id": other["id"]}, expect=200)
    assert moved.json()["data"]["project_id"] == other["id"]
    answer = await api.call("POST", f"{base}/webhooks", owner.key, json={**hook, "project_id": mine["id"]}, expect=201)
    made = answer.json()["data"]["webhook"]
    assert made["project_id"] == mine["id"]
    assert (await api.call("DELETE", at(mine), owner.key, expect=409)).json()["webhooks"] == ["Ours"]
    await api.call("DELETE", f"{base}/webhooks/{made['id']}", owner.key, expect=204)
    await api.call("DELETE", at(mine), owner.key, expect=200)
    cleared = await api.call("PUT", place, owner.key, json={"project_id": None}, expect=200)
    assert cleared.json()["data"]["project_id"] is None
    await api.call("DELETE", at(other), owner.key, expect=200)


async def test_a_project_that_ends_at_the_same_moment_is_named_by_nothing(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    path = f"/organizations/{owner.organization_id}/publishers"
    for _ in range(8):
        made = await make(api, owner.key)
        named, ended = await asyncio.gather(
            api.call("POST", path, owner.key, json=clerk.order(project_id=made["id"])),
            api.call("DELETE", at(made), owner.key),
        )
        assert (named.status_code, ended.status_code) in ((201, 409), (400, 200))


async def test_webhooks_of_a_project_hear_of_it_alone(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    mine, other = await make(api, owner.key), await make(api, owner.key)
    base = f"/organizations/{owner.organization_id}"

    async def hook(**body: Any) -> str:
        order = {"name": "Ours", "url": "http://127.0.0.1:9/hook", "events": ["*"], **body}
        answer = await api.call("POST", f"{base}/webhooks", owner.key, json=order, expect=201)
        return answer.json()["data"]["webhook"]["id"]

    every, one = await hook(), await hook(project_id=mine["id"])
    for project in (mine, other):
        await api.call("PATCH", at(project), owner.key, json={"name": "New"}, expect=200)
        await api.call("PUT", at(project, "/ip-allow/reset"), owner.key, json={"entries": []}, expect=200)
    shop = await clerk.publisher(owner, project_id=other["id"])
    place = f"{base}/publishers/{shop['id']}"
    for project in (mine["id"], other["id"]):  # it hears who comes, and who goes
        await api.call("PUT", place, owner.key, json={"project_id": project}, expect=200)
    await api.call("POST", f"{base}/api-keys", owner.key, json={"name": "ci"}, expect=201)
    of_lists = ["project.updated", "project.ip_allow_list_updated"]
    assert await events(api, one) == [*of_lists, "publisher.updated", "publisher.updated"]
    assert await events(api, every) == [
        *of_lists, *of_lists, "publisher.created", "publisher.updated", "publisher.updated", "api_key.created",
    ]  # fmt: skip


async def events(api: Api, webhook_id: str) -> list[str]:
    async with api.services.database.acquire() as connection:
        rows = await connection.fetch(
            "SELECT e.type FROM webhook.delivery d JOIN webhook.event e ON e.id = d.event_id"
            " WHERE d.endpoint_id = $1::text::uuid ORDER BY d.place",
            webhook_id,
        )
    return [row["type"] for row in rows]
