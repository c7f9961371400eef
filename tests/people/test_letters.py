"""Letters: sent after the commit of what they tell, until somebody takes them, and to nobody but their recipient."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.jobs.letters import COMPOSERS, Postman
from gateway.mail import outbox
from gateway.mail.door import MailDoor, NotTaken, composed
from gateway.mail.letters import Letter
from gateway.mail.outbox import LetterKind
from gateway.settings import SmtpSettings
from tests.admin_api.conftest import Api, close_api, open_api, settings_for
from tests.people.conftest import PASSWORD, WIDE, Street

SENDER = "Tollway <no-reply@tollway.test>"


async def waiting(api: Api, email: str) -> list[tuple[int, bool, str | None, bool]]:
    """Return tries, whether it is due, the last error and whether it was given up, of letters to an address."""
    async with api.services.database.acquire() as connection:
        rows = await connection.fetch(
            "SELECT tries, next_try_at <= now(), error, failed_at IS NOT NULL FROM identity.letter WHERE recipient = $1",
            email,
        )
    return [tuple(row) for row in rows]


async def hasten(api: Api) -> None:
    async with api.services.database.acquire() as connection:
        await connection.execute("UPDATE identity.letter SET next_try_at = now()")


async def signed_up(street: Street) -> str:
    email = street.address()
    await street.post("/auth/signup", expect=201, email=email, password=PASSWORD)
    return email


async def test_a_letter_waits_until_a_server_takes_it(street: Street, api: Api) -> None:
    email = await signed_up(street)
    for tried, said in enumerate(("451 busy", "421 going down"), 1):
        street.mailbox.answers.append(said)
        await street.postman.run()
        ((tries, due, error, failed),) = await waiting(api, email)
        assert (tries, due, failed) == (tried, False, False)
        assert error is not None
        assert email not in error
        await hasten(api)
    await street.post("/auth/verify-email", expect=200, token=await street.token_for(email))
    assert await waiting(api, email) == []


async def test_a_server_that_is_away_costs_no_letter(street: Street, api: Api) -> None:
    email = await signed_up(street)
    away = MailDoor(SmtpSettings(host="127.0.0.1", port=9, security="none", sender=SENDER))
    await Postman(api.services.database, away, "http://tollway.test").run()
    away.stop()
    ((tries, _, error, failed),) = await waiting(api, email)
    assert (tries, error, failed) == (1, "ConnectionRefusedError", False)
    await hasten(api)
    await street.token_for(email)


async def test_what_a_server_never_takes_is_given_up_and_what_is_too_old(street: Street, api: Api) -> None:
    refused, old = await signed_up(street), await signed_up(street)
    async with api.services.database.acquire() as connection:
        await connection.execute(
            "UPDATE identity.letter SET created_at = now() - interval '25 hours' WHERE recipient = $1", old
        )
    street.mailbox.answers += ["550 no such mailbox", "550 no such mailbox"]
    await street.postman.run()
    for email in (refused, old):
        ((_, _, error, failed),) = await waiting(api, email)
        assert (error, failed) == ("the server refused (550)", True)
    await hasten(api)
    seen = street.mailbox.seen
    await street.postman.run()
    assert street.mailbox.seen == seen
    async with api.services.database.acquire() as connection:
        await connection.execute("UPDATE identity.letter SET failed_at = now() - interval '31 days'")
    await street.postman.tidy()
    assert await waiting(api, refused) == []


async def test_what_is_rolled_back_is_not_sent(street: Street, api: Api) -> None:
    email = street.address()

    async def changed_and_lost() -> None:
        async with api.services.database.transaction() as connection:
            await outbox.post(connection, LetterKind.CHANGED, email)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await changed_and_lost()
    await street.postman.run()
    assert street.mailbox.to(email) == []


async def test_two_postmen_send_a_letter_once(street: Street, api: Api) -> None:
    emails = [await signed_up(street) for _ in range(12)]
    other = Postman(api.services.database, api.services.mail, "http://tollway.test")
    await asyncio.gather(street.postman.run(), other.run())
    assert [len(street.mailbox.to(email)) for email in emails] == [1] * 12


async def test_a_letter_whose_sender_died_is_sent_by_another(street: Street, api: Api) -> None:
    email = await signed_up(street)
    async with api.services.database.acquire() as connection:
        assert await outbox.TAKE.first(connection, outbox.LEASE) is not None
    await street.postman.run()
    assert street.mailbox.to(email) == []
    await hasten(api)  # what the end of the lease does
    await street.token_for(email)


async def test_every_kind_of_letter_has_a_composer() -> None:
    assert COMPOSERS.keys() == set(LetterKind)


@pytest.mark.parametrize("field", ["recipient", "subject"])
def test_no_line_break_gets_into_a_field(field: str) -> None:
    parts = {"recipient": "a@example.com", "subject": "Hello", "text": "Hello"}
    parts[field] += "\r\nBcc: b@example.com"
    with pytest.raises(ValueError, match=r"linefeed|carriage|newline"):
        composed(Letter(**parts), SENDER)


async def test_a_server_without_tls_gets_nothing_where_tls_is_asked_for(street: Street) -> None:
    """Whoever stands in between could take the offer away."""
    before = street.mailbox.seen
    for security in ("starttls", "tls"):
        door = MailDoor(
            SmtpSettings(host="127.0.0.1", port=street.mailbox.port, security=security, sender=SENDER)  # pyright: ignore
        )
        with pytest.raises(NotTaken):
            await door.send(Letter("a@example.com", "Hello", "Hello"))
        door.stop()
    assert street.mailbox.seen == before


def test_no_password_goes_in_the_clear() -> None:
    with pytest.raises(ValueError, match="in the clear"):
        SmtpSettings(host="127.0.0.1", security="none", username="me", password="secret")
    with pytest.raises(ValueError, match=r"must be name@example\.com"):
        SmtpSettings(sender="a@example.com\r\nBcc: b@example.com")


async def test_without_a_server_letters_are_files_for_nobody_else(tmp_path: Path) -> None:
    door = MailDoor(SmtpSettings(folder=str(tmp_path / "mail")))
    await door.send(Letter("a@example.com", "Hello", "Read http://tollway.test/x#seren_verify_y\n"))
    door.stop()
    (file,) = (tmp_path / "mail").iterdir()
    assert "To: a@example.com" in file.read_text()
    assert "\nRead http://tollway.test/x#seren_verify_y" in file.read_text().replace("\r", "")
    assert (file.stat().st_mode & 0o077, file.parent.stat().st_mode & 0o077) == (0, 0)


async def test_a_gateway_without_mail_says_so_to_everybody(database_url: str) -> None:
    api, _ = await open_api(settings_for(database_url, limits=WIDE))
    bodies = {
        "/auth/signup": {"email": "a@example.com", "password": PASSWORD},
        "/auth/forgot-password": {"email": "a@example.com"},
        "/auth/resend-verification": {"email": "a@example.com"},
    }
    for path, body in bodies.items():
        problem = (await api.call("POST", path, json=body, expect=501)).json()
        assert "smtp.host" in problem["detail"]
    await close_api(api)


async def test_waits_double_up_to_an_hour() -> None:
    waits = [outbox.wait_after(tries).total_seconds() for tries in (1, 2, 3, 9, 10, 11, 200)]
    assert waits == [5, 10, 20, 1280, 2560, 3600, 3600]
