"""A mail server on loopback that keeps what it is sent, and answers as a test tells it to."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP as POLICY
from typing import Any, cast

from aiosmtpd.smtp import SMTP, Envelope

TAKEN = "250 OK"
LINK = re.compile(r"(https?://\S+)#(seren_[a-z]+_[A-Za-z0-9]{43})$", re.MULTILINE)


@dataclass
class Post:
    """A letter as it came, with its envelope."""

    sender: str
    recipients: list[str]
    message: EmailMessage

    @property
    def text(self) -> str:
        return str(self.message.get_content())

    @property
    def has_link(self) -> bool:
        return LINK.search(self.text.replace("\r\n", "\n")) is not None

    @property
    def link(self) -> tuple[str, str]:
        """Return the page and the token of the link in it."""
        found = LINK.search(self.text.replace("\r\n", "\n"))
        assert found is not None, self.text
        return found[1], found[2]


@dataclass
class Mailbox:
    """The server; `answers` is what it says to the next letters instead of taking them."""

    posts: list[Post] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    seen: int = 0
    port: int = 0
    _server: asyncio.Server | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: SMTP(self, hostname="mail.test", enable_SMTPUTF8=False), "127.0.0.1", 0
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def handle_DATA(self, _server: SMTP, _session: Any, envelope: Envelope) -> str:
        self.seen += 1
        if self.answers and (said := self.answers.pop(0)) != TAKEN:
            return said
        message = cast("EmailMessage", message_from_bytes(cast("bytes", envelope.content), policy=POLICY))  # pyright: ignore
        self.posts.append(Post(str(envelope.mail_from), [str(one) for one in envelope.rcpt_tos], message))
        return TAKEN

    def to(self, address: str) -> list[Post]:
        """Return what came for an address, oldest first."""
        return [post for post in self.posts if address in post.recipients]

    async def wait_for(self, address: str, count: int = 1) -> Post:
        """Return the letter of this number to an address once it is there."""
        async with asyncio.timeout(60):
            while len(self.to(address)) < count:
                await asyncio.sleep(0.02)
        return self.to(address)[count - 1]
