"""Category `Auth`, logins: from a password to tokens, from one pair of tokens to the next, and out.

Tokens come in the answer, or with `cookies` in HttpOnly cookies and not in the answer. What does not live here: the
list of sessions (sessions.py), signing up (people.py).
"""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import AfterValidator, Field, StrictBool, StrictStr

from admin_api.kit import cookies
from admin_api.kit.access import Public, ServicesDep, guess
from admin_api.kit.body import StrictRoute
from admin_api.kit.envelope import Answer, Moment, PaginationMeta
from admin_api.kit.needs import AccountManager
from admin_api.kit.problems import refusals
from admin_api.kit.tries import count_login
from admin_api.resources.auth import UserStatus
from gateway.audit.origin import origin
from gateway.catalog.refusals import refused
from gateway.errors import InvalidRequest, Unauthenticated
from gateway.identity import emails, passwords, people, sessions
from gateway.identity.accounts import load
from gateway.identity.organizations import default_of
from gateway.identity.principals import Principal
from gateway.identity.sessions import Client, Lifetimes, Opened
from gateway.request_body import RequestBody
from gateway.services import Services

router = APIRouter(tags=["Auth"], route_class=StrictRoute)
EXTENSION: dict[str, Any] = {"x-extension": True}
Email = Annotated[StrictStr, Field(max_length=320), AfterValidator(emails.normalise)]
Password = Annotated[StrictStr, Field(max_length=1_024)]


class LoginRequest(RequestBody):
    """Who logs in. With `cookies` the tokens are set as cookies and are not in the answer."""

    email: Email
    password: Password
    cookies: StrictBool = False


class RefreshRequest(RequestBody):
    """A refresh token; without one its cookie is used. With `cookies` the next tokens are set as cookies."""

    refresh_token: Annotated[StrictStr, Field(max_length=256)] | None = None
    cookies: StrictBool = False


class ChangePasswordRequest(RequestBody):
    """The password as it is, and as it is to be."""

    current_password: Password
    new_password: Password


class UserInfo(Answer):
    """A person."""

    id: UUID
    name: str
    email: str
    status: UserStatus
    avatar_url: str | None
    created_at: Moment


class LoginResult(Answer):
    """Who is logged in, with a fresh pair of tokens; `expires_in` is the access token's, in seconds."""

    access_token: str
    refresh_token: str
    expires_in: int
    user: UserInfo
    default_organization_id: UUID


class LoginResultResponse(Answer):
    """Envelope."""

    data: LoginResult
    pagination: PaginationMeta | None = None


class LoggedIn(Answer):
    """The same; the tokens are null where they are in cookies."""

    access_token: str | None
    refresh_token: str | None
    expires_in: int
    user: UserInfo
    default_organization_id: UUID


class LoggedInResponse(Answer):
    """Envelope."""

    data: LoggedIn


@router.post("/auth/login", operation_id="login", responses=refusals(400, 401, 403, 429), openapi_extra=EXTENSION)
async def login(
    body: LoginRequest, request: Request, response: Response, services: ServicesDep, _address: Public
) -> LoggedInResponse:
    """Log in. A wrong password and an unknown address are answered alike, and every login is a session of its own."""
    if body.cookies:
        cookies.demand_same_origin(request, services.settings)
    await count_login(request, services, body.email)
    opened = await people.log_in(
        services.database, services.passwords, body.email, body.password, this_client(), lifetimes(services)
    )
    return await _handed_over(services, opened, response, in_cookies=body.cookies)


@router.post("/auth/refresh", operation_id="refresh", responses=refusals(400, 401, 403, 429), openapi_extra=EXTENSION)
async def refresh(
    body: RefreshRequest, request: Request, response: Response, services: ServicesDep, _address: Public
) -> LoggedInResponse:
    """Exchange a refresh token for the next pair. It works once: shown again, it ends the login for whoever has it."""
    token = body.refresh_token or cookies.refresh_token(request, services.settings)
    if token is None:
        raise InvalidRequest("Send a refresh_token, or the cookie of a login.")
    in_cookies = body.cookies or body.refresh_token is None
    if in_cookies:
        cookies.demand_same_origin(request, services.settings)
    try:
        opened = await sessions.refresh(services.database, token, lifetimes(services))
    except Unauthenticated:
        await guess(request, services)
        raise
    return await _handed_over(services, opened, response, in_cookies=in_cookies)


@router.post("/auth/logout", operation_id="logout", responses=refusals(400, 401, 403), openapi_extra=EXTENSION)
async def logout(caller: AccountManager, response: Response, services: ServicesDep) -> dict[str, Any]:
    """End the login that makes this request, everywhere and at once, and take its cookies away."""
    await sessions.log_out(services.database, caller.account_id, session_of(caller))
    cookies.take_away(response, services.settings)
    return {}


@router.post(
    "/auth/password",
    operation_id="change_password",
    responses=refusals(400, 401, 403, 429),
    openapi_extra=EXTENSION,
)
async def change_password(
    body: ChangePasswordRequest, caller: AccountManager, request: Request, response: Response, services: ServicesDep
) -> LoggedInResponse:
    """Choose another password. Every login ends, this one too; the answer has the tokens of a new one."""
    session_of(caller)
    async with services.database.acquire() as connection:
        account = await load(connection, caller.account_id)
    password = chosen("new_password", body.new_password, account.contact_email)
    await count_login(request, services, account.contact_email)
    opened = await people.change_password(
        services.database, services.passwords, caller.account_id, body.current_password, password, this_client(),
        lifetimes(services),
    )  # fmt: skip
    in_cookies = "authorization" not in request.headers
    return await _handed_over(services, opened, response, in_cookies=in_cookies)


def session_of(caller: Principal) -> UUID:
    """Return the caller's session. Raises InvalidRequest for an API key, which has none."""
    if caller.session_id is None:
        raise InvalidRequest("An API key is no login: this takes the access token of a person who logged in.")
    return caller.session_id


def this_client() -> Client:
    """Return who makes this request, as its owner sees it in the list of sessions."""
    who = origin()
    return Client(who.ip_address, who.user_agent)


def lifetimes(services: Services) -> Lifetimes:
    """Return how long tokens and sessions last here."""
    return Lifetimes.of(services.settings.sessions)


def chosen(field: str, text: str, email: str = "") -> str:
    """Return a chosen password in normal form. Raises InvalidRequest naming the field, never the value."""
    try:
        return passwords.check(text, email)
    except passwords.PasswordRefused as error:
        raise refused(field, str(error)) from None


async def login_result(services: Services, opened: Opened) -> dict[str, Any]:
    """Return the members of a login's answer."""
    async with services.database.acquire() as connection:
        account = await load(connection, opened.account_id)
        default = await default_of(connection, opened.account_id)
    return {
        "access_token": opened.access_token,
        "refresh_token": opened.refresh_token,
        "expires_in": opened.expires_in,
        "user": UserInfo(
            id=account.id,
            name=account.name,
            email=account.contact_email,
            status=UserStatus(account.status),
            avatar_url=account.avatar_url,
            created_at=account.created_at,
        ),
        "default_organization_id": default.id if default else opened.account_id,
    }


async def _handed_over(services: Services, opened: Opened, response: Response, *, in_cookies: bool) -> LoggedInResponse:
    result = await login_result(services, opened)
    if in_cookies:
        cookies.put(response, opened, services.settings)
        result |= {"access_token": None, "refresh_token": None}
    return LoggedInResponse(data=LoggedIn(**result))
