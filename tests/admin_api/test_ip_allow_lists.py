"""From which addresses a project is reached: its list, how it is changed, and that nobody shuts himself out unawares.

`api` asks from HERE. The same application is asked from elsewhere by clients of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from admin_api.app import build
from gateway.ids import uuid7
from gateway.settings import ServerSettings
from tests.admin_api.conftest import PUBLIC_URL, Api, Clerk, Member, close_api, open_api, settings_for
from tests.admin_api.test_projects import BELOW, BODIES, at, events, make, names
from tests.support.dev import tollway

HERE, INSIDE, OUTSIDE = "203.0.113.7", "198.51.100.9", "192.0.2.66"


_applications: dict[int, Any] = {}


def sent_from(api: Api, address: str | None) -> Api:
    """Return the same gateway, asked from another address, or from one that its server does not know."""
    client = None if address is None else (address, 4711)
    if id(api.services) not in _applications:
        _applications[id(api.services)] = build(api.services)
    transport = httpx.ASGITransport(_applications[id(api.services)], client=client)  # pyright: ignore[reportArgumentType]
    return Api(httpx.AsyncClient(transport=transport, base_url=PUBLIC_URL), api.services)


@pytest_asyncio.fixture(scope="module")
async def behind(database_url: str) -> AsyncIterator[Api]:
    """A gateway that believes what the proxy at HERE says of its callers."""
    server = ServerSettings(public_url=PUBLIC_URL, trusted_proxies=(f"{HERE}/32",))
    opened, _ = await open_api(settings_for(database_url, server=server))
    yield opened
    await close_api(opened)


async def listed(api: Api, owner: Member, project: dict[str, Any], *, expect: int = 200) -> Any:
    answer = (await api.call("GET", at(project, "/ip-allow"), owner.key, expect=expect)).json()
    return [entry["ip_address"] for entry in answer["data"]] if expect == 200 else answer


async def add(api: Api, owner: Member, project: dict[str, Any], network: str, *, expect: int = 201, **more: Any) -> Any:
    force = {"allow_lockout": "true"} if more.pop("force", False) else {}
    body = {"ip_address": network, **more}
    return (await api.call("POST", at(project, "/ip-allow"), owner.key, json=body, params=force, expect=expect)).json()


async def reset(
    api: Api, owner: Member, project: dict[str, Any], *networks: str, expect: int = 200, force: bool = False
) -> Any:
    body = {"entries": [{"ip_address": network} for network in networks]}
    options = {"json": body, "params": {"allow_lockout": "true"} if force else {}}
    return (await api.call("PUT", at(project, "/ip-allow/reset"), owner.key, expect=expect, **options)).json()


async def test_a_list_is_filled_described_and_emptied(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    project = await make(api, owner.key)
    assert await listed(api, owner, project) == []
    entry = (await add(api, owner, project, " 203.0.113.0/24 ", description=" The  office "))["data"]
    assert (entry["ip_address"], entry["description"], entry["created_by"], entry["project_id"]) == (
        "203.0.113.0/24", "The office", str(owner.id), project["id"],
    )  # fmt: skip
    assert (await add(api, owner, project, INSIDE))["data"]["description"] is None
    assert await listed(api, owner, project) == [INSIDE, "203.0.113.0/24"]
    body = {"entries": [{"ip_address": "203.0.113.0/24", "description": "Both"}, {"ip_address": "2001:db8::/32"}]}
    answer = await api.call("PUT", at(project, "/ip-allow/reset"), owner.key, json=body, expect=200)
    kept = {one["ip_address"]: one for one in answer.json()["data"]}
    assert kept.keys() == {"203.0.113.0/24", "2001:db8::/32"}
    same = kept["203.0.113.0/24"]
    assert (same["id"], same["created_at"], same["description"]) == (entry["id"], entry["created_at"], "Both")
    assert same["updated_at"] > entry["updated_at"]
    await api.call("DELETE", at(project, f"/ip-allow/{kept['2001:db8::/32']['id']}"), owner.key, expect=204)
    await api.call("DELETE", at(project, f"/ip-allow/{kept['2001:db8::/32']['id']}"), owner.key, expect=404)
    assert await listed(api, owner, project) == ["203.0.113.0/24"]
    assert (await reset(api, owner, project))["data"] == []


@pytest.mark.parametrize(
    ("given", "same", "shown"),
    [
        ("10.0.0.1", "10.0.0.1/32", "10.0.0.1"),
        ("10.0.0.0/8", "10.0.0.0/255.0.0.0", "10.0.0.0/8"),
        ("::ffff:192.0.2.1", "192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.0/120", "192.0.2.0/24", "192.0.2.0/24"),
        ("2001:DB8:0:0::1", "2001:db8::1/128", "2001:db8::1"),
        ("::/0", "0::/0", "::/0"),
    ],
)
async def test_a_network_is_in_the_list_once_however_it_is_written(
    api: Api, clerk: Clerk, given: str, same: str, shown: str
) -> None:
    owner = await clerk.agent()
    project = await make(api, owner.key)
    await add(api, owner, project, HERE)
    assert (await add(api, owner, project, given))["data"]["ip_address"] == shown
    assert (await add(api, owner, project, same, expect=409))["type"] == "/problems/conflict"
    told = await reset(api, owner, project, HERE, given, same, expect=400)
    assert told["errors"][0]["field"] == "entries.2.ip_address"
    assert await listed(api, owner, project) == [shown, HERE]


@pytest.mark.parametrize(
    "given",
    [
        "10.0.0.1/8", "10.0.0.0/33", "10.0.0", "0x0a000001", "010.0.0.1", "example.com", "", "fe80::1%1", "fe80::%1/64",
        "10.0.0.0-10.0.0.9", "10.0.0.1\u0660", "1/1/1", "2001:db8::1/32", "9" * 101, 7, None, ["10.0.0.1"],
    ],
)  # fmt: skip
async def test_what_is_no_network_is_refused_and_changes_nothing(api: Api, clerk: Clerk, given: Any) -> None:
    owner = await clerk.agent()
    project = await make(api, owner.key)
    await add(api, owner, project, HERE)
    assert (await add(api, owner, project, given, expect=400))["errors"][0]["field"] == "ip_address"
    told = await reset(api, owner, project, HERE, given, expect=400)
    assert told["errors"][0]["field"].replace("[1]", ".1") == "entries.1.ip_address"
    assert await listed(api, owner, project) == [HERE]


async def test_emptying_a_list_has_to_be_written_out(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    project = await make(api, owner.key)
    await add(api, owner, project, HERE)
    for body in ({}, {"entries": None}, {"entry": []}):
        await api.call("PUT", at(project, "/ip-allow/reset"), owner.key, json=body, expect=400)
    assert await listed(api, owner, project) == [HERE]
    hidden = await api.call(
        "POST", at(project, "/ip-allow"), owner.key, json={"ip_address": INSIDE, "description": "a\u202eb"}, expect=400
    )
    assert hidden.json()["errors"][0]["field"] == "description"


@pytest.mark.parametrize(("method", "path"), BELOW)
async def test_a_member_from_elsewhere_reaches_nothing_below_the_project(
    api: Api, clerk: Clerk, method: str, path: str
) -> None:
    """Nor its list: with a stolen login one could open the project from wherever one is."""
    owner = await clerk.agent()
    project = await make(api, owner.key)
    entry = (await add(api, owner, project, f"{HERE}/32"))["data"]
    target = path.format(project_id=project["id"], ip_id=entry["id"])
    options: dict[str, Any] = {"json": BODIES[method]} if method in BODIES else {}
    key = await api.call("POST", f"/organizations/{owner.organization_id}/api-keys", owner.key, json={"name": "k"})
    for address in (OUTSIDE, "2001:db8::1", "203.0.113.8", None):
        for credential in (owner.key, key.json()["data"]["api_key"]):
            refused = await sent_from(api, address).call(
                method, target, credential, params={"allow_lockout": "true"}, expect=403, **options
            )
            assert refused.json()["type"] == "/problems/address-not-allowed"
            assert HERE not in refused.text, "the list is nothing to tell"
    answer = await api.call("GET", at(project), owner.key, expect=200)
    assert answer.json()["data"]["name"] == "Tides"
    assert await listed(api, owner, project) == [HERE]
    outside = sent_from(api, OUTSIDE)
    assert await names(outside, owner.key) == ["Tides"], "the list of projects is the organization's"


async def test_strangers_are_not_told_of_a_list(api: Api, clerk: Clerk) -> None:
    owner, stranger = await clerk.agent(), await clerk.agent()
    project = await make(api, owner.key)
    await add(api, owner, project, HERE)
    outside = sent_from(api, OUTSIDE)
    answers = [
        await outside.call("GET", path, stranger.key, expect=404) for path in (at(project), f"/projects/{uuid7()}")
    ]
    first, second = ({**answer.json(), "instance": ""} for answer in answers)
    assert first == second


async def test_a_change_that_shuts_its_maker_out_is_refused_unless_it_is_meant(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    project = await make(api, owner.key)
    told = await add(api, owner, project, INSIDE, expect=409)
    assert (told["type"], told["address"]) == ("/problems/would-lock-out", HERE)
    assert await listed(api, owner, project) == []
    mine = (await add(api, owner, project, HERE))["data"]
    await add(api, owner, project, INSIDE)
    assert (await reset(api, owner, project, INSIDE, OUTSIDE, expect=409))["type"] == "/problems/would-lock-out"
    place = at(project, f"/ip-allow/{mine['id']}")
    refused = await api.call("DELETE", place, owner.key, expect=409)
    assert refused.json()["address"] == HERE
    assert sorted(await listed(api, owner, project)) == sorted([HERE, INSIDE])
    unknown = sent_from(api, None)
    other = await make(api, owner.key)
    assert (await add(unknown, owner, other, HERE, expect=409))["address"] == "an unknown address"
    # The last entry may go: then everybody is let in.
    await add(api, owner, other, HERE)
    (only,) = (await api.call("GET", at(other, "/ip-allow"), owner.key)).json()["data"]
    await api.call("DELETE", at(other, f"/ip-allow/{only['id']}"), owner.key, expect=204)
    # Meant is meant.
    await api.call("DELETE", place, owner.key, params={"allow_lockout": "true"}, expect=204)
    await listed(api, owner, project, expect=403)
    assert await listed(sent_from(api, INSIDE), owner, project) == [INSIDE]
    await add(sent_from(api, INSIDE), owner, project, f"{HERE}/32")
    assert await listed(api, owner, project) == [HERE, INSIDE]


async def test_only_who_may_changes_a_list(api: Api, clerk: Clerk) -> None:
    owner, editor = await clerk.agent(), await clerk.agent()
    await clerk.join(editor, owner.organization_id, "editor")
    project = await make(api, owner.key)
    entry = (await add(api, owner, project, HERE))["data"]
    assert await listed(api, editor, project) == [HERE]
    for method, rest, body in (
        ("POST", "/ip-allow", {"ip_address": INSIDE}),
        ("PUT", "/ip-allow/reset", {"entries": []}),
        ("DELETE", f"/ip-allow/{entry['id']}", None),
    ):
        refused = await api.call(method, at(project, rest), editor.key, json=body, expect=403)
        assert "ip_allow.manage" in refused.json()["detail"]
    assert await listed(api, owner, project) == [HERE]


async def test_an_entry_is_taken_out_of_its_own_project_only(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    one, other = await make(api, owner.key), await make(api, owner.key)
    entry = (await add(api, owner, one, HERE))["data"]
    await api.call("DELETE", at(other, f"/ip-allow/{entry['id']}"), owner.key, expect=404)
    assert await listed(api, owner, one) == [HERE]


@pytest.mark.parametrize(
    "claimed",
    [
        [INSIDE], [f"{INSIDE}, {OUTSIDE}"], [INSIDE, OUTSIDE], [f"{INSIDE}, not-an-address"], [f"{INSIDE},"], ["unknown"],
    ],
)  # fmt: skip
async def test_what_a_caller_claims_of_itself_is_not_believed(
    api: Api, behind: Api, clerk: Clerk, claimed: list[str]
) -> None:
    owner = await clerk.agent()
    project = await make(api, owner.key)
    await reset(api, owner, project, INSIDE, force=True)
    fields = [("X-Forwarded-For", one) for one in claimed]
    others = [("Forwarded", f"for={INSIDE}"), ("X-Real-IP", INSIDE), ("CF-Connecting-IP", INSIDE)]

    async def status(door: Api, *more: tuple[str, str]) -> int:
        headers = [("Authorization", f"Bearer {owner.key}"), *more]
        return (await door.http.get(at(project), headers=headers)).status_code

    # Straight from a caller, and from a peer that is no proxy of a gateway that has one.
    assert await status(api, *fields, *others) == 403
    assert await status(sent_from(behind, OUTSIDE), *fields, *others) == 403
    # By the proxy: what stands left of what it added is the caller's own.
    through = fields if claimed != [INSIDE] else [("X-Forwarded-For", f"{INSIDE}, {OUTSIDE}")]
    assert await status(behind, *through, *others) == 403
    for true in (INSIDE, f"{OUTSIDE}, {INSIDE}", f"{INSIDE}, {HERE}", f"::ffff:{INSIDE}", f"{INSIDE}:8080"):
        assert await status(behind, ("X-Forwarded-For", true)) == 200


async def test_each_family_has_its_own_networks(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    project = await make(api, owner.key)
    await reset(api, owner, project, "2001:db8:7::/48", "198.51.100.0/25", "::ffff:203.0.113.7")
    for address, expect in (
        ("2001:db8:7::1", 200), ("2001:db8:8::1", 403), ("198.51.100.127", 200), ("198.51.100.128", 403),
        ("::ffff:198.51.100.1", 200), ("::ffff:198.51.100.200", 403), ("2001:db8:7:0:ffff::%eth0", 200),
    ):  # fmt: skip
        await sent_from(api, address).call("GET", at(project), owner.key, expect=expect)
    await reset(api, owner, project, "::/0", force=True)
    await api.call("GET", at(project), owner.key, expect=403)
    await sent_from(api, "2001:db8::1").call("GET", at(project), owner.key, expect=200)


async def test_changes_at_once_leave_a_list_that_somebody_asked_for(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    project = await make(api, owner.key)
    path = at(project, "/ip-allow")
    body = {"ip_address": HERE}
    answers = await asyncio.gather(*(api.call("POST", path, owner.key, json=body) for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 9
    first, second = [HERE, "10.0.0.0/8", "10.1.0.0/16"], [HERE, "172.16.0.0/12"]
    for _ in range(6):
        resets = (reset(api, owner, project, *networks) for networks in (first, second, first, second))
        await asyncio.gather(*resets)
        assert sorted(await listed(api, owner, project)) in (sorted(first), sorted(second))
    # Whoever fills it cannot go past its end, and a reset that comes in between loses nothing of itself.
    await reset(api, owner, project, HERE, *(f"10.0.{number}.0/24" for number in range(59)))
    bodies = [{"ip_address": f"10.1.{number}.0/24"} for number in range(8)]
    answers = await asyncio.gather(*(api.call("POST", path, owner.key, json=body) for body in bodies))
    assert sorted(answer.status_code for answer in answers) == [201] * 4 + [409] * 4
    assert next(one.json()["limit"] for one in answers if one.status_code == 409) == 64
    assert len(await listed(api, owner, project)) == 64
    await reset(api, owner, project, *(f"10.0.{number}.0/24" for number in range(65)), expect=400)


async def test_changes_are_in_the_log_and_told_to_webhooks(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    project = await make(api, owner.key)
    base = f"/organizations/{owner.organization_id}"
    hook = {"name": "Ours", "url": "http://127.0.0.1:9/h", "events": ["project.ip_allow_list_updated"]}
    made = (await api.call("POST", f"{base}/webhooks", owner.key, json=hook, expect=201)).json()["data"]["webhook"]
    entry = (await add(api, owner, project, HERE))["data"]
    await add(api, owner, project, INSIDE, expect=201)
    await reset(api, owner, project, HERE)
    await reset(api, owner, project, OUTSIDE, expect=409)
    await api.call("DELETE", at(project, f"/ip-allow/{entry['id']}"), owner.key, expect=204)
    answer = await api.call(
        "GET", f"{base}/audit-logs", owner.key, params={"resource_type": "ip_allow_list"}, expect=200
    )
    rows = answer.json()["data"]["data"][::-1]
    assert [(row["action"], row["resource_id"], row["metadata"].get("ip_address")) for row in rows] == [
        ("ip_allow_list.add", project["id"], HERE),
        ("ip_allow_list.add", project["id"], INSIDE),
        ("ip_allow_list.update", project["id"], None),
        ("ip_allow_list.remove", project["id"], HERE),
    ]
    assert [row["metadata"]["changed"] for row in rows] == [[HERE], [INSIDE], [INSIDE], [HERE]]
    assert await events(api, made["id"]) == ["project.ip_allow_list_updated"] * 4


async def test_the_operator_lets_in_who_has_shut_everybody_out(api: Api, clerk: Clerk, database_url: str) -> None:
    owner = await clerk.agent()
    project = await make(api, owner.key)
    await reset(api, owner, project, "192.0.2.1", force=True)
    await listed(api, owner, project, expect=403)

    async def run(*arguments: str) -> Any:
        return await asyncio.to_thread(tollway, "project", "ip-allow", *arguments, TOLLWAY_DATABASE_URL=database_url)

    assert (await run("show", project["id"])).stdout.split() == ["192.0.2.1"]
    cleared = await run("clear", project["id"])
    assert (cleared.returncode, cleared.stdout.split()[:2]) == (0, ["removed", "192.0.2.1"]), cleared.stderr
    assert await listed(api, owner, project) == []
    assert "everybody" in (await run("show", project["id"])).stdout
    for command in ("show", "clear"):
        refused = await run(command, str(uuid7()))
        assert (refused.returncode, "there is no project" in refused.stderr) == (1, True)
    answer = await api.call("GET", f"/organizations/{owner.organization_id}/audit-logs", owner.key, expect=200)
    newest = answer.json()["data"]["data"][0]
    assert (newest["action"], newest["actor_type"]) == ("ip_allow_list.update", "operator")
