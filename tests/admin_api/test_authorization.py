"""Who may call what: every operation of the served document, tried by everybody, against what it declares it needs.

A new operation is in here as soon as it is served. Objects in paths do not exist and bodies are empty, so who is let
through is told 400 or 404 and changes nothing; who is not is told 401 or 403 first.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from fastapi import APIRouter, Depends

from admin_api.kit.access import Caller
from admin_api.kit.needs import OPEN, Undeclared, check, needs
from gateway.identity.permissions import ROLES, AccountRight, Permission
from gateway.identity.principals import new_key
from gateway.ids import uuid7
from tests.support.gateway import RunningGateway
from tests.support.reference import DOCUMENT
from tests.support.world import World

OPERATIONS = {
    f"{method.upper()} {path}": item for path, items in DOCUMENT["paths"].items() for method, item in items.items()
}
MEMBERS = ("viewer", "editor", "admin", "owner")
WITHOUT_KEY = ("anonymous", "revoked")
# Keys of the owner: one whose scopes are empty, and one of another shared organization.
NARROW = ("scopeless", "confined")
# The least first: what the owner is allowed to do may end the organization.
EVERYBODY = (*WITHOUT_KEY, "stranger", *NARROW, *MEMBERS)
# Who proves itself otherwise than by a key alone, and what an empty request is told then.
PROOFS = {
    "public": {},
    "operator": dict.fromkeys(EVERYBODY, 501),  # no token is set here
    "facilitator": dict.fromkeys(EVERYBODY, 501),  # no chain is set here
    "stripe signature": dict.fromkeys(EVERYBODY, 501),  # no account is set here
    "signature": {"revoked": 401},
    "wallet.read or signature": {"anonymous": 401, "revoked": 401, "scopeless": 403},
    "payment": {"revoked": 401, "anonymous": 402, "scopeless": 403},
    "first-party": {"anonymous": 401, "revoked": 401},
    "authenticated": {"anonymous": 401, "revoked": 401},
    "projects.read, in each organization": {"anonymous": 401, "revoked": 401, "scopeless": 403},
    "projects.write, in the organization that gets it": {"anonymous": 401, "revoked": 401, "scopeless": 403},
    "billing.read of the invoice, or operator": {"anonymous": 401, "revoked": 401},
    "billing.manage of the invoice": {"anonymous": 401, "revoked": 401},
    "member": {"anonymous": 401, "revoked": 401, "stranger": 403, "confined": 403},
    "member and account.manage": {"anonymous": 401, "revoked": 401, "stranger": 403, "confined": 403, "scopeless": 403},
}


@dataclass
class Stage:
    """A gateway with one shop, and everybody's key by what he is."""

    gateway: RunningGateway
    world: World
    slug: str
    keys: dict[str, str]
    accounts: dict[str, UUID]

    async def organization(self) -> UUID:
        """Make an organization with a member of each role."""
        organization, run = uuid7(), self.world.connection.execute
        await run(
            "INSERT INTO identity.organization (id, name, slug, created_by) VALUES ($1, 'Shared', $2, $3)",
            organization, f"shared-{organization.hex[-12:]}", self.accounts["owner"],
        )  # fmt: skip
        for role in MEMBERS:
            await run(
                "INSERT INTO identity.membership (organization_id, account_id, role) VALUES ($1, $2, $3)",
                organization, self.accounts[role], role,
            )  # fmt: skip
        return organization

    async def shop(self, organization: UUID) -> str:
        """Make a publisher of an organization and return its slug."""
        made = await self.world.publisher()
        await self.world.connection.execute(
            "UPDATE catalog.publisher SET organization_id = $2 WHERE id = $1", made.id, organization
        )
        return made.slug

    async def project(self, organization: UUID) -> UUID:
        """Make a project of an organization and return its id."""
        project = uuid7()
        await self.world.connection.execute(
            """
            INSERT INTO project.project (id, organization_id, tenant_id, name, region, compute_unit_min,
                compute_unit_max, block_public_connections, block_vpc_connections, enable_logical_replication, hipaa,
                protected_branches_only, history_retention_seconds, created_by)
            VALUES ($1, $2, $1, 'P', 'local', 1, 1, false, false, false, false, false, 21600, $3)
            """,
            project, organization, self.accounts["owner"],
        )  # fmt: skip
        return project

    async def key(self, organization: UUID, scopes: list[str] | None) -> str:
        """Make another key of the owner's."""
        key = new_key()
        await self.world.connection.execute(
            "INSERT INTO identity.api_key (id, key_id, secret_hash, name, organization_id, account_id, scopes)"
            " VALUES ($1, $2, $3, 'other', $4, $5, $6)",
            uuid7(), key.key_id, key.secret_hash, organization, self.accounts["owner"], scopes,
        )  # fmt: skip
        return key.text

    async def told(self, name: str, who: str, organization: UUID, slug: str, project: UUID) -> int:
        """Return the status that somebody gets for an operation with nothing in it."""
        method, path = name.split(" ")
        given = {"organization_id": str(organization), "slug": slug, "path": "v1/x", "project_id": str(project)}
        target = re.sub(r"\{(\w+)\}", lambda match: given.get(match[1], str(uuid7())), path)
        headers = {"Authorization": f"Bearer {self.keys[who]}"} if who in self.keys else {}
        with_body = "application/json" in OPERATIONS[name].get("requestBody", {}).get("content", {})
        options: dict[str, Any] = {"json": {}} if with_body else {}
        return (await self.gateway.client.request(method, target, headers=headers, **options)).status_code


@pytest_asyncio.fixture(scope="module")
async def stage(gateway: RunningGateway, world: World) -> Stage:
    shop = await world.publisher()
    found = {name: await world.agent() for name in ("stranger", "revoked", *MEMBERS)}
    await world.connection.execute(
        "UPDATE identity.api_key SET revoked_at = now() WHERE account_id = $1", found["revoked"].id
    )
    keys = {name: agent.key for name, agent in found.items()}
    made = Stage(gateway, world, shop.slug, keys, {name: agent.id for name, agent in found.items()})
    keys["scopeless"] = await made.key(found["owner"].organization_id, scopes=[])
    keys["confined"] = await made.key(await made.organization(), scopes=None)
    return made


def expected(words: str, who: str) -> int | None:
    """Return how somebody is refused what needs `words`, None for who is let through. Raises KeyError for new words."""
    if words in PROOFS:
        return PROOFS[words].get(who)
    if who in WITHOUT_KEY:
        return 401
    if words in [right.value for right in AccountRight]:
        return 403 if who == "scopeless" or (who, words) == ("confined", "account.manage") else None
    return None if Permission(words) in ROLES.get(who, frozenset()) else 403


@pytest.mark.parametrize("name", OPERATIONS)
async def test_everybody_is_told_what_the_declaration_says(stage: Stage, name: str) -> None:
    words = OPERATIONS[name]["x-permission"]
    sold = "/billing/publishers/{slug}" in name
    inside = "{project_id}" in name
    organization = await stage.organization() if sold or inside or "{organization_id}" in name else uuid7()
    slug = await stage.shop(organization) if sold else stage.slug
    project = await stage.project(organization) if inside else uuid7()
    for who in EVERYBODY:
        # Everybody owns the organization that `default` stands for, or no word at all.
        own = "/default/" in name or " /billing/payment-methods" in name
        role = "owner" if own and who not in (*WITHOUT_KEY, *NARROW) else who
        status, refusal = await stage.told(name, who, organization, slug, project), expected(words, role)
        if inside and who in ("stranger", "confined"):
            refusal = 404  # a project of others, and none, are answered alike
        if refusal is None:
            assert status not in (401, 403, 405, 500), (who, status)
        else:
            assert status == refusal, (who, words)


def test_every_kind_of_need_is_in_use() -> None:
    words = Counter(operation["x-permission"] for operation in OPERATIONS.values())
    assert PROOFS.keys() < words.keys()
    assert {"publishers.read", "publishers.write", "account.manage"} < words.keys()


def test_an_operation_without_a_declaration_stops_the_start() -> None:
    router = APIRouter()

    @router.get("/forgotten")
    async def forgotten(caller: Caller) -> None:
        """Know who calls, and forget to ask what he may."""

    @router.get("/twice", dependencies=[OPEN, needs(AccountRight.BUY)])
    async def twice() -> None:
        """Say two things."""

    @router.get("/nowhere", dependencies=[needs(Permission.ORG_READ)])
    async def nowhere() -> None:
        """Ask for a permission in no organization."""

    @router.get("/sound/{organization_id}", dependencies=[needs(Permission.ORG_READ), Depends(lambda: None)])
    async def sound() -> None:
        """Say one thing."""

    for route in router.routes[:3]:
        with pytest.raises(Undeclared):
            check([route])
    check(router.routes[3:])
