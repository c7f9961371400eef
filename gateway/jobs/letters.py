"""Sends the letters of the outbox, a few at a time, and gives up on those that nobody takes for a day."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime

from gateway.database.pool import Database
from gateway.identity import invitations, people
from gateway.mail import outbox
from gateway.mail.door import AT_ONCE, MailDoor, NeverTaken, NotTaken
from gateway.mail.outbox import Composer, Due, LetterKind

log = logging.getLogger(__name__)

COMPOSERS: dict[LetterKind, Composer] = {**people.COMPOSERS, **invitations.COMPOSERS}
"""Who makes which letter: each kind has one."""


class Postman:
    """Sends what is due. One per worker; two never hold the same letter."""

    def __init__(self, database: Database, door: MailDoor, public_url: str) -> None:
        self._database = database
        self._door = door
        self._public_url = public_url

    async def run(self) -> None:
        """Send until nothing is due."""
        if self._door.open:
            while any(await asyncio.gather(*(self._one() for _ in range(AT_ONCE)))):
                pass

    async def tidy(self) -> None:
        """Forget letters that failed long ago."""
        async with self._database.acquire() as connection:
            await outbox.FORGET_FAILED.run(connection, outbox.KEEP_FAILED)

    async def _one(self) -> bool:
        """Take one letter and try it; False when none is due."""
        async with self._database.acquire() as connection:
            due = await outbox.TAKE.first(connection, outbox.LEASE)
        if due is None:
            return False
        async with self._database.transaction() as connection:
            letter = await COMPOSERS[LetterKind(due.kind)](connection, due, self._public_url)
        try:
            if letter is not None:
                await self._door.send(letter)
        except (NotTaken, NeverTaken) as error:
            await self._not_sent(due, error)
            return True
        async with self._database.acquire() as connection:
            await outbox.SENT.run(connection, due.id)
        return True

    async def _not_sent(self, due: Due, error: NotTaken | NeverTaken) -> None:
        late = datetime.now(UTC) - due.created_at > outbox.GIVE_UP
        async with self._database.acquire() as connection:
            if late or isinstance(error, NeverTaken):
                await outbox.FAILED.run(connection, due.id, str(error))
                log.error("a letter (%s, %s) was given up after %d tries: %s", due.kind, due.id, due.tries, error)
            else:
                await outbox.AGAIN.run(connection, due.id, outbox.wait_after(due.tries), str(error))
                log.warning("a letter (%s, %s) was not taken: %s", due.kind, due.id, error)
