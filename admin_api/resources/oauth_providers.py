"""Category `oauth-providers`: the OAuth providers of an organization. Connections of callers to them: oauth.py.

The client secret is stored sealed and in no answer. Where addresses lead is asked when they are stored, and again by
the egress guard at every connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID

from fastapi import APIRouter
from pydantic import AfterValidator, Field, StrictStr

from admin_api.kit.access import ServicesDep
from admin_api.kit.body import StrictRoute
from admin_api.kit.envelope import Answer, Moment
from admin_api.kit.needs import needs
from admin_api.kit.problems import refusals
from gateway.audit.entries import record
from gateway.catalog import checks
from gateway.catalog.fields import EXTENSION, Flag, Item, Secret, Slug, Text, Url
from gateway.catalog.refusals import refused
from gateway.catalog.urls import UrlPolicy
from gateway.errors import NotConfigured
from gateway.identity import oauth_providers as stored
from gateway.identity.permissions import Member, Permission
from gateway.request_body import RequestBody
from gateway.services import Services
from gateway.upstreams.auth.authorization_code import METHODS
from gateway.upstreams.credentials import NoKeys

router = APIRouter(
    prefix="/organizations/{organization_id}/oauth/providers", tags=["oauth-providers"], route_class=StrictRoute
)

MAX_SCOPES = 100
# What the gateway itself puts into the address of the consent page.
OURS = frozenset(
    {"response_type", "client_id", "redirect_uri", "scope", "state", "nonce", "code_challenge", "code_challenge_method"}
    | {"response_mode", "request", "request_uri"}
)
READ, MANAGE = needs(Permission.OAUTH_PROVIDERS_READ), needs(Permission.OAUTH_PROVIDERS_MANAGE)


def _scope(value: str) -> str:
    """RFC 6749 section 3.3."""
    if not 0 < len(value) <= 256 or any(char in ' "\\' or not "!" <= char <= "~" for char in value):
        raise ValueError("must be 1 to 256 visible ASCII characters without blanks, quotation marks and backslashes")
    return value


def _once(values: list[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _consent_page(value: str) -> str:
    url = checks.http_url(value)
    taken = OURS & {name for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True)}
    if taken:
        raise ValueError(f"must not have {', '.join(sorted(taken))} in its query: the gateway says that")
    return url


def _method(value: str) -> str:
    return checks.one_of(value, METHODS)


Scopes = Annotated[
    list[Annotated[StrictStr, AfterValidator(_scope)]], Field(max_length=MAX_SCOPES), AfterValidator(_once)
]
ConsentPage = Annotated[StrictStr, AfterValidator(_consent_page)]
Method = Annotated[StrictStr, AfterValidator(_method)]
Issuer = Annotated[StrictStr, AfterValidator(checks.http_url), EXTENSION]


class CreateOAuthProviderRequest(RequestBody):
    """A new provider. PKCE is always used: `pkce_required` says whether the server insists on it."""

    name: Item
    slug: Slug
    authorization_url: ConsentPage
    token_url: Url
    client_id: Item
    client_secret: Secret
    scopes: Scopes
    description: Text | None = None
    logo_url: Url | None = None
    userinfo_url: Url | None = None
    revocation_url: Url | None = None
    token_endpoint_auth_method: Method = METHODS[0]
    pkce_required: Flag = True
    issuer: Issuer | None = None


class UpdateOAuthProviderRequest(RequestBody):
    """Changes to a provider. Null clears description, logo_url, userinfo_url, revocation_url and issuer.

    Where other addresses or another client lead to another server, callers have to connect again.
    """

    name: Item | None = None
    slug: Slug | None = None
    authorization_url: ConsentPage | None = None
    token_url: Url | None = None
    client_id: Item | None = None
    client_secret: Secret | None = None
    scopes: Scopes | None = None
    description: Text | None = None
    logo_url: Url | None = None
    userinfo_url: Url | None = None
    revocation_url: Url | None = None
    token_endpoint_auth_method: Method | None = None
    pkce_required: Flag | None = None
    is_active: Flag | None = None
    organization_id: UUID | None = None
    issuer: Issuer | None = None


class OAuthProviderResponse(Answer):
    """A provider without its secret."""

    id: UUID
    organization_id: UUID | None
    slug: str
    name: str
    description: str | None
    logo_url: str | None
    authorization_url: str
    token_url: str
    userinfo_url: str | None
    revocation_url: str | None
    client_id: str
    scopes: list[str]
    pkce_required: bool
    token_endpoint_auth_method: str
    is_active: bool
    created_at: Moment
    updated_at: Moment
    issuer: Annotated[str | None, EXTENSION]


class OAuthProviderDataResponse(Answer):
    """Envelope."""

    data: OAuthProviderResponse


class OAuthProvidersDataResponse(Answer):
    """Envelope."""

    data: list[OAuthProviderResponse]


@router.get("", operation_id="list_org_oauth_providers", responses=refusals(401, 403, 500))
async def list_org_oauth_providers(
    member: Annotated[Member, READ], services: ServicesDep
) -> OAuthProvidersDataResponse:
    """List the organization's own providers, newest first."""
    async with services.database.acquire() as connection:
        found = await stored.list_of(connection, member.organization_id)
    return OAuthProvidersDataResponse(data=[OAuthProviderResponse.model_validate(one) for one in found])


@router.post(
    "", status_code=201, operation_id="create_org_oauth_provider", responses=refusals(400, 401, 403, 409, 500, 501)
)
async def create_org_oauth_provider(
    body: CreateOAuthProviderRequest, member: Annotated[Member, MANAGE], services: ServicesDep
) -> OAuthProviderDataResponse:
    """Create a provider. Its server has to know `/oauth/providers/{provider_id}/callback` of this gateway."""
    fields = body.model_dump()
    await _check_addresses(services, fields)
    async with services.database.transaction() as connection:
        try:
            made = await stored.create(
                connection, services.box, member.organization_id, member.caller.account_id, fields
            )  # fmt: skip
        except NoKeys as error:
            raise _keyless(error) from None
        await record(
            connection, "oauth_provider.create", member.organization_id, made.id, after=made, secret=("client_secret",)
        )  # fmt: skip
    return OAuthProviderDataResponse(data=OAuthProviderResponse.model_validate(made))


@router.get("/{provider_id}", operation_id="get_org_oauth_provider", responses=refusals(401, 403, 404, 500))
async def get_org_oauth_provider(
    provider_id: UUID, member: Annotated[Member, READ], services: ServicesDep
) -> OAuthProviderDataResponse:
    """Return a provider of the organization."""
    async with services.database.acquire() as connection:
        found = await stored.find(connection, member.organization_id, provider_id)
    return OAuthProviderDataResponse(data=OAuthProviderResponse.model_validate(found))


@router.patch(
    "/{provider_id}",
    operation_id="update_org_oauth_provider",
    responses=refusals(400, 401, 403, 404, 409, 500, 501),
)
async def update_org_oauth_provider(
    provider_id: UUID, body: UpdateOAuthProviderRequest, member: Annotated[Member, MANAGE], services: ServicesDep
) -> OAuthProviderDataResponse:
    """Change what the body names. Another server or client means that callers have to connect again."""
    changes = body.model_dump(exclude_unset=True)
    await _check_addresses(services, changes)
    async with services.database.transaction() as connection:
        try:
            before, after = await stored.update(connection, services.box, member.organization_id, provider_id, changes)
        except NoKeys as error:
            raise _keyless(error) from None
        await record(
            connection, "oauth_provider.update", member.organization_id, provider_id, before=before, after=after,
            secret=("client_secret",),
        )  # fmt: skip
    return OAuthProviderDataResponse(data=OAuthProviderResponse.model_validate(after))


@router.delete(
    "/{provider_id}",
    status_code=204,
    operation_id="delete_org_oauth_provider",
    responses=refusals(401, 403, 404, 500),
)
async def delete_org_oauth_provider(
    provider_id: UUID, member: Annotated[Member, MANAGE], services: ServicesDep
) -> None:
    """Delete a provider with all connections to it. Publishers that need it cannot be called any more."""
    async with services.database.transaction() as connection:
        gone = await stored.delete(connection, member.organization_id, provider_id)
        await record(
            connection, "oauth_provider.delete", member.organization_id, provider_id, before=gone,
            secret=("client_secret",),
        )  # fmt: skip


async def _check_addresses(services: Services, fields: Mapping[str, Any]) -> None:
    """Ask where the addresses lead, before any lock is taken: names are resolved here. Raises InvalidRequest."""
    urls = UrlPolicy(services.guard, services.settings.proxy.allow_addresses)
    for name in stored.ADDRESSES:
        if fields.get(name) is not None:
            try:
                await urls.check(fields[name].partition("?")[0])
            except ValueError as error:
                raise refused(name, str(error)) from None


def _keyless(error: NoKeys) -> NotConfigured:
    return NotConfigured(f"Secrets cannot be stored here: {error}")
