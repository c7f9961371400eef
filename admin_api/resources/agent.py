"""Category `agent`: an agent registers itself and can pay a moment later."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends
from pydantic import Field, StrictStr

from admin_api.kit.access import ServicesDep, registration
from admin_api.kit.body import StrictRoute
from admin_api.kit.envelope import Answer, Moment
from admin_api.kit.problems import refusals
from gateway.catalog.refusals import refused
from gateway.identity import names
from gateway.identity.accounts import Registered, register_agent
from gateway.request_body import RequestBody

router = APIRouter(tags=["agent"], route_class=StrictRoute)


class AgentRegisterRequest(RequestBody):
    """A new agent. Without a name one is invented."""

    name: Annotated[StrictStr, Field(max_length=256)] | None = None


class AgentInfo(Answer):
    """The agent with its key, which is shown this once."""

    id: UUID
    name: str
    organization_id: UUID
    api_key: str
    status: str
    user_type: str
    created_at: Moment


class PublisherTypeInstructions(Answer):
    """How each kind of publisher is called."""

    api: str
    database: str
    mcp: str


class SetupInstructions(Answer):
    """What to do next, in order."""

    step_1: str
    step_2: str
    step_3: str
    step_4: PublisherTypeInstructions


class SkillFiles(Answer):
    """Where an agent reads how to use this gateway."""

    skill_md: str
    docs: str


class AgentRegisterResponse(Answer):
    """A registered agent."""

    success: bool
    message: str
    agent: AgentInfo
    setup: SetupInstructions
    skill_files: SkillFiles


class AgentRegisterDataResponse(Answer):
    """Envelope."""

    data: AgentRegisterResponse


@router.post(
    "/auth/agent",
    status_code=201,
    operation_id="agent_register",
    dependencies=[Depends(registration)],
    responses=refusals(400, 409, 429, 500),
)
async def agent_register(body: AgentRegisterRequest, services: ServicesDep) -> AgentRegisterDataResponse:
    """Register an agent: account, personal organization, wallet and an API key that is shown once."""
    name = None
    if body.name is not None:
        try:
            name = names.check(body.name)
        except names.NameRefused as error:
            raise refused("name", str(error)) from None
    registered = await register_agent(services.database, services.catalog.default_asset.id, name)
    public_url = services.settings.public_url
    return AgentRegisterDataResponse(
        data=AgentRegisterResponse(
            success=True,
            message="Welcome. Save the api_key now: it is shown only once.",
            agent=agent_info(registered),
            setup=setup_instructions(public_url),
            skill_files=skill_files(public_url),
        )
    )


def agent_info(registered: Registered) -> AgentInfo:
    """Return what the contract shows of an agent, with the fresh key."""
    account = registered.account
    return AgentInfo(
        id=account.id,
        name=account.name,
        organization_id=registered.organization_id,
        api_key=registered.key.text,
        status=account.status,
        user_type=account.kind,
        created_at=account.created_at,
    )


def setup_instructions(public_url: str) -> SetupInstructions:
    """Return the next steps for a fresh key."""
    return SetupInstructions(
        step_1="Save your API key and send it as `Authorization: Bearer <api_key>`.",
        step_2=f"Claim your credit: POST {public_url}/wallet/bonus/signup. See it: GET {public_url}/wallet/balance.",
        step_3=f"Make a recovery code: POST {public_url}/wallet/recovery with {{}}. It replaces a lost key.",
        step_4=PublisherTypeInstructions(
            api=f"Find a publisher (GET {public_url}/publishers/suggest?query=...) and call "
            f"{public_url}/publishers/<slug>/<path> with any method.",
            database=f'POST {public_url}/publishers/<slug> with {{"query": "SELECT ..."}}.',
            mcp=f"Connect an MCP client to {public_url}/publishers/<slug>/mcp with the same header; or GET "
            f"{public_url}/publishers/<slug>/_tools and POST {public_url}/publishers/<slug>/<tool>.",
        ),
    )


def skill_files(public_url: str) -> SkillFiles:
    """Return where the machine-readable description is."""
    return SkillFiles(skill_md=f"{public_url}/skill.md", docs=f"{public_url}/docs")
