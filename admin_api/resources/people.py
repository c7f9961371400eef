"""Category `Auth`, people: signing up by e-mail, and the letters that prove an address or bring another password.

Answers do not tell whether an address has an account. What does not live here: logging in (logins.py).
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import Field, StrictStr

from admin_api.kit.access import Public, ServicesDep, guess, registration
from admin_api.kit.body import StrictRoute
from admin_api.kit.envelope import Answer, PaginationMeta
from admin_api.kit.problems import refusals
from admin_api.kit.tries import may_write, need_mail
from admin_api.resources.logins import (
    EXTENSION,
    Email,
    LoginResult,
    LoginResultResponse,
    chosen,
    lifetimes,
    login_result,
    this_client,
)
from gateway.catalog.refusals import refused
from gateway.errors import InvalidRequest, NotFound
from gateway.identity import names, people
from gateway.mail import outbox
from gateway.mail.outbox import LetterKind
from gateway.request_body import RequestBody
from gateway.services import Services

router = APIRouter(tags=["Auth"], route_class=StrictRoute)
SENT = "If this address can get such a letter, it is on its way."
Token = Annotated[StrictStr, Field(min_length=1, max_length=256)]


class SignupRequest(RequestBody):
    """A new person. Without a name the part before the @ is it, until it is changed."""

    email: Email
    password: Annotated[StrictStr, Field(max_length=1_024)]
    name: Annotated[StrictStr, Field(max_length=256)] | None = None


class VerifyEmailRequest(RequestBody):
    """The token of the letter."""

    token: Token


class ResendVerificationRequest(RequestBody):
    """Whose letter is to be sent again."""

    email: Email


class ForgotPasswordRequest(RequestBody):
    """Whose password is to be another one."""

    email: Email


class ResetPasswordRequest(RequestBody):
    """The token of the letter, and the password to be."""

    token: Token
    new_password: Annotated[StrictStr, Field(max_length=1_024)]


class Said(Answer):
    """What is said to everybody."""

    message: str


class VerificationSentResponse(Answer):
    """Envelope."""

    data: Said
    pagination: PaginationMeta | None = None


class PasswordResetResponse(Answer):
    """Envelope."""

    data: Said
    pagination: PaginationMeta | None = None


@router.post(
    "/auth/signup",
    status_code=201,
    operation_id="signup",
    dependencies=[Depends(registration)],
    responses=refusals(400, 429, 501),
    openapi_extra=EXTENSION,
)
async def signup(body: SignupRequest, services: ServicesDep) -> VerificationSentResponse:
    """Ask for an account: it exists once the link in the letter was used. A taken address is answered alike."""
    need_mail(services)
    password = chosen("password", body.password, body.email)
    name = _name(body.name, body.email)
    if await may_write(services, body.email):
        await people.sign_up(services.database, services.passwords, body.email, name, password)
    return VerificationSentResponse(data=Said(message=SENT))


@router.post("/auth/verify-email", operation_id="verify_email", responses=refusals(400, 429))
async def verify_email(
    body: VerifyEmailRequest, request: Request, services: ServicesDep, _address: Public
) -> LoginResultResponse:
    """Use the link of a letter: the account, its organization and wallet come into being, and you are logged in."""
    try:
        opened = await people.verify(
            services.database, body.token, services.catalog.default_asset.id, this_client(), lifetimes(services)
        )
    except InvalidRequest:
        await guess(request, services)
        raise
    return LoginResultResponse(data=LoginResult(**await login_result(services, opened)))


@router.post("/auth/resend-verification", operation_id="resend_verification_email", responses=refusals(400, 429, 501))
async def resend_verification_email(
    body: ResendVerificationRequest, services: ServicesDep, _address: Public
) -> VerificationSentResponse:
    """Send the letter of the last sign-up with this address again, if there is one to confirm."""
    await _send(services, LetterKind.VERIFY_AGAIN, body.email)
    return VerificationSentResponse(data=Said(message=SENT))


@router.post("/auth/forgot-password", operation_id="forgot_password", responses=refusals(400, 429, 501))
async def forgot_password(
    body: ForgotPasswordRequest, services: ServicesDep, _address: Public
) -> PasswordResetResponse:
    """Send a link by which to choose another password, if this address has an account."""
    await _send(services, LetterKind.RESET, body.email)
    return PasswordResetResponse(data=Said(message=SENT))


@router.post("/auth/reset-password", operation_id="reset_password", responses=refusals(400, 404, 429))
async def reset_password(
    body: ResetPasswordRequest, request: Request, services: ServicesDep, _address: Public
) -> PasswordResetResponse:
    """Set another password by the link of a letter. Every login of the account ends; its API keys stay."""
    password = chosen("new_password", body.new_password)
    try:
        await people.reset_password(services.database, services.passwords, body.token, password)
    except (InvalidRequest, NotFound):
        await guess(request, services)
        raise
    return PasswordResetResponse(data=Said(message="Your password is another one now. Log in with it."))


async def _send(services: Services, kind: LetterKind, email: str) -> None:
    """Have a letter sent; whether there is anybody to send it to is found out later, by a job."""
    need_mail(services)
    if await may_write(services, email):
        async with services.database.transaction() as connection:
            await outbox.post(connection, kind, email)


def _name(given: str | None, email: str) -> str:
    try:
        return names.check(email.partition("@")[0] if given is None else given)
    except names.NameRefused as error:
        raise refused("name", str(error)) from None
