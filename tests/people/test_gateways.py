"""Two gateways on one database, with their jobs and a mail server: what ends at one has ended at the other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest_asyncio

from tests.people.conftest import PASSWORD
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.mailbox import Mailbox
from tests.support.services import Services
from tests.support.world import World

SECOND_PASSWORD = "an orchard behind the mill"


def smtp(mailbox: Mailbox) -> dict[str, str]:
    return {
        "SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(mailbox.port), "SMTP_SECURITY": "none",
        "SMTP_SENDER": "no-reply@tollway.test", "LIMITS_LOGINS": "100000", "LIMITS_LETTERS": "100000",
        "PUBLIC_URL": "http://tollway.test", "LOG_LEVEL": "debug",
    }  # fmt: skip


@pytest_asyncio.fixture(scope="module")
async def gateway(services: Services, database_url: str, mailbox: Mailbox) -> AsyncIterator[RunningGateway]:
    running = await start_gateway(services, database_url, **smtp(mailbox))
    yield running
    await running.stop()


@pytest_asyncio.fixture(scope="module")
async def other(services: Services, database_url: str, mailbox: Mailbox) -> AsyncIterator[RunningGateway]:
    running = await start_gateway(services, database_url, **smtp(mailbox))
    yield running
    await running.stop()


async def post(gateway: RunningGateway, path: str, access: str | None = None, **body: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {access}"} if access else {}
    return await gateway.client.post(path, json=body, headers=headers)


async def works(gateway: RunningGateway, token: str) -> bool:
    answer = await gateway.client.get("/auth/me", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code in (200, 401)
    return answer.status_code == 200


async def person(gateway: RunningGateway, mailbox: Mailbox, email: str) -> dict[str, Any]:
    assert (await post(gateway, "/auth/signup", email=email, password=PASSWORD)).status_code == 201
    letter = await mailbox.wait_for(email)
    answer = await post(gateway, "/auth/verify-email", token=letter.link[1])
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


async def test_what_ends_at_one_gateway_has_ended_at_the_other(
    gateway: RunningGateway, other: RunningGateway, mailbox: Mailbox
) -> None:
    first = await person(gateway, mailbox, "two@example.com")
    second = (await post(other, "/auth/login", email="two@example.com", password=PASSWORD)).json()["data"]
    for one in (gateway, other):
        assert await works(one, first["access_token"])
        assert await works(one, second["access_token"])
    await post(other, "/auth/logout", second["access_token"])
    assert not await works(gateway, second["access_token"])
    assert await works(gateway, first["access_token"])
    await post(other, "/sessions/revoke-all", first["access_token"])
    assert not await works(gateway, first["access_token"])
    assert (await post(gateway, "/auth/refresh", refresh_token=first["refresh_token"])).status_code == 401


async def test_a_password_that_is_reset_at_one_ends_logins_at_the_other(
    gateway: RunningGateway, other: RunningGateway, mailbox: Mailbox
) -> None:
    first = await person(other, mailbox, "reset@example.com")
    assert (await post(gateway, "/auth/forgot-password", email="reset@example.com")).status_code == 200
    letter = await mailbox.wait_for("reset@example.com", 2)
    body = {"token": letter.link[1], "new_password": SECOND_PASSWORD}
    assert (await post(other, "/auth/reset-password", **body)).status_code == 200
    assert not await works(gateway, first["access_token"])
    assert (await post(gateway, "/auth/login", email="reset@example.com", password=PASSWORD)).status_code == 401


async def test_a_login_buys_nothing_and_a_key_of_the_person_does(
    gateway: RunningGateway, mailbox: Mailbox, world: World
) -> None:
    shop = await world.publisher(price=0)
    login = await person(gateway, mailbox, "buyer@example.com")
    access = login["access_token"]
    made = await post(gateway, "/organizations/default/api-keys", access, name="mine")
    key = made.json()["data"]["api_key"]
    path = f"/publishers/{shop.slug}/x"
    refused = await gateway.client.get(path, headers={"Authorization": f"Bearer {access}"})
    assert refused.status_code == 401
    assert "A login buys nothing" in refused.json()["detail"]
    for field in (f"tollway_access={access}", f"__Host-tollway_access={access}"):
        answer = await gateway.client.get(path, headers={"Cookie": field, "Sec-Fetch-Site": "same-origin"})
        assert answer.status_code == (await gateway.client.get(path)).status_code
    assert (await gateway.client.get(path, headers={"Authorization": f"Bearer {key}"})).status_code == 200


async def test_the_pages_of_letters_do_nothing_by_themselves(gateway: RunningGateway, mailbox: Mailbox) -> None:
    """Mail filters open links; the token is in the fragment, which no request has."""
    await post(gateway, "/auth/signup", email="page@example.com", password=PASSWORD)
    page, token = (await mailbox.wait_for("page@example.com")).link
    assert page == "http://tollway.test/account/verify-email"
    for path in ("/account/verify-email", "/account/reset-password"):
        answer = await gateway.client.get(path)
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe-inline" not in policy
        assert answer.headers["referrer-policy"] == "no-referrer"
    assert (await post(gateway, "/auth/verify-email", token=token)).status_code == 200


async def test_no_secret_is_in_the_output(gateway: RunningGateway, other: RunningGateway, mailbox: Mailbox) -> None:
    login = await person(gateway, mailbox, "silent@example.com")
    await post(gateway, "/auth/login", email="silent@example.com", password="a wrong password of mine")
    await post(gateway, "/auth/refresh", refresh_token=login["refresh_token"])
    await post(gateway, "/auth/verify-email", token=mailbox.to("silent@example.com")[0].link[1])
    said = gateway.output() + other.output()
    secrets = [PASSWORD, SECOND_PASSWORD, "a wrong password of mine", login["access_token"], login["refresh_token"]]
    secrets += [post.link[1] for post in mailbox.posts if "#" in post.text]
    for secret in secrets:
        assert secret not in said
        assert secret.rsplit("_", 1)[-1] not in said
    assert "silent@example.com" not in said
