"""What an operation needs: declared once at its route, enforced by that, and shown as `x-permission` in the document.

`needs(Permission.X)` is a dependency that answers 401 without a credential and 403 where the caller may not do X in the
organization of the path; its value is the Member. It goes into the signature, or into `dependencies` where nobody reads
it. `needs(Permission.X, seller=True)` asks for it where the publisher belongs whose slug is in the path, and gives the
Seller. `needs(Permission.X, project=True)` asks for it where the project of the path belongs, answers 404 to everybody
who is not there and 403 from an address that its list leaves out, and gives the InProject. `needs(AccountRight.X)` is
the same for the caller's own account, `Known` for what any credential may do, `AnyMember` for what every member may,
`OPEN` for what nobody has to be known for. Dependencies with another proof (the operator token, a wallet's signature)
say so by `@declares`.

`declared` reads the declaration of a route, and an application with a route that has none does not start: an operation
can be forgotten here, but not go unguarded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, TypeVar
from uuid import UUID

from fastapi import Depends, Request
from fastapi.routing import APIRoute

from admin_api.kit.access import Caller, ServicesDep, public, registration, sent_from
from gateway.catalog.records import FIND_BY_SLUG, Record
from gateway.errors import Forbidden, InvalidRequest
from gateway.identity.organizations import default_of
from gateway.identity.permissions import (
    SCOPES,
    AccountRight,
    Member,
    Permission,
    demand_right,
    demand_scope,
    membership,
    require,
)
from gateway.identity.principals import Principal
from gateway.projects.access import InProject, entered

Dependency = TypeVar("Dependency", bound=Callable[..., Any])

_WORDS: dict[Callable[..., Any], str] = {}


NOT_A_SELLER = "You have no publisher with this slug."


@dataclass(frozen=True, slots=True)
class Seller:
    """A publisher, and the member of its organization who acts for it."""

    publisher: Record
    member: Member


class Undeclared(Exception):
    """A route that does not say, or says twice, what it needs."""


def declares(words: str) -> Callable[[Dependency], Dependency]:
    """Mark a dependency as what decides who may call: `words` become `x-permission`."""

    def mark(dependency: Dependency) -> Dependency:
        _WORDS[dependency] = words
        return dependency

    return mark


def declared(route: APIRoute) -> str:
    """Return what a route needs, in words. Raises Undeclared unless exactly one of its dependencies says it."""
    found = [each for each in route.dependant.dependencies if each.call in _WORDS]
    words = [_WORDS[each.call] for each in found if each.call is not None]
    if len(words) != 1:
        raise Undeclared(f"{route.methods} {route.path}: declares {words or 'nothing'}; see admin_api/kit/needs.py")
    if any(parameter.name == "organization_id" for parameter in found[0].query_params):
        raise Undeclared(f"{route.methods} {route.path}: {words[0]} needs an organization, and the path names none")
    return words[0]


def may_forbid(words: str) -> bool:
    """Return whether a caller who is known may be refused what needs this."""
    return words.partition(",")[0] in SCOPES or words.startswith("member")


def check(routes: Iterable[Any]) -> None:
    """Raise Undeclared for the first route without a declaration."""
    for route in routes:
        if isinstance(route, APIRoute):
            declared(route)


def needs(
    right: Permission | AccountRight, *, default: bool = False, seller: bool = False, project: bool = False
) -> Any:
    """Return the declaration that the caller must hold a right.

    A Permission is asked for in the organization of the path, or (`default`) in the caller's default one, and gives the
    Member, or (`seller`) in that of the publisher whose slug is in the path, and gives the Seller; an AccountRight
    concerns the caller's own account and gives the Principal.
    """
    if isinstance(right, AccountRight):
        return Depends(_own(right))
    if seller:
        return Depends(_of_seller(right))
    if project:
        return Depends(_in_project(right))
    return Depends(_in_default(right) if default else _in_path(right))


@cache
def _in_path(permission: Permission) -> Callable[..., Any]:
    @declares(permission.value)
    async def member(organization_id: UUID, caller: Caller, services: ServicesDep) -> Member:
        async with services.database.acquire() as connection:
            return await require(connection, caller, organization_id, permission)

    return member


@cache
def _in_default(permission: Permission) -> Callable[..., Any]:
    @declares(permission.value)
    async def member(caller: Caller, services: ServicesDep) -> Member:
        async with services.database.acquire() as connection:
            found = await default_of(connection, caller.account_id)
            if found is None:
                raise InvalidRequest("You belong to no organization, so there is no default one.")
            return await require(connection, caller, found.id, permission)

    return member


def needs_somewhere(permission: Permission, where: str) -> Any:
    """Return the declaration that the operation itself asks for a permission, `where` it says, and gives the Principal.

    An API key whose scopes leave the permission out is refused at once.
    """
    return Depends(_somewhere(permission, where))


@cache
def _somewhere(permission: Permission, where: str) -> Callable[..., Any]:
    @declares(f"{permission.value}, {where}")
    async def account(caller: Caller) -> Principal:
        demand_scope(caller, permission)
        return caller

    return account


@cache
def _in_project(permission: Permission) -> Callable[..., Any]:
    @declares(permission.value)
    async def inside(project_id: UUID, request: Request, caller: Caller, services: ServicesDep) -> InProject:
        async with services.database.acquire() as connection:
            return await entered(connection, caller, project_id, permission, sent_from(request))

    return inside


@cache
def _of_seller(permission: Permission) -> Callable[..., Any]:
    @declares(permission.value)
    async def seller(slug: str, caller: Caller, services: ServicesDep) -> Seller:
        async with services.database.acquire() as connection:
            found = await FIND_BY_SLUG.first(connection, slug)
            if found is None:
                raise Forbidden(NOT_A_SELLER)
            try:
                member = await membership(connection, caller, found.organization_id)
            except Forbidden:  # in the same words: deleted and unknown publishers are nobody's to know
                raise Forbidden(NOT_A_SELLER) from None
        member.demand(permission)
        return Seller(found, member)

    return seller


@cache
def _own(right: AccountRight) -> Callable[..., Any]:
    @declares(right.value)
    async def account(caller: Caller) -> Principal:
        demand_right(caller, right)
        return caller

    return account


@declares("member")
async def _any_member(organization_id: UUID, caller: Caller, services: ServicesDep) -> Member:
    async with services.database.acquire() as connection:
        return await membership(connection, caller, organization_id)


@declares("authenticated")
async def _anybody(caller: Caller) -> Principal:
    return caller


@declares("public")
async def _open() -> None:
    return None


for _counted in (public, registration):
    declares("public")(_counted)

MEMBER = Depends(_any_member)
"""Membership in the organization of the path is enough."""
AUTHENTICATED = Depends(_anybody)
"""Any credential is enough."""
OPEN = Depends(_open)
"""Nobody has to be known, and it is not counted: it costs nothing. Else take `Public`."""
AnyMember = Annotated[Member, MEMBER]
Known = Annotated[Principal, AUTHENTICATED]
WalletReader = Annotated[Principal, needs(AccountRight.WALLET_READ)]
AccountManager = Annotated[Principal, needs(AccountRight.ACCOUNT_MANAGE)]
