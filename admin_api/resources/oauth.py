"""Category `OAuth`: callers connect their accounts at OAuth providers, for publishers that are called in their names.

Nobody's browser carries an API key, so the key asks for the consent page's address, and a browser goes there. Where it
comes back with a cookie of its own beginning, or with the key, the connection is made at once. Any other browser is
asked first, on a page that names the account (store/connect.py): else whoever began could send the link to somebody
else, and have that one's account connected to theirs.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from admin_api.kit.access import Public, ServicesDep, guess, somebody
from admin_api.kit.body import StrictRoute
from admin_api.kit.envelope import Answer, Moment
from admin_api.kit.needs import AccountManager, Known
from admin_api.kit.problems import refusals
from admin_api.kit.targets import allowed_target, with_query
from gateway.audit.entries import record
from gateway.catalog.checks import SLUG
from gateway.catalog.refusals import refused
from gateway.errors import InvalidRequest, NotFound
from gateway.identity import connections
from gateway.identity import oauth_providers as providers
from gateway.identity.connections import Ended, Flow
from gateway.identity.oauth_providers import Provider
from gateway.identity.principals import Principal
from gateway.services import Services

router = APIRouter(prefix="/oauth", tags=["OAuth"], route_class=StrictRoute)

COOKIE = "tollway_oauth"
DONE = "/oauth/done"
WORD = re.compile(r"[a-z0-9_-]{1,60}", re.ASCII)
FOUND = {302: {"description": "Found"}}
AWAY = {"Referrer-Policy": "no-referrer"}
Target = Annotated[str | None, Query(description="Where the browser goes at the end: here, or a listed site.")]
Told = Annotated[str | None, Query(max_length=4_096)]


@dataclass(frozen=True, slots=True)
class CameBack:
    """What a provider says by the address it sends the browser back to (RFC 6749 section 4.1.2, RFC 9207)."""

    state: str
    code: str | None
    error: str | None
    issuer: str | None


def came_back(state: Told = None, code: Told = None, error: Told = None, iss: Told = None) -> CameBack:
    """Read it. Raises InvalidRequest for an address that no provider made."""
    if not state:
        raise unknown_state()
    if not code and not error:
        raise refused("code", "is required, or error")
    return CameBack(state, code, error, iss)


def unknown_state() -> InvalidRequest:
    """Return the refusal of a state that stands for nothing."""
    return refused("state", "belongs to no consent that is under way: it was used, or is over, or went elsewhere")


Back = Annotated[CameBack, Depends(came_back)]


class PublisherOAuthProviderResponse(Answer):
    """A provider that the caller can connect to."""

    id: UUID
    organization_id: UUID | None
    slug: str
    name: str
    description: str | None
    logo_url: str | None
    scopes: list[str]
    is_active: bool
    created_at: Moment


class ProvidersResponse(Answer):
    """Providers."""

    providers: list[PublisherOAuthProviderResponse]


class UserOAuthConnectionResponse(Answer):
    """A connection of the caller's. Without `is_valid` it has to be made again."""

    id: UUID
    provider_id: UUID
    provider_slug: str
    provider_name: str
    provider_logo_url: str | None
    provider_user_id: str | None
    provider_email: str | None
    scopes: list[str]
    is_valid: bool
    expires_at: Moment | None
    created_at: Moment
    last_used_at: Moment | None


class ConnectionsResponse(Answer):
    """Connections."""

    connections: list[UserOAuthConnectionResponse]


class RevokeResponse(Answer):
    """What became of a connection."""

    success: bool
    message: str


@router.get("/providers", operation_id="list_providers", responses=refusals(401))
async def list_providers(caller: Known, services: ServicesDep) -> ProvidersResponse:
    """List the active providers of the platform and of the caller's organizations."""
    async with services.database.acquire() as connection:
        found = await providers.LIST_OPEN.all(connection, caller.account_id)
    return ProvidersResponse(providers=[PublisherOAuthProviderResponse.model_validate(one) for one in found])


@router.get("/connections", operation_id="list_connections", responses=refusals(401))
async def list_connections(caller: AccountManager, services: ServicesDep) -> ConnectionsResponse:
    """List the caller's own connections, newest first. Tokens are never shown."""
    async with services.database.acquire() as connection:
        found = await connections.LIST_CONNECTIONS.all(connection, caller.account_id)
    return ConnectionsResponse(connections=[UserOAuthConnectionResponse.model_validate(one) for one in found])


@router.delete(
    "/connections/providers/{provider_id}", operation_id="revoke_connection_by_id", responses=refusals(401, 404)
)
async def revoke_connection_by_id(provider_id: UUID, caller: AccountManager, services: ServicesDep) -> RevokeResponse:
    """End the caller's connection to a provider, here and, where it takes that, at the provider."""
    return await _revoke(services, caller, provider_id)


@router.delete("/connections/{provider}", operation_id="revoke_connection", responses=refusals(401, 404))
async def revoke_connection(provider: str, caller: AccountManager, services: ServicesDep) -> RevokeResponse:
    """The same for a provider of the platform, by its slug."""
    return await _revoke(services, caller, provider)


@router.get(
    "/providers/{provider_id}/authorize",
    status_code=302,
    operation_id="initiate_oauth_by_id",
    response_class=Response,
    responses={**FOUND, **refusals(401, 404)},
)
async def initiate_oauth_by_id(
    provider_id: UUID, caller: AccountManager, services: ServicesDep, redirect_uri: Target = None
) -> Response:
    """Redirect to a provider's consent page. Let the user of the account open the address that `Location` has."""
    async with services.database.acquire() as connection:
        provider = await providers.FIND_OPEN.first(connection, provider_id, caller.account_id)
    return await _begin(services, caller, provider, f"/oauth/providers/{provider_id}/callback", redirect_uri)


@router.get(
    "/providers/{provider_id}/callback",
    status_code=302,
    operation_id="oauth_callback_by_id",
    response_class=Response,
    responses={**FOUND, **refusals(400, 404)},
)
async def oauth_callback_by_id(
    provider_id: UUID, request: Request, services: ServicesDep, _address: Public, back: Back
) -> Response:
    """Take what the provider sent the browser back with, connect, and redirect to where the browser is to go."""
    async with services.database.acquire() as connection:
        provider = await providers.FIND_ANY.first(connection, provider_id)
    if provider is None:
        raise providers.unknown()
    return await _come_back(request, services, provider, back)


@router.get(
    "/{provider}/authorize",
    status_code=302,
    operation_id="initiate_oauth",
    response_class=Response,
    responses={**FOUND, **refusals(401, 404)},
)
async def initiate_oauth(
    provider: str, caller: AccountManager, services: ServicesDep, redirect_uri: Target = None
) -> Response:
    """Redirect to the consent page of a provider of the platform, by its slug."""
    found = await _platforms(services, provider)
    return await _begin(services, caller, found, f"/oauth/{provider}/callback", redirect_uri)


@router.get(
    "/{provider}/callback",
    status_code=302,
    operation_id="oauth_callback",
    response_class=Response,
    responses={**FOUND, **refusals(400)},
)
async def oauth_callback(
    provider: str, request: Request, services: ServicesDep, _address: Public, back: Back
) -> Response:
    """The same as by id, for a provider of the platform."""
    found = await _platforms(services, provider)
    if found is None:
        raise unknown_state()
    return await _come_back(request, services, found, back)


async def _platforms(services: Services, slug: str) -> Provider | None:
    if SLUG.fullmatch(slug) is None:
        return None
    async with services.database.acquire() as connection:
        return await providers.FIND_PLATFORMS.first(connection, slug)


async def _begin(
    services: Services, caller: Principal, provider: Provider | None, callback: str, redirect_uri: str | None
) -> Response:
    if provider is None:
        raise providers.unknown()
    settings = services.settings
    target = allowed_target(redirect_uri or DONE, settings.public_url, settings.server.return_origins)
    if target is None:
        raise refused("redirect_uri", "must be a path of this gateway, or an address on a site that its operator lists")
    begun = await services.consents.begin(provider, caller.account_id, settings.public_url + callback, target)
    return Response(
        status_code=302, headers={"Location": begun.url, "Set-Cookie": _cookie(services, begun.browser), **AWAY}
    )


def _cookie(services: Services, value: str) -> str:
    home = urlsplit(services.settings.public_url)
    secure = "; Secure" if home.scheme == "https" else ""
    age = int(connections.FLOW_LIFETIME.total_seconds())
    return f"{COOKIE}={value}; Path={home.path}/oauth; Max-Age={age}; HttpOnly; SameSite=Lax{secure}"


async def _come_back(request: Request, services: Services, provider: Provider, back: CameBack) -> Response:
    flow = await services.consents.take(provider.id, back.state)
    if flow is None:
        await guess(request, services)
        raise unknown_state()
    if back.issuer is not None and provider.issuer is not None and back.issuer != provider.issuer:
        return ended(provider, flow, "wrong_issuer")
    if back.error is not None or back.code is None:
        return ended(provider, flow, back.error or "")
    if await _began_it(request, services, flow):
        return ended(provider, flow, await services.consents.finish(provider, flow, back.code))
    ticket = await services.consents.ask(flow, back.code)
    return _away(f"{services.settings.public_url}/oauth/confirm?ticket={ticket}")


async def _began_it(request: Request, services: Services, flow: Flow) -> bool:
    """Return whether who comes back is who began: the same browser, or the account itself."""
    cookie = request.cookies.get(COOKIE)
    if cookie is not None and hmac.compare_digest(connections.digest(cookie), flow.browser_hash):
        return True
    if "authorization" not in request.headers:
        return False
    known = await somebody(request, services)
    return known is not None and known.account_id == flow.account_id


def ended(provider: Provider, flow: Flow, error: str | None) -> Response:
    """Return the redirect at the end of a consent: `status` is connected or failed, `error` a word without blanks."""
    facts = {"provider": provider.slug, "status": "connected" if error is None else "failed"}
    if error is not None:
        facts["error"] = error if WORD.fullmatch(error) else "provider_error"
    return _away(with_query(flow.target, **facts))


def _away(url: str) -> Response:
    return Response(status_code=302, headers={"Location": url, **AWAY})


async def _revoke(services: Services, caller: Principal, which: UUID | str) -> RevokeResponse:
    statement = connections.DELETE_CONNECTION if isinstance(which, UUID) else connections.DELETE_PLATFORMS
    gone: Ended | None = None
    async with services.database.transaction() as connection:
        if isinstance(which, UUID) or SLUG.fullmatch(which):
            gone = await statement.first(connection, caller.account_id, which)
        if gone is not None:
            details = {"provider_id": gone.provider_id}
            await record(connection, "oauth_connection.revoke", caller.organization_id, gone.id, details=details)
    if gone is None:
        raise NotFound("You have no connection to this OAuth provider.")
    if await services.consents.revoke(caller.account_id, gone):
        return RevokeResponse(success=True, message="The connection has ended, here and at the provider.")
    words = (
        "The connection has ended here. The provider was not told, or did not take it: look into your account there."
    )
    return RevokeResponse(success=True, message=words)
