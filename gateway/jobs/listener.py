"""Hears what other workers and the admin API changed, and tells the caches.

PostgreSQL notifies at commit. While the connection is away changes are missed, so the caches are told not to trust
themselves (`listening` false): keys are looked up again after a second, and the catalog is read whole every few seconds
(`poll`), which bounds how long a change goes unnoticed however long the channel is away (docs/scaling.md).

It needs a session of its own. A pooler in transaction mode accepts LISTEN and lets no message through, so each new
connection has to prove that it hears.
"""

from __future__ import annotations

import asyncio
import logging
from uuid import UUID, uuid4

from gateway.catalog.snapshot import Catalog
from gateway.database.pool import LOST, Connection, Database, Held
from gateway.database.statement import Command
from gateway.errors import Unavailable
from gateway.identity.principals import Identities
from gateway.settings import DatabaseSettings
from gateway.suspensions import SuspendedWallets
from gateway.upstreams.auth.callers import CallersTokens

log = logging.getLogger(__name__)

CATALOG, IDENTITY, OAUTH = "tollway_catalog", "tollway_identity", "tollway_oauth"
NOTIFY = Command("SELECT pg_notify($1, '')")
WALLET = "wallet:"  # what the identity channel says of an address on a chain
CHECK_SECONDS = 2.0
PING_SECONDS = 1.0
PROOF_SECONDS = 5.0


class Listener:
    """One listening connection per worker.

    `check` and `poll` are its periodic jobs: one connects and notices a silent loss, the other reads what is not told.
    """

    def __init__(
        self,
        settings: DatabaseSettings,
        database: Database,
        catalog: Catalog,
        identities: Identities,
        wallets: SuspendedWallets,
        callers: CallersTokens,
    ) -> None:
        self._held = Held(settings.direct, self._listen)
        self._database = database
        self._catalog = catalog
        self._identities = identities
        self._wallets = wallets
        self._reread = False
        self._changed: dict[UUID, None] = {}  # read in the order in which they changed
        self._callers = callers
        self._refresher: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None  # of suspended wallets

    async def check(self) -> None:
        """Make sure that we hear; raises what the database raises when we do not."""
        try:
            connection = await self._held.get()
            await connection.fetchval("SELECT 1", timeout=PING_SECONDS)
        except LOST:
            self._held.drop()
            self._trust(heard=False)
            raise

    async def poll(self) -> None:
        """Read the catalog and suspended wallets while nobody tells what changes. Raises what the database raises."""
        if not self._catalog.listening:
            await self._catalog.load()
            await self._wallets.load()

    async def stop(self) -> None:
        """Stop listening."""
        self._trust(heard=False)
        for task in (self._refresher, self._reader):
            if task is not None:
                task.cancel()
        await self._held.close()

    async def _listen(self, connection: Connection) -> None:
        await self._prove(connection)
        await connection.add_listener(CATALOG, self._catalog_changed)
        await connection.add_listener(IDENTITY, self._identity_changed)
        await connection.add_listener(OAUTH, self._oauth_changed)
        connection.add_termination_listener(self._lost)
        # Only now nothing can be missed; what was missed before is read again.
        await self._catalog.load()
        await self._wallets.load()
        self._identities.forget()
        self._callers.forget()
        self._trust(heard=True)

    async def _prove(self, connection: Connection) -> None:
        """Have another connection notify this one. Raises ConnectionError when nothing is heard."""
        channel, heard = f"tollway_proof_{uuid4().hex}", asyncio.Event()

        def told(_connection: Connection, _pid: int, _channel: str, _payload: str) -> None:
            heard.set()

        await connection.add_listener(channel, told)
        async with self._database.acquire() as another:
            await NOTIFY.run(another, channel)
        try:
            await asyncio.wait_for(heard.wait(), PROOF_SECONDS)
        except TimeoutError:
            raise ConnectionError(
                "LISTEN hears nothing: where TOLLWAY_DATABASE_URL is a pooler in transaction mode,"
                " TOLLWAY_DATABASE_DIRECT_URL has to lead to PostgreSQL itself"
            ) from None
        await connection.remove_listener(channel, told)

    def _lost(self, _connection: Connection) -> None:
        self._trust(heard=False)

    def _trust(self, *, heard: bool) -> None:
        self._catalog.listening = heard
        self._identities.listening = heard
        self._callers.listening = heard

    def _identity_changed(self, _connection: Connection, _pid: int, _channel: str, payload: str) -> None:
        if payload.startswith(WALLET):
            self._reread = True
            if self._reader is None or self._reader.done():
                self._reader = asyncio.get_running_loop().create_task(self._read_wallets())
            return
        self._identities.told(payload)

    def _oauth_changed(self, _connection: Connection, _pid: int, _channel: str, payload: str) -> None:
        self._callers.told(payload)

    def _catalog_changed(self, _connection: Connection, _pid: int, _channel: str, payload: str) -> None:
        self._changed[UUID(payload)] = None
        if self._refresher is None or self._refresher.done():
            self._refresher = asyncio.get_running_loop().create_task(self._refresh())

    async def _read_wallets(self) -> None:
        while self._reread:
            self._reread = False
            try:
                await self._wallets.load()
            except (*LOST, Unavailable) as error:
                log.warning("suspended wallets were not read (%s); everything is read again", type(error).__name__)
                self._distrust()
                return

    def _distrust(self) -> None:
        self._held.drop()  # the next check reconnects and loads all
        self._trust(heard=False)

    async def _refresh(self) -> None:
        while self._changed:
            publisher_id = next(iter(self._changed))
            del self._changed[publisher_id]
            try:
                await self._catalog.refresh(publisher_id)
            except (*LOST, Unavailable) as error:
                log.warning("catalog refresh failed (%s); everything is read again", type(error).__name__)
                self._distrust()
                return
