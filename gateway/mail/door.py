"""The one door to a mail server, and the folder that takes its place in development.

A letter goes out by SMTP in a thread. A server that offers no TLS where TLS was configured gets nothing, since whoever
sits in between could take the offer away. Header injection cannot happen twice over: addresses were checked when they
were stored, and the message object refuses line breaks in fields.
"""

from __future__ import annotations

import asyncio
import logging
import os
import smtplib
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, make_msgid
from pathlib import Path

from gateway.ids import uuid7
from gateway.mail.letters import Letter
from gateway.settings import SmtpSettings

log = logging.getLogger(__name__)

SECONDS = 20.0
"""How long a server may take for each of its answers."""
AT_ONCE = 4


class NotTaken(Exception):
    """The letter was not taken this time. The message says why without naming anybody."""


class NeverTaken(Exception):
    """The server says that it will never take this letter."""


class MailDoor:
    """Sends letters. One per worker; `open` says whether there is anywhere to send them."""

    def __init__(self, settings: SmtpSettings) -> None:
        self._settings = settings
        self._threads = ThreadPoolExecutor(AT_ONCE, "mail")

    @property
    def open(self) -> bool:
        """Return whether a mail server or a folder is configured."""
        return bool(self._settings.host or self._settings.folder)

    async def send(self, letter: Letter) -> None:
        """Hand a letter over. Raises NotTaken or NeverTaken."""
        message = composed(letter, self._settings.sender)
        work: Callable[[EmailMessage], None] = self._deliver if self._settings.host else self._keep
        await asyncio.get_running_loop().run_in_executor(self._threads, work, message)

    def stop(self) -> None:
        """Let the threads end; a letter that is being sent is sent again later."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _deliver(self, message: EmailMessage) -> None:
        try:
            with self._connect() as server:
                if self._settings.username:
                    server.login(self._settings.username, self._settings.password)
                server.send_message(message)
        except smtplib.SMTPRecipientsRefused as error:
            codes = [code for code, _ in error.recipients.values()]
            raise _verdict("the recipient was refused", codes[0] if codes else 0) from None
        except smtplib.SMTPResponseException as error:
            # 5xx before the letter itself (a wrong password, a greeting) is about us and may be mended.
            about_it = isinstance(error, smtplib.SMTPDataError)
            raise _verdict("the server refused", error.smtp_code if about_it else 0, error.smtp_code) from None
        except (OSError, smtplib.SMTPException) as error:
            raise NotTaken(type(error).__name__) from None

    def _connect(self) -> smtplib.SMTP:
        it, context = self._settings, ssl.create_default_context()
        if it.security == "tls":
            return smtplib.SMTP_SSL(it.host, it.port, timeout=SECONDS, context=context)
        server = smtplib.SMTP(it.host, it.port, timeout=SECONDS)
        if it.security == "starttls":
            try:
                server.starttls(context=context)
            except BaseException:
                server.close()
                raise
        return server

    def _keep(self, message: EmailMessage) -> None:
        """Write a letter into the folder, whole or not at all, for nobody else's eyes."""
        folder = Path(self._settings.folder)
        name = f"{uuid7()}.eml"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft = folder / f".{name}"
            with open(draft, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                file.write(message.as_bytes())
            draft.rename(folder / name)
        except OSError as error:
            raise NotTaken(f"the folder of smtp.folder takes no letter: {error.strerror}") from None
        log.info("a letter for somebody is in %s", folder / name)


def composed(letter: Letter, sender: str) -> EmailMessage:
    """Return the message of a letter. Raises ValueError for a field with a line break."""
    message = EmailMessage(policy=SMTP)
    message["From"] = sender
    message["To"] = letter.recipient
    message["Subject"] = letter.subject
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2].rstrip(">"))
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(letter.text, cte="8bit" if not letter.text.isascii() else "7bit")
    return message


def _verdict(what: str, decisive: int, code: int | None = None) -> Exception:
    text = f"{what} ({decisive if code is None else code})"
    return NeverTaken(text) if 500 <= decisive < 600 else NotTaken(text)
