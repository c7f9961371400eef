"""Sections about those who have an account: plans, cards, projects, invoices, keys, logins, letters."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from gateway import named_tokens
from gateway.countries import COUNTRIES
from gateway.settings.base import Seconds, Section


class PlansSettings(Section):
    """What organizations' plans limit (docs/plans.md). Off: plans can be looked at, and nothing is refused by them."""

    enforced: bool = Field(default=False, description="Whether quotas and limits of plans are enforced, and counted")
    file: str = Field(default="", description="A file of your own plans; empty: config/plans.toml")


class StripeSettings(Section):
    """Cards, by Stripe (docs/deposits.md). Without a key there is no card rail."""

    secret_key: str = Field(default="", description="Of the account that is paid; empty: no cards")
    webhook_secrets: tuple[str, ...] = Field(
        default=(), description="What signs events for POST /webhooks/stripe; two while one is replaced"
    )
    tolerance: Seconds = Field(default=300.0, description="How old the signature of an event may be")
    api_base: str = Field(default="https://api.stripe.com", description="Another one is a stand-in's")
    timeout: Seconds = Field(default=20.0, description="How long Stripe may take for one answer")
    return_url: str = Field(default="", description="Where somebody who has paid comes back to; empty: `public_url`")
    page_lifetime: float = Field(
        default=3_600.0, ge=1_860, le=86_000, description="How long the page of a deposit is open; Stripe's bounds"
    )
    recheck: Seconds = Field(
        default=60.0, description="After five times as long Stripe is asked of a payment that no event has ended"
    )

    @field_validator("secret_key")
    @classmethod
    def _secret_or_restricted(cls, value: str) -> str:
        if value.strip() and not value.strip().startswith(("sk_", "rk_")):
            raise ValueError("must be a secret or a restricted key, sk_… or rk_…")
        return value.strip()

    @field_validator("webhook_secrets")
    @classmethod
    def _signing(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        secrets = tuple(value.strip() for value in values if value.strip())
        if not all(secret.startswith("whsec_") for secret in secrets):
            raise ValueError("must be what signs events, whsec_…, and several of those with commas between them")
        return secrets

    @model_validator(mode="after")
    def _key_and_secret(self) -> StripeSettings:
        if bool(self.secret_key) != bool(self.webhook_secrets):
            raise ValueError(
                "TOLLWAY_STRIPE_SECRET_KEY and TOLLWAY_STRIPE_WEBHOOK_SECRETS belong together: without events no"
                " payment arrives (docs/deposits.md)"
            )
        return self


class ProjectSettings(Section):
    """What organizations can make projects of (docs/projects.md)."""

    regions: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        default=("local",), description="Names of the regions that a project can be in"
    )
    compute_units: int = Field(default=16, ge=1, le=1_024, description="The largest `compute_unit_max`")
    hipaa: bool = Field(default=False, description="Whether projects may be marked for health data")
    most: int = Field(default=100, ge=1, description="Projects that one organization may have at once")


def _rates(values: tuple[str, ...]) -> tuple[str, ...]:
    """Check a list of countries with their rates. Raises ValueError naming the wrong one."""
    for value in values:
        rate = re.fullmatch(r"([A-Z]{2})=(?:100|[0-9]{1,2}(?:\.[0-9]{1,4})?)", value.strip())
        if rate is None or rate[1] not in COUNTRIES:
            raise ValueError(f"{value!r} is no country and percentage such as DE=19")
    if len({value.strip()[:2] for value in values}) < len(values):
        raise ValueError("a country has two rates")
    return tuple(value.strip() for value in values)


def _country(value: str) -> str:
    """Check a country, or none. Raises ValueError."""
    if value and value.strip() not in COUNTRIES:
        raise ValueError(f"{value!r} is no ISO 3166 country such as DE or GB")
    return value.strip()


def _countries(values: tuple[str, ...]) -> tuple[str, ...]:
    """Check a list of countries. Raises ValueError naming the wrong one."""
    return tuple(_country(value) for value in values)


class InvoiceSettings(Section):
    """Monthly invoices of organizations (docs/invoices.md): who sells, and which taxes are added."""

    prefix: str = Field(default="INV", pattern="^[A-Z0-9-]{1,10}$", description="What invoice numbers begin with")
    due_days: int = Field(default=14, ge=0, le=365, description="Days from the issue to when it is due")
    seller_name: str = Field(default="", max_length=200, description="Empty: nothing can be issued")
    seller_address: str = Field(default="", max_length=500, description="Its lines, a vertical bar between them")
    seller_country: Annotated[str, AfterValidator(_country)] = Field(
        default="", description="ISO 3166; empty: no taxes"
    )
    seller_tax_id: str = Field(default="", max_length=40)
    tax_rates: Annotated[tuple[str, ...], AfterValidator(_rates)] = Field(
        default=(), description="Percent by the buyer's country, such as DE=19,FR=20"
    )
    reverse_charge: Annotated[tuple[str, ...], AfterValidator(_countries)] = Field(
        default=(), description="Countries between which a buyer with a tax id accounts for the tax itself"
    )


class SecretSettings(Section):
    """`keys` encrypt publishers' credentials at rest and sign receipts: 'id:base64(32 bytes)', the first is current.

    `operator_token` opens the operators' part of the API, and so does each of `operator_tokens` (alice:…,bob:…), which
    tells who it is; without any it is closed.
    """

    keys: str = ""
    operator_token: str = ""
    operator_tokens: str = ""

    @field_validator("operator_token")
    @classmethod
    def _long_enough(cls, value: str) -> str:
        return named_tokens.checked(value)

    @field_validator("operator_tokens")
    @classmethod
    def _named(cls, value: str) -> str:
        return value if named_tokens.read(value) else ""

    @property
    def operators(self) -> dict[str, str]:
        """Return every operator's token by its name."""
        shared = {named_tokens.SHARED: self.operator_token} if self.operator_token else {}
        return {**shared, **named_tokens.read(self.operator_tokens)}


class SessionSettings(Section):
    """Logins of people (docs/accounts.md)."""

    access: Seconds = Field(default=900.0, description="How long an access token lives; then it is refreshed")
    lifetime: float = Field(default=2_592_000.0, ge=60, le=31_536_000, description="When to log in again at the latest")


class SmtpSettings(Section):
    """The mail server that letters go to. Without one, and without a folder, nobody can sign up by e-mail."""

    host: str = ""
    port: int = Field(default=587, ge=1, le=65_535)
    security: Literal["starttls", "tls", "none"] = "starttls"
    username: str = Field(default="", description="Empty: no login")
    password: str = ""
    sender: str = Field(default="Tollway <no-reply@localhost.localdomain>", description="What letters come from")
    folder: str = Field(default="", description="Where letters are kept as files instead, while `host` is empty")

    @field_validator("sender")
    @classmethod
    def _one_mailbox(cls, value: str) -> str:
        if not re.fullmatch(r"(?:[\w .-]+ <[^\s<>@,]+@[\w.-]+>|[^\s<>@,]+@[\w.-]+)", value, re.ASCII):
            raise ValueError("must be name@example.com or Name <name@example.com>")
        return value

    @model_validator(mode="after")
    def _no_password_in_the_clear(self) -> SmtpSettings:
        if self.security == "none" and self.username:
            raise ValueError("username with security none would send the password in the clear: use starttls or tls")
        return self
