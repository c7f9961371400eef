"""Dependencies of the routes: services, the caller, and the limits that guard both.

Authenticated requests count per key or login, all others per address, in the same budgets as publisher calls; wrong
keys and recovery codes have a tighter limit of their own. What does not live here: what the caller may do
(gateway/identity/permissions.py).
"""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Header, Request, Security
from fastapi.security import HTTPBearer

from admin_api.kit import cookies
from gateway.audit.origin import origin
from gateway.errors import AddressNotAllowed, InvalidRequest, RateLimited, Unauthenticated
from gateway.identity.allowed_addresses import demand_address
from gateway.identity.clients import Address, Network, client_address, networks, whole_address
from gateway.identity.principals import Principal, access_token_in
from gateway.identity.sessions import principal_of
from gateway.limits.limiter import Check, Policy, headers
from gateway.services import Services

MAX_KEY = 255
KEY_FIELD = "Idempotency-Key"
KeyField = Annotated[
    str | None, Header(alias=KEY_FIELD, description="A key of your own: the same request with it is carried out once.")
]
"""Shows the field in the document. `idempotency_key` reads it: there must be one, of the right form."""
_bearer = HTTPBearer(scheme_name="bearer_auth", auto_error=False)


def services_of(request: Request) -> Services:
    """Return the parts of this worker."""
    return cast("Services", request.app.state.services)


ServicesDep = Annotated[Services, Depends(services_of)]


def address_of(request: Request) -> str:
    """Return the client's address as limits count it."""
    return client_address(*_connection(request))


def sent_from(request: Request) -> Address | None:
    """Return the client's own address; None where the server does not know its peer."""
    return whole_address(*_connection(request))


def _connection(request: Request) -> tuple[str | None, list[str], list[Network]]:
    """Return what tells a client's address: the peer, what proxies say of theirs, and which of them are believed."""
    peer = request.client.host if request.client else None
    trusted = networks(services_of(request).settings.server.trusted_proxies)
    return peer, request.headers.getlist("x-forwarded-for"), trusted


async def limited(services: Services, *checks: Check) -> None:
    """Count a request. Raises RateLimited with Retry-After and the RateLimit fields."""
    verdict = await services.limiter.check(*checks)
    if not verdict.allowed:
        fields = {name.decode(): value.decode() for name, value in headers(verdict)}
        raise RateLimited(
            f"Too many requests ({verdict.policy.name}); try again in {verdict.retry_after} s.",
            headers={"Retry-After": str(verdict.retry_after), **fields},
            retry_after_seconds=verdict.retry_after,
        )


async def public(request: Request, services: ServicesDep) -> str:
    """Count a request that needs no credential and return the client's address."""
    address = address_of(request)
    policy = Policy("address", services.settings.limits.per_address, 60)
    await limited(services, Check(address, policy))
    return address


async def guess(request: Request, services: Services) -> None:
    """Count a try at a secret, before it is looked at."""
    policy = Policy("guesses", services.settings.limits.guesses, 60)
    await limited(services, Check(address_of(request), policy))


async def registration(request: Request, services: ServicesDep) -> None:
    """Count a registration: bonuses must not be farmed from one address."""
    limits = services.settings.limits
    address = address_of(request)
    await limited(
        services,
        Check(address, Policy("address", limits.per_address, 60)),
        Check(address, Policy("registrations", limits.registrations, 3_600)),
    )


async def caller(
    request: Request, services: ServicesDep, _documented: Annotated[object, Security(_bearer)]
) -> Principal:
    """Return who is calling, by API key, access token or login cookie. Raises Unauthenticated.

    Raises RateLimited for who tries keys or tokens, Forbidden for a cookie that another site makes use of, and
    AddressNotAllowed for a key where it may not be used.
    """
    values = request.headers.getlist("authorization")
    if len(values) > 1:
        raise InvalidRequest("The request has more than one Authorization field.")
    cookie = None if values else cookies.access_token(request, services.settings)
    if not values and cookie is None:
        await public(request, services)
    try:
        if cookie is not None:
            principal = await principal_of(services.database, cookie)
        else:
            principal = await resolved(request, services, values[0] if values else None)
    except (Unauthenticated, AddressNotAllowed):
        if values or cookie:
            await guess(request, services)
        raise
    acts(principal)
    policy = Policy("key", services.settings.limits.per_key, 60)
    await limited(services, Check(principal.key_id, policy))
    return principal


async def resolved(request: Request, services: Services, authorization: str | None) -> Principal:
    """Return who an Authorization field names: a key's account, or a person who logged in.

    Raises Unauthenticated, or AddressNotAllowed for a key that may not be used from where the request comes.
    """
    token = access_token_in(authorization)
    if token is not None:
        return await principal_of(services.database, token)
    principal = await services.identities.resolve(authorization)
    if principal.addresses is not None:
        demand_address(principal, sent_from(request))
    return principal


def acts(principal: Principal) -> None:
    """Let the audit log know who makes this request."""
    who = origin()
    who.actor_type, who.actor_id = principal.kind, principal.account_id
    who.credential_type = "api_key" if principal.session_id is None else "session"
    who.credential_id = principal.api_key_id


def idempotency_key(request: Request, _documented: KeyField = None) -> str | None:
    """Return the request's Idempotency-Key, if it has one. Raises InvalidRequest."""
    values = request.headers.getlist("idempotency-key")
    if len(values) > 1:
        raise InvalidRequest("The request has more than one Idempotency-Key.")
    if values and not (0 < len(values[0]) <= MAX_KEY and values[0].isprintable() and values[0].isascii()):
        raise InvalidRequest(f"Idempotency-Key must be 1 to {MAX_KEY} printable ASCII characters.")
    return values[0] if values else None


async def somebody(request: Request, services: Services) -> Principal | None:
    """Return who is calling where nobody has to be known; a wrong key counts as a guess and is nobody."""
    values = request.headers.getlist("authorization")
    if len(values) != 1:
        return None
    try:
        principal = await resolved(request, services, values[0])
    except (Unauthenticated, AddressNotAllowed):
        await guess(request, services)
        return None
    acts(principal)
    return principal


Caller = Annotated[Principal, Depends(caller)]
Public = Annotated[str, Depends(public)]
