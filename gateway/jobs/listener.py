"""Hears what other workers and the admin API changed, and tells the caches.

PostgreSQL notifies at commit. While the connection is away changes are missed, so the caches are told not to trust
themselves (`listening` false), and everything is read again when it is back.
"""

from __future__ import annotations

import asyncio
import logging
from uuid import UUID

from gateway.catalog.snapshot import Catalog
from gateway.database.pool import LOST, Connection, Held
from gateway.errors import Unavailable
from gateway.identity.principals import Identities
from gateway.settings import DatabaseSettings

log = logging.getLogger(__name__)

CATALOG, IDENTITY = "tollway_catalog", "tollway_identity"
CHECK_SECONDS = 2.0
PING_SECONDS = 1.0


class Listener:
    """One listening connection per worker. `check` is its periodic job: it connects, and notices a silent loss."""

    def __init__(self, settings: DatabaseSettings, catalog: Catalog, identities: Identities) -> None:
        self._held = Held(settings, self._listen)
        self._catalog = catalog
        self._identities = identities
        self._changed: set[UUID] = set()
        self._refresher: asyncio.Task[None] | None = None

    async def check(self) -> None:
        """Make sure that we hear; raises what the database raises when we do not."""
        try:
            connection = await self._held.get()
            await connection.fetchval("SELECT 1", timeout=PING_SECONDS)
        except LOST:
            self._held.drop()
            self._trust(heard=False)
            raise

    async def stop(self) -> None:
        """Stop listening."""
        self._trust(heard=False)
        if self._refresher is not None:
            self._refresher.cancel()
        await self._held.close()

    async def _listen(self, connection: Connection) -> None:
        await connection.add_listener(CATALOG, self._catalog_changed)
        await connection.add_listener(IDENTITY, self._identity_changed)
        connection.add_termination_listener(self._lost)
        # Only now nothing can be missed; what was missed before is read again.
        await self._catalog.load()
        self._identities.forget()
        self._trust(heard=True)

    def _lost(self, _connection: Connection) -> None:
        self._trust(heard=False)

    def _trust(self, *, heard: bool) -> None:
        self._catalog.listening = heard
        self._identities.listening = heard

    def _identity_changed(self, _connection: Connection, _pid: int, _channel: str, payload: str) -> None:
        self._identities.told(payload)

    def _catalog_changed(self, _connection: Connection, _pid: int, _channel: str, payload: str) -> None:
        self._changed.add(UUID(payload))
        if self._refresher is None or self._refresher.done():
            self._refresher = asyncio.get_running_loop().create_task(self._refresh())

    async def _refresh(self) -> None:
        while self._changed:
            publisher_id = self._changed.pop()
            try:
                await self._catalog.refresh(publisher_id)
            except (*LOST, Unavailable) as error:
                log.warning("catalog refresh failed (%s); everything is read again", type(error).__name__)
                self._held.drop()  # the next check reconnects and loads all
                self._trust(heard=False)
                return
