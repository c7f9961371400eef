"""Letters on their way: written in the transaction of the change that they tell, sent after its commit.

A change that is rolled back takes its letter with it, and a letter that was written is tried until a mail server takes
it, says that it never will, or a day is over. A crash between a server's yes and our note of it sends it twice.

No token is written down: a letter says which link it needs, and the job makes it when it sends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from gateway.database.pool import Connection
from gateway.database.statement import Command, Statement
from gateway.ids import uuid7
from gateway.mail.letters import Letter

LEASE = timedelta(minutes=2)
"""How long nobody else takes a letter that is being sent: longer than a try may take."""
FIRST_WAIT = timedelta(seconds=5)
LONGEST_WAIT = timedelta(hours=1)
GIVE_UP = timedelta(days=1)
KEEP_FAILED = timedelta(days=30)


class LetterKind(StrEnum):
    """What a letter is about; letters.py has the words, a Composer of each what belongs into them."""

    VERIFY = "verify"
    VERIFY_AGAIN = "verify_again"
    RESET = "reset"
    CHANGED = "password_changed"
    INVITATION = "invitation"


@dataclass(frozen=True, slots=True)
class Due:
    """A letter whose turn it is."""

    id: UUID
    kind: str
    recipient: str
    about: UUID | None
    created_at: datetime
    tries: int


Composer = Callable[[Connection, Due, str], Awaitable[Letter | None]]
"""Makes the letter when it is sent, given `server.public_url`; in a transaction, for the token of its link."""

POST = Command("INSERT INTO identity.letter (id, kind, recipient, about) VALUES ($1, $2, $3, $4)")
TAKE = Statement(
    """
    UPDATE identity.letter SET tries = tries + 1, next_try_at = now() + $1::interval
     WHERE id = (SELECT id FROM identity.letter WHERE failed_at IS NULL AND next_try_at <= now()
                  ORDER BY next_try_at LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING id, kind, recipient, about, created_at, tries
    """,
    Due,
)
SENT = Command("DELETE FROM identity.letter WHERE id = $1")
AGAIN = Command("UPDATE identity.letter SET next_try_at = now() + $2::interval, error = $3 WHERE id = $1")
FAILED = Command("UPDATE identity.letter SET failed_at = now(), error = $2 WHERE id = $1")
FORGET_FAILED = Command("DELETE FROM identity.letter WHERE failed_at < now() - $1::interval")


async def post(connection: Connection, kind: LetterKind, recipient: str, about: UUID | None = None) -> None:
    """Have a letter sent once the transaction of this connection has committed."""
    await POST.run(connection, uuid7(), kind.value, recipient, about)


def wait_after(tries: int) -> timedelta:
    """Return how long to wait after so many tries: doubled each time, up to an hour."""
    return min(FIRST_WAIT * 2 ** min(tries - 1, 20), LONGEST_WAIT)
