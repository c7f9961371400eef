"""Having PDFs drawn by a process of their own, few at once: Python would keep calls waiting while it draws."""

from __future__ import annotations

import asyncio
import logging
import sys

from gateway.billing.invoices.document import Document, packed
from gateway.errors import Unavailable

log = logging.getLogger(__name__)

AT_ONCE = 2
SECONDS = 60.0


class Draughtsman:
    """Draws the PDFs of one worker."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(AT_ONCE)

    async def draw(self, document: Document) -> bytes:
        """Return an invoice as a PDF. Raises Unavailable when it cannot be drawn now."""
        async with self._places:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "gateway.billing.invoices.pdf",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            try:
                drawn, said = await asyncio.wait_for(process.communicate(packed(document)), SECONDS)
            except BaseException as error:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
                if isinstance(error, TimeoutError):
                    raise Unavailable("The PDF takes too long to draw; look at the page instead.") from None
                raise
        if process.returncode != 0:
            log.error("no PDF of invoice %s: %s", document.number, said.decode(errors="replace")[-2000:])
            raise Unavailable("The PDF could not be drawn; look at the page instead.")
        return drawn
