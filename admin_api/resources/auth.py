"""Category `Auth`, as far as it exists: who am I, and the API keys of an organization.

`/organizations/default/…` are shortcuts for the caller's default organization. A key's text is in the answer that
creates it and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter
from pydantic import Field, StrictInt, StrictStr

from admin_api.kit.access import ServicesDep
from admin_api.kit.body import StrictRoute
from admin_api.kit.envelope import Answer, Moment, PaginationMeta, SuspensionTold
from admin_api.kit.needs import Known, needs
from admin_api.kit.problems import refusals
from admin_api.resources.key_budgets import BudgetChange, KeyBudgetInfo, changed, shown
from gateway.billing.spending import spent_of
from gateway.catalog.fields import EXTENSION as ADDED
from gateway.catalog.refusals import refused
from gateway.database.pool import Connection
from gateway.identity import allowed_addresses, names
from gateway.identity.accounts import load
from gateway.identity.api_keys import (
    MAX_DAYS,
    ApiKey,
    create_key,
    list_keys,
    revoke_key,
    set_addresses,
    set_budget,
    set_scopes,
)
from gateway.identity.budgets import KeyBudget
from gateway.identity.clients import Network
from gateway.identity.organizations import default_of
from gateway.identity.permissions import SCOPES, Member, Permission
from gateway.request_body import RequestBody
from gateway.services import Services

router = APIRouter(tags=["Auth"], route_class=StrictRoute)
EXTENSION: dict[str, Any] = {"x-extension": True}

Networks = Annotated[list[Annotated[StrictStr, Field(max_length=64)]], Field(max_length=allowed_addresses.MOST)]


class UserStatus(StrEnum):
    """Whether an account can be used."""

    ACTIVE = "active"
    DELETED = "deleted"
    DISABLED = "disabled"
    PAUSED = "paused"


class UserMe(Answer):
    """The caller's account and its default organization."""

    id: UUID
    name: str
    email: str
    status: UserStatus
    avatar_url: str | None
    created_at: Moment
    default_organization_id: UUID


class UserMeResponse(Answer):
    """Envelope."""

    data: UserMe
    pagination: PaginationMeta | None = None


class CreateApiKeyRequest(RequestBody):
    """A new key. Without expires_in_days it does not expire, so a misspelt one is refused.

    `scopes` are what it may do: permissions of the organization, and `buy`, `wallet.read` and `account.manage` for the
    account. `ip_allow_list` are the networks that it may be used from. Without them it may do what the key that makes
    it may, from where that may.
    """

    name: Annotated[StrictStr, Field(max_length=256)]
    expires_in_days: Annotated[StrictInt, Field(ge=1, le=MAX_DAYS)] | None = None
    scopes: Annotated[list[StrictStr], Field(max_length=100)] | None = None
    budget: BudgetChange | None = None
    ip_allow_list: Networks | None = None


class UpdateApiKeyRequest(RequestBody):
    """What is to change of a key. A limit that is left out stays as it is, null removes it; `budget: null` all.

    `scopes` and `ip_allow_list` replace the lists that there are; null lets the key do what its owner may, and be used
    from anywhere.
    """

    scopes: Annotated[list[StrictStr], Field(max_length=100)] | None = None
    budget: BudgetChange | None = None
    ip_allow_list: Networks | None = None


class ApiKeyInfo(Answer):
    """A key without its secret."""

    id: UUID
    key_id: str
    key_prefix: str
    name: str
    organization_id: UUID
    created_at: Moment
    expires_at: Moment | None
    last_used_at: Moment | None
    revoked_at: Moment | None
    scopes: list[str] | None
    budget: KeyBudgetInfo | None
    ip_allow_list: list[str] | None
    suspension: Annotated[SuspensionTold | None, ADDED]


class ApiKeyInfoResponse(Answer):
    """Envelope."""

    data: ApiKeyInfo


class ApiKeysResponse(Answer):
    """Envelope."""

    data: list[ApiKeyInfo]
    pagination: PaginationMeta | None = None


class ApiKeyCreated(Answer):
    """A fresh key; `api_key` is shown this once."""

    id: UUID
    key_id: str
    api_key: str
    name: str
    organization_id: UUID
    created_at: Moment
    expires_at: Moment | None
    scopes: list[str] | None
    budget: KeyBudgetInfo | None
    ip_allow_list: list[str] | None


class ApiKeyCreatedResponse(Answer):
    """Envelope."""

    data: ApiKeyCreated
    pagination: PaginationMeta | None = None


@router.get("/auth/me", operation_id="get_current_user", responses=refusals(401))
async def get_current_user(caller: Known, services: ServicesDep) -> UserMeResponse:
    """Return the caller's account. Agents have no mailbox: theirs is an undeliverable address."""
    async with services.database.acquire() as connection:
        account = await load(connection, caller.account_id)
        default = await default_of(connection, caller.account_id)
    return UserMeResponse(
        data=UserMe(
            id=account.id,
            name=account.name,
            email=account.contact_email,
            status=UserStatus(account.status),
            avatar_url=account.avatar_url,
            created_at=account.created_at,
            default_organization_id=default.id if default else caller.organization_id,
        )
    )


@router.get(
    "/organizations/default/api-keys", operation_id="list_default_org_api_keys", responses=refusals(400, 401, 403)
)
async def list_default_org_api_keys(
    member: Annotated[Member, needs(Permission.API_KEYS_READ, default=True)], services: ServicesDep
) -> ApiKeysResponse:
    """List the keys of the caller's default organization, newest first."""
    return await _list(services, member)


@router.post(
    "/organizations/default/api-keys",
    status_code=201,
    operation_id="create_default_org_api_key",
    responses=refusals(400, 401, 403, 409),
)
async def create_default_org_api_key(
    body: CreateApiKeyRequest,
    member: Annotated[Member, needs(Permission.API_KEYS_CREATE, default=True)],
    services: ServicesDep,
) -> ApiKeyCreatedResponse:
    """Make a key in the caller's default organization."""
    return await _create(services, member, body)


@router.patch(
    "/organizations/default/api-keys/{key_id}",
    operation_id="update_default_org_api_key",
    responses=refusals(400, 401, 403, 404),
    openapi_extra=EXTENSION,
)
async def update_default_org_api_key(
    key_id: UUID,
    body: UpdateApiKeyRequest,
    member: Annotated[Member, needs(Permission.API_KEYS_UPDATE, default=True)],
    services: ServicesDep,
) -> ApiKeyInfoResponse:
    """Limit a key of the default organization: what it may do and spend, and from where. No key limits itself."""
    return await _update(services, member, key_id, body)


@router.delete(
    "/organizations/default/api-keys/{key_id}",
    operation_id="revoke_default_org_api_key",
    responses=refusals(400, 401, 403, 404),
)
async def revoke_default_org_api_key(
    key_id: UUID, member: Annotated[Member, needs(Permission.API_KEYS_UPDATE, default=True)], services: ServicesDep
) -> dict[str, Any]:
    """Revoke a key of the caller's default organization. Revoking it again is no error."""
    return await _revoke(services, member, key_id)


@router.get(
    "/organizations/{organization_id}/api-keys", operation_id="list_org_api_keys", responses=refusals(401, 403, 404)
)
async def list_org_api_keys(
    member: Annotated[Member, needs(Permission.API_KEYS_READ)], services: ServicesDep
) -> ApiKeysResponse:
    """List the keys of an organization, newest first."""
    return await _list(services, member)


@router.post(
    "/organizations/{organization_id}/api-keys",
    status_code=201,
    operation_id="create_org_api_key",
    responses=refusals(400, 401, 403, 404, 409),
)
async def create_org_api_key(
    body: CreateApiKeyRequest, member: Annotated[Member, needs(Permission.API_KEYS_CREATE)], services: ServicesDep
) -> ApiKeyCreatedResponse:
    """Make a key in an organization; it acts as the account that made it."""
    return await _create(services, member, body)


@router.patch(
    "/organizations/{organization_id}/api-keys/{key_id}",
    operation_id="update_org_api_key",
    responses=refusals(400, 401, 403, 404),
    openapi_extra=EXTENSION,
)
async def update_org_api_key(
    key_id: UUID,
    body: UpdateApiKeyRequest,
    member: Annotated[Member, needs(Permission.API_KEYS_UPDATE)],
    services: ServicesDep,
) -> ApiKeyInfoResponse:
    """Limit a key of an organization: what it may do and spend, and from where. No key limits itself."""
    return await _update(services, member, key_id, body)


@router.delete(
    "/organizations/{organization_id}/api-keys/{key_id}",
    operation_id="revoke_org_api_key",
    responses=refusals(401, 403, 404),
)
async def revoke_org_api_key(
    key_id: UUID, member: Annotated[Member, needs(Permission.API_KEYS_UPDATE)], services: ServicesDep
) -> dict[str, Any]:
    """Revoke a key of an organization. Revoking it again is no error."""
    return await _revoke(services, member, key_id)


async def _list(services: Services, member: Member) -> ApiKeysResponse:
    async with services.database.acquire() as connection:
        keys = await list_keys(connection, member.organization_id)
        return ApiKeysResponse(data=await _infos(connection, services, keys))


async def _create(services: Services, member: Member, body: CreateApiKeyRequest) -> ApiKeyCreatedResponse:
    _demand_known(body.scopes)
    async with services.database.transaction() as connection:
        try:
            name = names.check(body.name, longest=100)
        except names.NameRefused as error:
            raise refused("name", str(error)) from None
        budget = None if body.budget is None else changed(None, body.budget, services.catalog.default_asset)
        await services.plans.demand_room(connection, member.organization_id, "api_keys")
        created = await create_key(
            connection, member, name, body.expires_in_days, budget, body.scopes, _networks(body.ip_allow_list)
        )
    record = created.record
    return ApiKeyCreatedResponse(
        data=ApiKeyCreated(
            id=record.id,
            key_id=record.key_id,
            api_key=created.text,
            name=record.name,
            organization_id=record.organization_id,
            created_at=record.created_at,
            expires_at=record.expires_at,
            scopes=record.scopes,
            budget=shown(record.budget, services.catalog.assets, {}, datetime.now(UTC).date()),
            ip_allow_list=_listed(record),
        )
    )


async def _update(services: Services, member: Member, key_row: UUID, body: UpdateApiKeyRequest) -> ApiKeyInfoResponse:
    def budget(before: KeyBudget | None) -> KeyBudget:
        return changed(before, body.budget, services.catalog.default_asset)

    named, networks = body.model_fields_set, _networks(body.ip_allow_list)
    if not named:
        raise refused("body", "names nothing to change: scopes, budget, ip_allow_list")
    _demand_known(body.scopes)
    async with services.database.transaction() as connection:
        record = None
        if "scopes" in named:
            record = await set_scopes(connection, member, key_row, body.scopes)
        if "ip_allow_list" in named:
            record = await set_addresses(connection, member, key_row, networks)
        if "budget" in named or record is None:
            record = await set_budget(connection, member, key_row, budget)
        (info,) = await _infos(connection, services, [record])
    services.identities.forget(record.key_id)
    return ApiKeyInfoResponse(data=info)


async def _revoke(services: Services, member: Member, key_row: UUID) -> dict[str, Any]:
    async with services.database.transaction() as connection:
        record = await revoke_key(connection, member, key_row)
    # The other workers hear of it by NOTIFY; this one need not wait for its own message.
    services.identities.forget(record.key_id)
    return {}


async def _infos(connection: Connection, services: Services, keys: Sequence[ApiKey]) -> list[ApiKeyInfo]:
    """Return what is told of keys, with what was spent of their budgets."""
    day = datetime.now(UTC).date()
    spent = await spent_of(connection, [key.budget for key in keys if key.budget is not None], day)
    return [_info(key, shown(key.budget, services.catalog.assets, spent, day)) for key in keys]


def _demand_known(scopes: list[str] | None) -> None:
    """Raise InvalidRequest for a scope that there is not."""
    if set(scopes or ()) - SCOPES:
        raise refused("scopes", "has a name that GET /permissions does not list, and that is no right of an account")


def _networks(items: list[str] | None) -> list[Network] | None:
    """Return the networks of a request. Raises InvalidRequest."""
    try:
        return None if items is None else allowed_addresses.read(items)
    except ValueError as error:
        raise refused("ip_allow_list", str(error)) from None


def _listed(key: ApiKey) -> list[str] | None:
    return None if key.addresses is None else [str(one) for one in key.addresses]


def _info(key: ApiKey, budget: KeyBudgetInfo | None) -> ApiKeyInfo:
    return ApiKeyInfo(
        id=key.id,
        key_id=key.key_id,
        key_prefix=key.prefix,
        name=key.name,
        organization_id=key.organization_id,
        created_at=key.created_at,
        expires_at=key.expires_at,
        last_used_at=key.last_used_at,
        revoked_at=key.revoked_at,
        scopes=key.scopes,
        budget=budget,
        ip_allow_list=_listed(key),
        suspension=None if key.suspension is None else SuspensionTold.model_validate(key.suspension),
    )
