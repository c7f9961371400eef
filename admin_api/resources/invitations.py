"""Category `Organizations`: inviting somebody by e-mail.

Revoking an invitation, sending its letter again and answering it are extensions.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import Field, StrictStr

from admin_api.kit.access import ServicesDep, guess
from admin_api.kit.body import StrictRoute
from admin_api.kit.envelope import Answer, Moment, PaginationMeta
from admin_api.kit.needs import AccountManager, needs
from admin_api.kit.problems import refusals
from admin_api.kit.tries import may_invite, need_mail
from admin_api.resources.organizations import Organization, OrganizationResponse
from gateway.catalog.refusals import refused
from gateway.database.pool import Connection
from gateway.errors import NotFound
from gateway.identity import emails, invitations
from gateway.identity.organizations import load_organization
from gateway.identity.permissions import Member, Permission
from gateway.identity.roles import INVITED_AS, find_role
from gateway.request_body import RequestBody
from gateway.services import Services

router = APIRouter(tags=["Organizations"], route_class=StrictRoute)
EXTENSION: dict[str, Any] = {"x-extension": True}
Manager = Annotated[Member, needs(Permission.ORG_MANAGE_MEMBERS)]


class CreateOrganizationInviteRequest(RequestBody):
    """Whom to invite, and as what: `member`, which is a viewer, or the name of a role."""

    email: Annotated[StrictStr, Field(max_length=320)]
    role: Annotated[StrictStr, Field(max_length=256)] | None = None


class OrganizationInvite(Answer):
    """An invitation. `status` is pending, accepted, declined, revoked or expired."""

    id: UUID
    organization_id: UUID
    email: str
    role: str
    status: str
    invited_by: UUID
    created_at: Moment
    expires_at: Moment
    accepted_at: Moment | None
    declined_at: Moment | None
    revoked_at: Moment | None


class OrganizationInvitesResponse(Answer):
    """Envelope."""

    data: list[OrganizationInvite]
    pagination: PaginationMeta | None = None


class NewOrganizationInvite(OrganizationInvite):
    """A fresh invitation; `token` is shown this once."""

    token: str


class OrganizationInviteResponse(Answer):
    """Envelope."""

    data: NewOrganizationInvite
    pagination: PaginationMeta | None = None


class InvitationSentResponse(Answer):
    """Envelope."""

    data: OrganizationInvite


class InvitationShown(Answer):
    """What an invitation promises."""

    organization_name: str
    role: str
    expires_at: Moment


class InvitationShownResponse(Answer):
    """Envelope."""

    data: InvitationShown


class InvitationAnswer(RequestBody):
    """The token of the invitation that is answered."""

    invitation: Annotated[StrictStr, Field(max_length=256)]


@router.get("/organizations/{organization_id}/invites", operation_id="list_invites", responses=refusals(403, 500))
async def list_invites(member: Manager, services: ServicesDep) -> OrganizationInvitesResponse:
    """List the invitations, newest first, those that ended too."""
    async with services.database.acquire() as connection:
        found = await invitations.list_invitations(connection, member.organization_id)
    return OrganizationInvitesResponse(data=[OrganizationInvite.model_validate(one) for one in found])


@router.post(
    "/organizations/{organization_id}/invites",
    status_code=201,
    operation_id="create_invite",
    responses=refusals(400, 403, 409, 429, 500),
)
async def create_invite(
    body: CreateOrganizationInviteRequest, member: Manager, services: ServicesDep
) -> OrganizationInviteResponse:
    """Invite somebody for seven days, with a role that holds no more than the caller does, and send a letter."""
    try:
        email = emails.normalise(body.email.strip())
    except emails.EmailRefused as error:
        raise refused("email", str(error)) from None
    mailed = await may_invite(services, member.caller, email)
    wanted = body.role or INVITED_AS
    async with services.database.transaction() as connection:
        name = "viewer" if wanted.lower() == INVITED_AS else wanted
        role = await find_role(connection, member.organization_id, name=name)
        if role is None:
            raise refused("role", "is no role of this organization")
        made, token = await invitations.invite(connection, member, email, role, mailed=mailed)
    shown = OrganizationInvite.model_validate(made).model_dump()
    return OrganizationInviteResponse(data=NewOrganizationInvite(**shown, token=token))


@router.delete(
    "/organizations/{organization_id}/invites/{invite_id}",
    status_code=204,
    operation_id="revoke_invite",
    responses=refusals(401, 403, 404, 409),
    openapi_extra=EXTENSION,
)
async def revoke_invite(invite_id: UUID, member: Manager, services: ServicesDep) -> None:
    """Revoke an open invitation. Revoking it again is no error."""
    async with services.database.transaction() as connection:
        await invitations.revoke_invitation(connection, member, invite_id)


@router.post(
    "/organizations/{organization_id}/invites/{invite_id}/resend",
    operation_id="resend_invite",
    responses=refusals(401, 403, 404, 409, 429, 501),
    openapi_extra=EXTENSION,
)
async def resend_invite(invite_id: UUID, member: Manager, services: ServicesDep) -> InvitationSentResponse:
    """Send the letter of an open invitation again. Its end stays what it is, and earlier letters stay good."""
    need_mail(services, "no invitation can be sent by e-mail")
    async with services.database.acquire() as connection:
        found = await invitations.find(connection, member.organization_id, invite_id)
    mailed = await may_invite(services, member.caller, found.email)
    async with services.database.transaction() as connection:
        found = await invitations.remind(connection, member, invite_id, mailed=mailed)
    return InvitationSentResponse(data=OrganizationInvite.model_validate(found))


@router.post(
    "/invitations/look",
    operation_id="look_at_invitation",
    responses=refusals(400, 401, 403, 404),
    openapi_extra=EXTENSION,
)
async def look_at_invitation(
    body: InvitationAnswer, caller: AccountManager, request: Request, services: ServicesDep
) -> InvitationShownResponse:
    """Show an invitation to whom it is for: which organization, and as what."""
    async with _answering(request, services) as connection:
        found = await invitations.look(connection, caller, body.invitation)
        organization = await load_organization(connection, found.organization_id)
    shown = InvitationShown(organization_name=organization.name, role=found.role, expires_at=found.expires_at)
    return InvitationShownResponse(data=shown)


@router.post(
    "/invitations/accept",
    operation_id="accept_invitation",
    responses=refusals(400, 401, 403, 404, 409),
    openapi_extra=EXTENSION,
)
async def accept_invitation(
    body: InvitationAnswer, caller: AccountManager, request: Request, services: ServicesDep
) -> OrganizationResponse:
    """Join the organization of an invitation. A person needs an account of the invited address."""
    async with _answering(request, services) as connection:
        joined = await invitations.accept(connection, caller, body.invitation)
        await services.plans.demand_room(connection, joined.organization_id, "members", more=0)
        found = await load_organization(connection, joined.organization_id)
    return OrganizationResponse(data=Organization.model_validate(found))


@router.post(
    "/invitations/decline",
    status_code=204,
    operation_id="decline_invitation",
    responses=refusals(400, 401, 403, 404),
    openapi_extra=EXTENSION,
)
async def decline_invitation(
    body: InvitationAnswer, caller: AccountManager, request: Request, services: ServicesDep
) -> None:
    """Turn an invitation down."""
    async with _answering(request, services) as connection:
        await invitations.decline(connection, caller, body.invitation)


@asynccontextmanager
async def _answering(request: Request, services: Services) -> AsyncGenerator[Connection]:
    """Open the transaction of an answer; a token that is not good counts as a guess."""
    try:
        async with services.database.transaction() as connection:
            yield connection
    except NotFound:
        await guess(request, services)
        raise
