"""An admin API with a real mail server on loopback, and people who sign up by it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.jobs.letters import Postman
from gateway.settings import LimitSettings, Settings, SmtpSettings
from tests.admin_api.conftest import Api, Clerk, close_api, open_api, settings_for
from tests.support.mailbox import Mailbox

PASSWORD = "a quiet harbour in winter"
WIDE = LimitSettings(
    per_key=100_000, per_address=100_000, registrations=10_000, guesses=10_000,
    logins=100_000, logins_per_account=100_000, logins_per_address=100_000, letters=100_000,
)  # fmt: skip
_numbers = count(1)


def people_settings(database_url: str, mailbox: Mailbox, **sections: Any) -> Settings:
    """Return settings with wide limits and the mail server."""
    smtp = SmtpSettings(host="127.0.0.1", port=mailbox.port, security="none", sender="Tollway <no-reply@tollway.test>")
    return settings_for(database_url, **{"limits": WIDE, "smtp": smtp, **sections})


@dataclass
class Login:
    """Who is logged in, and by what."""

    email: str
    access: str
    refresh: str
    account: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.account["id"])


class Street:
    """Where people live: makes accounts as people do, with letters and links."""

    def __init__(self, api: Api, mailbox: Mailbox) -> None:
        self.api = api
        self.mailbox = mailbox
        self.postman = Postman(api.services.database, api.services.mail, api.services.settings.public_url)

    def address(self) -> str:
        return f"person{next(_numbers)}@example.com"

    async def post(self, path: str, key: str | None = None, expect: int | None = None, **body: Any) -> httpx.Response:
        return await self.api.call("POST", path, key, json=body, expect=expect)

    async def token_for(self, email: str) -> str:
        """Deliver what is due and return the token of the last letter to an address that has one.

        Several letters go out at once, in no order.
        """
        await self.postman.run()
        return [post for post in self.mailbox.to(email) if post.has_link][-1].link[1]

    async def person(self, email: str | None = None, password: str = PASSWORD, **more: Any) -> Login:
        """Sign up, and use the link of the letter."""
        email = email or self.address()
        mailed = email.lower()
        await self.post("/auth/signup", expect=201, email=email, password=password, **more)
        answer = await self.post("/auth/verify-email", expect=200, token=await self.token_for(mailed))
        return login_of(email, answer)

    async def login(self, email: str, password: str = PASSWORD) -> Login:
        return login_of(email, await self.post("/auth/login", expect=200, email=email, password=password))

    async def works(self, token: str) -> bool:
        """Return whether a token lets somebody in."""
        answer = await self.api.call("GET", "/auth/me", token)
        assert answer.status_code in (200, 401), answer.text
        return answer.status_code == 200


def login_of(email: str, answer: httpx.Response) -> Login:
    data = answer.json()["data"]
    return Login(email, data["access_token"], data["refresh_token"], data["user"])


@pytest_asyncio.fixture(scope="module")
async def mailbox() -> AsyncIterator[Mailbox]:
    server = Mailbox()
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture(scope="module")
async def api(database_url: str, mailbox: Mailbox) -> AsyncIterator[Api]:
    opened, _ = await open_api(people_settings(database_url, mailbox))
    yield opened
    await close_api(opened)
    opened.services.passwords.stop()
    opened.services.mail.stop()


@pytest.fixture(scope="module")
def street(api: Api, mailbox: Mailbox) -> Street:
    return Street(api, mailbox)


@pytest.fixture(scope="module")
def clerk(api: Api) -> Clerk:
    return Clerk(api)
