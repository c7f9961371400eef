"""People: signing up, proving an address, logging in, and choosing another password.

An account exists once its address is proven. Whoever asks for one with an address that is taken is answered like
everybody else, and the owner hears of it by mail; in a request, known and unknown addresses cost the same work. What
tells them apart happens when the letter is composed, by a job.

What does not live here: sessions (sessions.py), how often somebody may try (admin_api/kit/access.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from gateway.database.pool import Connection, Database, UniqueViolation
from gateway.database.statement import Command, Statement
from gateway.errors import Forbidden, InvalidRequest, NotFound, Unauthenticated
from gateway.identity import passwords
from gateway.identity.accounts import INSERT_MEMBERSHIP, INSERT_ORGANIZATION, TRIES, free_slug, wallet_address
from gateway.identity.codes import new_referral_code
from gateway.identity.passwords import Passwords
from gateway.identity.sessions import Client, Lifetimes, Opened, end_all, open_session
from gateway.identity.tokens import TokenKind, hash_of, new_token
from gateway.identity.trail import note
from gateway.ids import uuid7
from gateway.ledger.wallets import open_wallet
from gateway.mail import letters, outbox
from gateway.mail.letters import Letter
from gateway.mail.outbox import Composer, Due, LetterKind

SIGNUP_LIFETIME = timedelta(days=1)
RESET_LIFETIME = timedelta(minutes=30)
KEEP_USED = timedelta(days=7)
NOT_CURRENT = "The current password is another one."
NO_LONGER = "This link is unknown, was used, or is too old. Ask for another one."


@dataclass(frozen=True, slots=True)
class _Credentials:
    account_id: UUID
    password_hash: str | None = field(repr=False)
    status: str


@dataclass(frozen=True, slots=True)
class _Signup:
    id: UUID
    email: str
    name: str
    password_hash: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _ResetToken:
    account_id: UUID
    live: bool


INSERT_SIGNUP = Command(
    """
    INSERT INTO identity.signup (id, email, name, password_hash, expires_at)
    VALUES ($1, $2, $3, $4, now() + $5::interval)
    """
)
FIND_PERSON = Statement(
    "SELECT id AS account_id, password_hash, status FROM identity.account WHERE kind = 'human' AND lower(email) = $1",
    _Credentials,
)
# The password as it was compared: a change that came in between leaves nothing to open a session for.
LOCK_LOGIN = Statement(
    """
    SELECT true FROM identity.account WHERE id = $1 AND password_hash = $2 AND status = 'active' FOR SHARE
    """,
    bool,
    scalar=True,
)
REHASH = Command("UPDATE identity.account SET password_hash = $3 WHERE id = $1 AND password_hash = $2")
SET_PASSWORD = Statement(
    "UPDATE identity.account SET password_hash = $2 WHERE id = $1 AND status = 'active' RETURNING email",
    str,
    scalar=True,
)
CHANGE_PASSWORD = Statement(
    """
    UPDATE identity.account SET password_hash = $3 WHERE id = $1 AND password_hash = $2 AND status = 'active'
    RETURNING email
    """,
    str,
    scalar=True,
)
# Empty for an account without a password: no hash is.
FIND_HASH = Statement("SELECT coalesce(password_hash, '') FROM identity.account WHERE id = $1", str, scalar=True)
# All sign-ups of the address, in one order: two links for it that are used at the same moment follow each other.
LOCK_SIGNUPS = Command(
    """
    SELECT FROM identity.signup
     WHERE email = (SELECT s.email FROM identity.mail_token t JOIN identity.signup s ON s.id = t.signup_id
                     WHERE t.hash = $1)
     ORDER BY id FOR UPDATE
    """
)
# Of two who click one link at the same moment the second finds no row.
TAKE_SIGNUP = Statement(
    """
    DELETE FROM identity.signup s USING identity.mail_token t
     WHERE t.hash = $1 AND s.id = t.signup_id AND t.expires_at > now() AND s.expires_at > now()
    RETURNING s.id, s.email, s.name, s.password_hash
    """,
    _Signup,
)
FORGET_SIGNUPS_OF = Command("DELETE FROM identity.signup WHERE email = $1")
INSERT_PERSON = Command(
    """
    INSERT INTO identity.account (id, kind, name, email, password_hash, referral_code)
    VALUES ($1, 'human', $2, $3, $4, $5)
    """
)
LOCK_RESET = Statement(
    """
    SELECT account_id, used_at IS NULL AND expires_at > now() AS live FROM identity.mail_token
     WHERE hash = $1 AND account_id IS NOT NULL FOR UPDATE
    """,
    _ResetToken,
)
USE_RESETS_OF = Command("UPDATE identity.mail_token SET used_at = now() WHERE account_id = $1 AND used_at IS NULL")
INSERT_MAIL_TOKEN = Command(
    """
    INSERT INTO identity.mail_token (hash, signup_id, account_id, expires_at) VALUES ($1, $2, $3, now() + $4::interval)
    """
)
IS_PERSON = Statement(
    "SELECT EXISTS (SELECT FROM identity.account WHERE kind = 'human' AND lower(email) = $1)", bool, scalar=True
)
LOCK_SIGNUP = Statement(
    "SELECT id::text FROM identity.signup WHERE id = $1 AND expires_at > now() FOR KEY SHARE", UUID, scalar=True
)
LATEST_SIGNUP = Statement(
    """
    SELECT id::text FROM identity.signup WHERE email = $1 AND expires_at > now()
     ORDER BY created_at DESC, id DESC LIMIT 1 FOR KEY SHARE
    """,
    UUID,
    scalar=True,
)
FORGET_SIGNUPS = Command("DELETE FROM identity.signup WHERE expires_at < now()")
FORGET_TOKENS = Command("DELETE FROM identity.mail_token WHERE expires_at < now() - $1::interval")


async def sign_up(database: Database, hashes: Passwords, email: str, name: str, password: str) -> None:
    """Note a sign-up and have its letter sent; the same work whether or not the address has an account."""
    hashed = await hashes.hash(password)
    async with database.transaction() as connection:
        signup_id = uuid7()
        await INSERT_SIGNUP.run(connection, signup_id, email, name, hashed, SIGNUP_LIFETIME)
        await outbox.post(connection, LetterKind.VERIFY, email, signup_id)


async def verify(database: Database, token: str, asset_id: UUID, client: Client, lifetimes: Lifetimes) -> Opened:
    """Turn a sign-up into an account, with all that an agent gets but a key, and log in. Raises InvalidRequest."""
    digest = hash_of(TokenKind.VERIFY, token)
    if digest is None:
        raise InvalidRequest(NO_LONGER)
    for _ in range(TRIES):
        try:
            async with database.transaction() as connection:
                await LOCK_SIGNUPS.run(connection, digest)
                signup = await TAKE_SIGNUP.first(connection, digest)
                if signup is None:
                    raise InvalidRequest(NO_LONGER)
                account_id = await _new_person(connection, signup, asset_id)
                await FORGET_SIGNUPS_OF.run(connection, signup.email)
                opened = await open_session(connection, account_id, client, lifetimes)
                await note(connection, "account.register", account_id, account_id)
                return opened
        except UniqueViolation as error:
            if getattr(error, "constraint_name", "") == "account_email":
                raise InvalidRequest("This e-mail address has an account by now. Log in.") from None
    raise RuntimeError("no unique name and code were found for a new account")


async def log_in(
    database: Database, hashes: Passwords, email: str, password: str, client: Client, lifetimes: Lifetimes
) -> Opened:
    """Open a session for an address and its password. Raises Unauthenticated, in the same words and time for all."""
    person = await database.read(lambda connection: FIND_PERSON.first(connection, email))
    stored = person.password_hash if person is not None and person.status == "active" else None
    if not await hashes.matches(stored, password) or person is None or stored is None:
        raise wrong_credentials()
    if passwords.is_outdated(stored):
        stored = await _rehashed(database, hashes, person.account_id, stored, password)
    async with database.transaction() as connection:
        if not await LOCK_LOGIN.first(connection, person.account_id, stored):
            raise wrong_credentials()
        opened = await open_session(connection, person.account_id, client, lifetimes)
        await note(connection, "session.create", person.account_id, opened.session_id)
    return opened


def wrong_credentials() -> Unauthenticated:
    """Return the refusal of a login, which does not tell why."""
    return Unauthenticated("No account has this e-mail address and this password.")


async def reset_password(database: Database, hashes: Passwords, token: str, password: str) -> UUID:
    """Set another password by a letter's token, end all sessions, and return the account.

    Raises NotFound for an unknown token, InvalidRequest for one that was used or is too old.
    """
    digest = hash_of(TokenKind.RESET, token)
    found = await database.read(lambda connection: LOCK_RESET.first(connection, digest)) if digest else None
    if found is None:
        raise NotFound("No letter of ours had this link.")
    if not found.live:
        raise InvalidRequest(NO_LONGER)
    hashed = await hashes.hash(password)
    async with database.transaction() as connection:
        again = await LOCK_RESET.first(connection, digest)
        email = await SET_PASSWORD.first(connection, found.account_id, hashed) if again and again.live else None
        if email is None:
            raise InvalidRequest(NO_LONGER)
        await _password_is_new(connection, found.account_id, email)
        await note(connection, "account.reset_password", found.account_id, found.account_id)
    return found.account_id


async def change_password(
    database: Database, hashes: Passwords, account_id: UUID, current: str, password: str, client: Client,
    lifetimes: Lifetimes,
) -> Opened:  # fmt: skip
    """Set another password, end all sessions, and open a new one. Raises Forbidden for a wrong current one."""
    stored = await database.read(lambda connection: FIND_HASH.first(connection, account_id))
    if not await hashes.matches(stored or None, current):
        raise Forbidden(NOT_CURRENT)
    hashed = await hashes.hash(password)
    async with database.transaction() as connection:
        email = await CHANGE_PASSWORD.first(connection, account_id, stored, hashed)
        if email is None:
            raise Forbidden(NOT_CURRENT)
        await _password_is_new(connection, account_id, email)
        opened = await open_session(connection, account_id, client, lifetimes)
        await note(connection, "account.change_password", account_id, account_id)
    return opened


async def forget_old(database: Database) -> None:
    """Remove sign-ups that were never confirmed, and tokens that nobody can use."""
    async with database.acquire() as connection:
        await FORGET_SIGNUPS.run(connection)
        await FORGET_TOKENS.run(connection, KEEP_USED)


async def _new_person(connection: Connection, signup: _Signup, asset_id: UUID) -> UUID:
    account_id, organization_id = uuid7(), uuid7()
    await INSERT_PERSON.run(
        connection, account_id, signup.name, signup.email, signup.password_hash, new_referral_code()
    )  # fmt: skip
    slug = await free_slug(connection, signup.name)
    await INSERT_ORGANIZATION.run(connection, organization_id, signup.name, slug, True, account_id)
    await INSERT_MEMBERSHIP.run(connection, organization_id, account_id, "owner")
    await open_wallet(connection, account_id, asset_id, wallet_address(account_id))
    return account_id


async def _password_is_new(connection: Connection, account_id: UUID, email: str) -> None:
    """End whatever stood on the old password: sessions, and links that could set yet another one."""
    await USE_RESETS_OF.run(connection, account_id)
    await end_all(connection, account_id, "password")
    await outbox.post(connection, LetterKind.CHANGED, email)


async def _rehashed(database: Database, hashes: Passwords, account_id: UUID, stored: str, password: str) -> str:
    fresh = await hashes.hash(passwords.normal_form(password))
    async with database.acquire() as connection:
        changed = await REHASH.run(connection, account_id, stored, fresh)
    return fresh if changed else stored


async def _letter_for_signup(connection: Connection, due: Due, public_url: str) -> Letter | None:
    again = due.kind == LetterKind.VERIFY_AGAIN
    if await IS_PERSON.one(connection, due.recipient):
        await FORGET_SIGNUPS_OF.run(connection, due.recipient)
        return None if again else letters.already_known(due.recipient, public_url)
    signup_id = await (
        LATEST_SIGNUP.first(connection, due.recipient) if again else LOCK_SIGNUP.first(connection, due.about)
    )
    if signup_id is None:
        return None
    token = new_token(TokenKind.VERIFY)
    await INSERT_MAIL_TOKEN.run(connection, token.hash, signup_id, None, SIGNUP_LIFETIME)
    return letters.verify(due.recipient, public_url, token.text)


async def _letter_for_reset(connection: Connection, due: Due, public_url: str) -> Letter | None:
    person = await FIND_PERSON.first(connection, due.recipient)
    if person is None or person.status != "active":
        return None
    token = new_token(TokenKind.RESET)
    await INSERT_MAIL_TOKEN.run(connection, token.hash, None, person.account_id, RESET_LIFETIME)
    return letters.reset(due.recipient, public_url, token.text)


async def _letter_for_new_password(_connection: Connection, due: Due, public_url: str) -> Letter:
    return letters.password_changed(due.recipient, public_url)


COMPOSERS: dict[LetterKind, Composer] = {
    LetterKind.VERIFY: _letter_for_signup,
    LetterKind.VERIFY_AGAIN: _letter_for_signup,
    LetterKind.RESET: _letter_for_reset,
    LetterKind.CHANGED: _letter_for_new_password,
}
"""What is to be sent for a letter of the outbox, with a fresh token; None when nobody should get one."""
