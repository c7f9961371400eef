"""One publisher's current token: asked for once however many calls wait, kept until shortly before it ends.

What does not live here: how a token is got (client_credentials.py, token_exchange.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from gateway.upstreams.auth.errors import TokenUnavailable

MARGIN_SECONDS = 30.0
"""A token is not used any more when less than this of its life is left, or a tenth where that is shorter."""
PAUSE_SECONDS = 1.0
"""After a failure the token server is left alone for so long; calls fail at once meanwhile."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it goes behind `Bearer`, and how many seconds it is good for from now on (None: nobody knows)."""

    value: bytes = field(repr=False)
    seconds: float | None = None


class Tokens:
    """A token that is got by `fetch`. Belongs to one event loop."""

    def __init__(self, fetch: Callable[[], Awaitable[Token]], clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch, self._clock = fetch, clock
        self._token: Token | None = None
        self._ends: float | None = None
        self._pending: asyncio.Task[Token] | None = None
        self._failure: tuple[float, str] | None = None

    async def current(self) -> bytes:
        """Return a token that is good now. Raises TokenUnavailable."""
        if self._token is not None and (self._ends is None or self._clock() < self._ends):
            return self._token.value
        if self._failure is not None and self._clock() < self._failure[0]:
            raise TokenUnavailable(self._failure[1])
        if self._pending is None:
            self._pending = asyncio.get_running_loop().create_task(self._renew())
        # A caller that leaves does not take the token from those who wait for it as well.
        return (await asyncio.shield(self._pending)).value

    def reject(self, value: bytes) -> None:
        """Forget a token that the publisher's server did not take, unless there is a newer one already."""
        if self._token is not None and self._token.value == value:
            self._token = None

    async def _renew(self) -> Token:
        try:
            token = await self._fetch()
        except TokenUnavailable as error:
            self._failure = (self._clock() + PAUSE_SECONDS, str(error))
            raise
        finally:
            self._pending = None
        self._token, self._failure, self._ends = token, None, None
        if token.seconds is not None:
            self._ends = self._clock() + token.seconds - min(MARGIN_SECONDS, token.seconds / 10)
        return token
