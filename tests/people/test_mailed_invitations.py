"""Invitations by letter: the link brings whom it is for into the organization, and nobody's mailbox is flooded."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest
import pytest_asyncio

from gateway.mail.letters import INVITATION_PAGE, RESET_PAGE, VERIFY_PAGE
from gateway.settings import LimitSettings, Settings
from tests.admin_api.conftest import Api, Clerk, Member, close_api, open_api, settings_for
from tests.admin_api.test_organizations import shared
from tests.people.conftest import WIDE, Street, people_settings
from tests.support.mailbox import Mailbox

NARROW = {**WIDE.model_dump(), "letters": 2, "invitations": 4}


@pytest_asyncio.fixture
async def owner(clerk: Clerk) -> Member:
    return await clerk.agent()


async def invited(street: Street, owner: Member, base: str, email: str, expect: int = 201) -> str:
    answer = await street.post(f"{base}/invites", owner.key, expect=expect, email=email, role="editor")
    return answer.json()["data"]["id"] if expect == 201 else ""


async def test_a_letter_brings_a_person_in(street: Street, api: Api, owner: Member) -> None:
    base, email = await shared(api, owner, "Tides <b>& Winds"), street.address()
    await invited(street, owner, base, email)
    token = await street.token_for(email)
    letter = street.mailbox.to(email)[-1]
    assert letter.link[0].endswith(INVITATION_PAGE)
    # Nothing that the inviter wrote, or who that is, is in a stranger's mailbox.
    assert not any(word in letter.text for word in ("Tides", owner.name, "editor"))
    friend = await street.person(email)
    shown = (await street.post("/invitations/look", friend.access, expect=200, invitation=token)).json()["data"]
    assert (shown["organization_name"], shown["role"]) == ("Tides <b>& Winds", "editor")
    await street.post("/invitations/accept", friend.access, expect=200, invitation=token)
    await api.call("GET", f"{base}/members", friend.access, expect=200)


async def test_only_whom_it_is_for_sees_what_it_promises(street: Street, api: Api, owner: Member) -> None:
    base, email = await shared(api, owner), street.address()
    await invited(street, owner, base, email)
    token = await street.token_for(email)
    stranger = await street.person()
    for path in ("look", "accept"):
        await street.post(f"/invitations/{path}", stranger.access, expect=404, invitation=token)
    await api.call("POST", "/invitations/look", json={"invitation": token}, expect=401)


async def test_a_letter_is_sent_again_while_the_invitation_is_open(street: Street, api: Api, owner: Member) -> None:
    base, email = await shared(api, owner), street.address()
    invite = await invited(street, owner, base, email)
    first = await street.token_for(email)
    path = f"{base}/invites/{invite}/resend"
    answer = await api.call("POST", path, owner.key, expect=200)
    assert "seren_invite" not in answer.text
    second = await street.token_for(email)
    assert len(street.mailbox.to(email)) == 2
    friend = await street.person(email)
    for token in (first, second):  # a letter that was late is as good
        await street.post("/invitations/look", friend.access, expect=200, invitation=token)
    await api.call("DELETE", f"{base}/invites/{invite}", owner.key, expect=204)
    await street.post("/invitations/look", friend.access, expect=404, invitation=second)
    await api.call("POST", path, owner.key, expect=409)
    await api.call("POST", f"{base}/invites/{owner.id}/resend", owner.key, expect=404)


async def test_an_invitation_that_died_on_its_way_sends_no_letter(street: Street, api: Api, owner: Member) -> None:
    base, email = await shared(api, owner), street.address()
    invite = await invited(street, owner, base, email)
    await api.call("DELETE", f"{base}/invites/{invite}", owner.key, expect=204)
    await street.postman.run()
    assert street.mailbox.to(email) == []


async def test_the_log_says_who_had_a_letter_sent_again(street: Street, api: Api, owner: Member) -> None:
    base = await shared(api, owner)
    invite = await invited(street, owner, base, street.address())
    await api.call("POST", f"{base}/invites/{invite}/resend", owner.key, expect=200)
    found = await api.call("GET", f"{base}/audit-logs?action=invitation.resend", owner.key, expect=200)
    (entry,) = found.json()["data"]["data"]
    assert (entry["resource_id"], entry["actor_id"]) == (invite, str(owner.id))


@pytest.mark.parametrize("path", [VERIFY_PAGE, RESET_PAGE, INVITATION_PAGE])
async def test_pages_of_letters_run_their_own_script_and_nothing_else(api: Api, path: str) -> None:
    answer = await api.call("GET", path, expect=200)
    (script,) = re.findall(r"<script>(.*?)</script>", answer.text, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = answer.headers["content-security-policy"]
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


@pytest.fixture
def narrow(database_url: str, mailbox: Mailbox) -> Settings:
    return people_settings(database_url, mailbox, limits=LimitSettings(**NARROW))


async def test_nobody_floods_a_mailbox_or_many(narrow: Settings, mailbox: Mailbox) -> None:
    api, _ = await open_api(narrow)
    try:
        street, clerk = Street(api, mailbox), Clerk(api)
        email, others = street.address(), [await clerk.agent() for _ in range(3)]
        # Many organizations, one mailbox: it gets its share, and no inviter can tell.
        for owner in others:
            await invited(street, owner, await shared(api, owner), email)
        await street.postman.run()
        assert len(mailbox.to(email)) == 2
        # Its owner still gets what it asks for itself.
        await street.person(email)
        # One inviter, many mailboxes.
        base = await shared(api, others[0])
        for expect in (201, 201, 201, 429):
            await invited(street, others[0], base, street.address(), expect)
    finally:
        await close_api(api)
        api.services.passwords.stop()
        api.services.mail.stop()


async def test_without_a_mail_server_the_token_is_all_there_is(database_url: str) -> None:
    api, _ = await open_api(settings_for(database_url))
    try:
        owner = await Clerk(api).agent()
        base = await shared(api, owner)
        body = {"email": "friend@example.com"}
        made = (await api.call("POST", f"{base}/invites", owner.key, json=body, expect=201)).json()["data"]
        assert made["token"].startswith("seren_invite_")
        problem = await api.call("POST", f"{base}/invites/{made['id']}/resend", owner.key, expect=501)
        assert "smtp.host" in problem.json()["detail"]
        async with api.services.database.acquire() as connection:
            waiting = await connection.fetchval(
                "SELECT count(*) FROM identity.letter WHERE recipient = $1 AND about = $2::uuid",
                "friend@example.com", made["id"],
            )  # fmt: skip
        assert waiting == 0
    finally:
        await close_api(api)
