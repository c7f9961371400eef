"""The composition root: every part of a worker, made in one place with its lifetime, and the ASGI door.

`Gateway` is the ASGI application. Publisher calls go down the pipeline without a router; everything else goes to the
admin application, which is passed in as a factory because it stands on a higher step. Built by gateway.cli.asgi.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import timedelta
from ipaddress import ip_network
from uuid import UUID

from gateway.audit.verify import Anchorer
from gateway.billing.card_deposits import Cards
from gateway.billing.card_refunds import CardRefunds
from gateway.billing.deposits import Deposits
from gateway.billing.invoices.paying import InvoicePayments
from gateway.billing.payment_methods import PaymentMethods
from gateway.billing.payouts import Payouts
from gateway.billing.receipts import ReceiptSigner
from gateway.billing.wallet_proofs import WalletProofs, forget_nonces
from gateway.catalog.assets import require_assets
from gateway.catalog.experiences import Experiences
from gateway.catalog.snapshot import Catalog
from gateway.database.migrate import MigrationError, require_current
from gateway.database.pool import LOST, Database
from gateway.drain import on_stop
from gateway.errors import NotFound, Overloaded, Unavailable
from gateway.identity import people, sessions
from gateway.identity.connections import forget_flows
from gateway.identity.organization_plans import PlanBook
from gateway.identity.passwords import Passwords
from gateway.identity.principals import Identities
from gateway.jobs.alerts import Alerts
from gateway.jobs.bookkeeping import Bookkeeping
from gateway.jobs.expire import expire_lots, expire_stored_answers
from gateway.jobs.gauges import Sampler
from gateway.jobs.heartbeat import Heartbeat
from gateway.jobs.letters import Postman
from gateway.jobs.listener import CHECK_SECONDS, Listener
from gateway.jobs.payout_gauges import PayoutSampler
from gateway.jobs.reconcile import Reconciler
from gateway.jobs.runner import Runner
from gateway.jobs.sales import SaleRefresher
from gateway.jobs.treasury_gauges import TreasurySampler
from gateway.jobs.undelivered import give_back_undelivered
from gateway.jobs.wallet_gauges import WalletSampler
from gateway.jobs.webhooks import WebhookSender
from gateway.ledger.answers import Answers
from gateway.ledger.group_commit import GroupCommit
from gateway.ledger.holds import Holds
from gateway.ledger.partitions import make_ahead
from gateway.limits.limiter import RateLimiter
from gateway.mail.door import MailDoor
from gateway.networks import load_networks
from gateway.payments.evm.chains import open_chains
from gateway.payments.evm.purchases import open_wallet
from gateway.payments.evm.settlements import Settlements
from gateway.payments.examine import Examiner
from gateway.payments.facilitation import Facilitation
from gateway.payments.remote.facilitator import Post
from gateway.payments.remote.relay import RemoteRelay
from gateway.payments.remote.remotes import open_remotes, remote_networks
from gateway.payments.stripe.client import StripeDoor
from gateway.payments.stripe.intake import Intake
from gateway.payments.x402.offer import PaymentKinds, compile_kinds
from gateway.plans import load_plans
from gateway.proxy.browsers import answer_preflight, preflight
from gateway.proxy.buying import Buyer
from gateway.proxy.exchange import Exchange, Receive, Scope, Send
from gateway.proxy.live import Live, ending_connection
from gateway.proxy.onchain.rail import OnchainRail
from gateway.proxy.parts import Parts
from gateway.proxy.pipeline import Pipeline
from gateway.proxy.targets import is_paid_path, origin_form
from gateway.proxy.walk import Truncated
from gateway.proxy.websocket import SocketDoor, refuse_socket
from gateway.pulse import Pulse
from gateway.server.head import Head
from gateway.service_manager import say_ready
from gateway.services import Services
from gateway.settings import Settings
from gateway.suspensions import SuspendedWallets
from gateway.telemetry.logging import setup as setup_logging
from gateway.telemetry.logging import unless
from gateway.telemetry.metrics import Metrics
from gateway.upstreams.auth.callers import CallersTokens
from gateway.upstreams.auth.consent import Consents
from gateway.upstreams.breaker import BreakerPolicy, State
from gateway.upstreams.credentials import CredentialBox, parse_keys
from gateway.upstreams.egress import EgressGuard
from gateway.upstreams.http.client import UpstreamClient
from gateway.upstreams.post import Poster
from gateway.upstreams.postgres.markets import Markets
from gateway.upstreams.postgres.onboarding import DatabaseInspector

log = logging.getLogger(__name__)

Application = Callable[[Scope, Receive, Send], Awaitable[None]]
OperationsDoor = Callable[[Services], AbstractAsyncContextManager[None]]
# Below the 5 s after which common servers close idle connections: a call on a closing one could not be repeated.
UPSTREAM_IDLE_SECONDS = 4.0
COLLECT_AFTER = 50_000
CUT_SECONDS = 1.0  # how long calls that were cut off may take to settle their money
EXPIRE_SECONDS = 30.0
USAGE_SECONDS = 60.0
FLUSH_SECONDS = 10.0
LEARN_SECONDS = 2.0
GAUGE_SECONDS = 5.0
TREASURY_SECONDS = 15.0
PARTITIONS_SECONDS = 3_600.0
LETTER_SECONDS = 1.0
PURCHASE_SECONDS = 2.0
ANCHOR_SECONDS = 60.0
ALERT_SECONDS = 5.0
SUSPENSION_SECONDS = 1.0


def build_services(settings: Settings) -> Services:
    """Make the parts. Nothing is connected yet."""
    database = Database(settings.database)
    box = CredentialBox.from_setting(settings.secrets.keys)
    guard = EgressGuard([ip_network(network) for network in settings.proxy.allow_addresses])
    metrics = Metrics()
    grace = timedelta(days=settings.money.refund_grace_days)
    catalog = Catalog(database, box.open)
    ledger = GroupCommit(settings.database, grace=grace, observe=metrics.ledger_batch)
    upstreams = _upstreams(settings, guard)
    consents = Consents(database, box, upstreams, guard)
    settlements, own_kinds, kinds, examiner = _rails(settings, database, Poster(upstreams, guard))
    suspended, origin = SuspendedWallets(database), settings.public_url
    plans = PlanBook(load_plans(settings.plans.file), enforced=settings.plans.enforced)
    door, stripe_events, cards, invoice_payments = _card_rail(settings, database)
    return Services(
        settings=settings,
        database=database,
        plans=plans,
        identities=Identities(database, plans.plans if plans.enforced else None),
        suspended_wallets=suspended,
        passwords=Passwords(),
        mail=MailDoor(settings.smtp),
        catalog=catalog,
        limiter=RateLimiter(settings.redis, settings.limits, workers=settings.server.workers),
        ledger=ledger,
        holds=Holds(database, ledger, grace=grace),
        answers=Answers(
            database,
            lifetime=timedelta(seconds=settings.idempotency.lifetime),
            keep=settings.idempotency.keep,
        ),
        guard=guard,
        upstreams=upstreams,
        markets=_markets(settings, guard, catalog, metrics),
        experiences=Experiences(database),
        box=box,
        consents=consents,
        callers=CallersTokens(database, box, consents, origin),
        receipts=ReceiptSigner(parse_keys(settings.secrets.keys)),
        settlements=settlements,
        kinds=kinds,
        examiner=examiner,
        facilitation=Facilitation(
            database, settlements, own_kinds, examiner, lambda: ledger.worker_id, settings.x402.wait, suspended
        ),
        deposits=Deposits(database, settlements, kinds, examiner, lambda: ledger.worker_id, settings, suspended),
        payouts=Payouts(database, settlements, settings.payouts, lambda: catalog.assets),
        stripe=door,
        stripe_events=stripe_events,
        cards=cards,
        card_refunds=CardRefunds(database, door, cards),
        invoice_payments=invoice_payments,
        payment_methods=PaymentMethods(database, door, plans),
        buying=open_wallet(database, grace),
        proofs=WalletProofs(database, settlements.nodes, parse_keys(settings.secrets.keys), origin, suspended),
        metrics=metrics,
    )


def _upstreams(settings: Settings, guard: EgressGuard) -> UpstreamClient:
    return UpstreamClient(
        guard,
        max_connections=settings.proxy.connections_per_upstream,
        max_idle=settings.proxy.idle_connections_per_upstream,
        idle_seconds=UPSTREAM_IDLE_SECONDS,
    )


def _card_rail(settings: Settings, database: Database) -> tuple[StripeDoor, Intake, Cards, InvoicePayments]:
    """Return the door to Stripe, where its events come in, and what is paid by card. Whoever has events hears them."""
    door, events = StripeDoor(settings.stripe), Intake(database, settings.stripe)
    cards = Cards(database, door, settings).listen(events)
    return door, events, cards, InvoicePayments(database, door, settings.stripe.recheck).listen(events)


def _markets(settings: Settings, guard: EgressGuard, catalog: Catalog, metrics: Metrics) -> Markets:
    it = settings.breaker

    def changed(publisher_id: UUID, state: State) -> None:
        slug = catalog.slug_of(publisher_id)
        if slug is not None:
            metrics.breaker_changed(slug, state.value)
            log.warning("the breaker of publisher %s is %s", slug, state.value)

    policy = BreakerPolicy(it.failures, it.percent, it.calls, it.window, it.wait, it.wait_max)
    return Markets(guard, settings.queries, settings.proxy, policy, changed, metrics.query_refused)


def _rails(
    settings: Settings, database: Database, post: Post
) -> tuple[Settlements, PaymentKinds, PaymentKinds, Examiner]:
    """Return what settles and examines payments on chains, with the kinds that we settle ourselves, and all of them.

    Raises SettingsError.
    """
    declared = load_networks()
    chains = open_chains(declared)
    signers = {name: chain.signer.address for name, chain in chains.items()}
    elsewhere = {network.id: b"" for network in remote_networks(declared, chains)}
    kinds = compile_kinds(declared, {**signers, **elsewhere})
    remotes = open_remotes(declared, chains, kinds, post)
    relays = {name: RemoteRelay(database, remote) for name, remote in remotes.items()}
    settlements = Settlements(database, settings.database, chains, relays)
    examiner = Examiner(chains, {name: remote.facilitator for name, remote in remotes.items()})
    return settlements, compile_kinds(declared, signers), kinds, examiner


def _buyer(services: Services) -> Buyer | None:
    """Return what buys for callers, where there is a wallet to pay from."""
    wallet = services.buying
    if wallet is None:
        return None
    return Buyer(services, wallet, compile_kinds(load_networks(), dict.fromkeys(wallet.networks, b"")))


class Worker:
    """Starts and stops the parts in order: what others need first starts first and stops last."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self._grace = timedelta(days=services.settings.money.refund_grace_days)
        self._runner = Runner()
        dead_after = timedelta(seconds=services.settings.money.dead_after)
        self._heartbeat = Heartbeat(
            services.database,
            services.ledger,
            services.box.key_ids,
            dead_after=dead_after,
            metrics=services.metrics,
        )
        self._listener = Listener(
            services.settings.database, services.database, services.catalog, services.identities,
            services.suspended_wallets, services.callers,
        )  # fmt: skip
        self._dead_after = services.settings.money.dead_after
        self._reconciler = Reconciler(
            services.database,
            self._grace,
            dead_after,
            self._heartbeat.may_judge,
            self._heartbeat.database_clock.expected,
        )
        self._refresher = SaleRefresher(
            services.database,
            services.box,
            DatabaseInspector(services.guard),
            timedelta(seconds=services.settings.queries.refresh),
        )
        self._postman = Postman(services.database, services.mail, services.settings.public_url)
        self._webhooks = WebhookSender(services.database, services.box, services.guard, services.settings.webhooks)
        plans = services.plans.plans if services.plans.enforced else None
        self._alerts = Alerts(services.database, services.settings.webhooks.low_balance, plans)
        self._sampler = Sampler(
            services.metrics,
            services.database,
            services.upstreams,
            services.catalog,
            services.identities,
            services.ledger,
            services.limiter,
            services.settlements,
        )

    async def start(self) -> None:
        """Connect, load the catalog, begin the jobs. Raises when the database cannot be reached or is not migrated."""
        services = self.services
        await services.database.start()
        async with services.database.acquire() as connection:
            await require_current(connection)
            await require_assets(connection, load_networks())
        await services.limiter.start()
        await self._heartbeat.start()
        await self._listener.check()
        await services.settlements.start()
        self._runner.every(self._dead_after / 3, self._heartbeat.beat, "heartbeat")
        self._runner.every(CHECK_SECONDS, self._listener.check, "listener")
        self._runner.every(CHECK_SECONDS, self._listener.poll, "catalog poll")
        self._runner.every(self._dead_after / 3, self._reconciler.run, "reconciler")
        self._runner.every(self._dead_after / 3, lambda: give_back_undelivered(services.database), "undelivered")
        self._runner.every(EXPIRE_SECONDS, lambda: expire_lots(services.database), "expiry")
        Bookkeeping(services.database, services.metrics, services.settings.money.proof_every).begin(self._runner)
        self._runner.every(EXPIRE_SECONDS, lambda: expire_stored_answers(services.database), "answers")
        self._runner.every(EXPIRE_SECONDS, lambda: forget_nonces(services.database), "nonces")
        self._runner.every(FLUSH_SECONDS, services.identities.flush_used, "last-used")
        self._runner.every(LETTER_SECONDS, self._postman.run, "letters")
        self._runner.every(USAGE_SECONDS, self._postman.tidy, "failed letters")
        self._runner.every(USAGE_SECONDS, lambda: people.forget_old(services.database), "old sign-ups")
        self._runner.every(USAGE_SECONDS, lambda: sessions.forget_old(services.database), "old sessions")
        self._runner.every(ANCHOR_SECONDS, Anchorer(services.database).run, "audit heads")
        self._runner.every(FLUSH_SECONDS, services.callers.flush_used, "connections last-used")
        self._runner.every(EXPIRE_SECONDS, lambda: forget_flows(services.database), "consents")
        self._runner.every(0.1, self._webhooks.run, "webhooks")
        self._runner.every(USAGE_SECONDS, self._webhooks.forget, "old webhook events")
        self._runner.every(services.settings.stripe.recheck / 4, self._tend_cards, "cards")
        self._runner.every(USAGE_SECONDS, services.stripe_events.forget, "old card events")
        self._runner.every(ALERT_SECONDS, self._alerts.run, "alerts")
        self._runner.every(services.settings.queries.refresh / 4, self._refresher.run, "sales")
        self._runner.every(FLUSH_SECONDS, self._trim_markets, "markets")
        self._runner.every(LEARN_SECONDS, services.experiences.sync, "experiences")
        self._runner.every(USAGE_SECONDS, services.experiences.forget, "old experiences")
        self._runner.every(GAUGE_SECONDS, self._sampler.sample, "gauges")
        self._runner.every(PARTITIONS_SECONDS, self._make_ahead, "partitions")
        payouts = PayoutSampler(services.metrics, services.database, services.settlements, services.ledger)
        self._runner.every(GAUGE_SECONDS, payouts.sample, "payout gauges")
        treasury = TreasurySampler(services.metrics, services.database, services.settlements, services.ledger)
        self._runner.every(TREASURY_SECONDS, treasury.sample, "treasury gauges")
        if services.buying is not None:
            self._runner.every(PURCHASE_SECONDS, services.buying.watch, "purchases")
            sampler = WalletSampler(services.metrics, services.database, services.buying, services.ledger)
            self._runner.every(GAUGE_SECONDS, sampler.sample, "wallet gauges")

    def mind(self, live: Live) -> None:
        """Cut off callers who do not take an answer that is there whole, from now on."""
        patience = self.services.settings.proxy.client_timeout

        async def look() -> None:
            live.cut_stalled(time.perf_counter() - patience)

        self._runner.every(patience / 4, look, "stalled callers")

    def watch(self, sockets: SocketDoor) -> None:
        """End connections of those who are suspended, from now on."""
        self._runner.every(SUSPENSION_SECONDS, sockets.end_suspended, "suspended connections")

    async def _make_ahead(self) -> None:
        self.services.metrics.set_partitions_ahead(await make_ahead(self.services.database))

    async def _tend_cards(self) -> None:
        await self.services.cards.reconcile()
        await self.services.card_refunds.send_due()
        await self.services.invoice_payments.reconcile()
        await self.services.payment_methods.detach()

    async def _trim_markets(self) -> None:
        self.services.markets.trim(self.services.catalog.sales())

    async def stop(self) -> None:
        """Stop the jobs, write what waits, close. The server has drained its calls before."""
        services = self.services
        await self._runner.stop()
        await self._webhooks.aclose()
        await services.upstreams.aclose()
        services.markets.close()
        await services.stripe.aclose()
        services.passwords.stop()
        services.mail.stop()
        await services.holds.stop()
        await services.ledger.stop()
        await services.settlements.stop()
        if services.buying is not None:
            await services.buying.aclose()
        try:
            await self._heartbeat.stop()
        except (*LOST, Unavailable) as error:
            log.warning("could not sign off: %s", type(error).__name__)
        await self._listener.stop()
        await services.limiter.stop()
        await services.database.stop()
        services.metrics.flush()


def spare_from_collection() -> None:
    """Keep what was made up to here out of the garbage collector's sight: it lives as long as the process.

    A full collection would walk all modules, which stops every call for some 60 ms. What calls make is freed without
    the collector, so it looks for cycles only after COLLECT_AFTER more objects have been made than freed: with the
    usual 2,000 it ran whenever some dozen calls came at once, and walked all cached keys each second, 50 ms of 10,000.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)


class Gateway:
    """The ASGI application of one worker."""

    def __init__(
        self, settings: Settings, admin: Callable[[Services], Application], operations: OperationsDoor | None = None
    ) -> None:
        """`operations`, where operators have a port of their own, listens there while it is entered."""
        self.settings = settings
        self._operations = operations
        self._doors = AsyncExitStack()
        self._make_admin = admin
        self._worker: Worker | None = None
        self._pipeline: Pipeline | None = None
        self._sockets: SocketDoor | None = None
        self._leaving = False
        self._admin: Application | None = None
        self._pulse = Pulse(settings.server.hang)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Route by the first bytes of the path: the pipeline, or the admin API."""
        kind = scope["type"]
        if kind == "http":
            if self._leaving:
                send = ending_connection(scope, send)
            if scope["path"][:1] != "/":
                scope = origin_form(scope)
            if scope["method"] == "OPTIONS" and self.settings.proxy.cors:
                headers = preflight(scope)
                if headers is not None:
                    await answer_preflight(send, headers)
                    return
            if is_paid_path(scope) and self._pipeline is not None:
                await self._pipeline.serve(Exchange(scope, receive, send))
            else:
                await self._admin_app()(scope, receive, send)
        elif kind == "lifespan":
            await self._lifespan(receive, send)
        elif self._sockets is not None and is_paid_path({**scope, "method": "GET"}):
            await self._sockets.serve_socket(scope, receive, send)
        else:
            await refuse_socket(scope, receive, send, NotFound("WebSockets are served below /publishers/{slug}/ only."))

    def shed(self, head: Head) -> Overloaded | None:
        """Return the refusal of a call for which there is no room: our own server asks before it makes a request of it.

        What pages send, and what comes at the end, goes the usual way: it is answered with more fields.
        """
        if self._pipeline is None or self._leaving or not self._pipeline.crowded:
            return None
        scope: Scope = {"raw_path": head.origin_form[0], "method": head.method.decode("ascii")}
        if head.websocket or not is_paid_path(scope) or any(name == b"origin" for name, _ in head.fields):
            return None
        return self._pipeline.shed()

    async def start(self) -> None:
        """Build and start the worker."""
        setup_logging(self.settings.logging).addFilter(unless(Truncated))
        services = build_services(self.settings)
        self._worker = Worker(services)
        await self._worker.start()
        onchain = OnchainRail.build(services)
        self._pipeline = Pipeline(Parts.build(services, onchain, _buyer(services)))
        socket_parts = Parts.build(services, onchain)
        self._sockets = SocketDoor(socket_parts, Pipeline(socket_parts))
        self._worker.mind(self._pipeline.parts.live)
        self._worker.watch(self._sockets)
        self._pipeline.parts.loop_lag.watch()
        # At most half of the drain: what begins at the end of the farewell has the other half.
        on_stop(self, min(self.settings.server.farewell, self.settings.server.drain / 2))
        self._admin = self._make_admin(services)
        if self._operations is not None:
            await self._doors.enter_async_context(self._operations(services))
        spare_from_collection()
        self._pulse.start()
        say_ready()

    def say_farewell(self) -> None:
        """End connections with their next answers; calls in flight are cut off when the time of the drain is up."""
        if self._pipeline is not None and self._sockets is not None:
            self._leaving = self._sockets.parts.places.closed = True
            self._pipeline.parts.live.end_connections()
            asyncio.get_running_loop().call_later(self.settings.server.drain, self._pipeline.parts.live.cut)

    def drain(self) -> None:
        """End WebSocket connections."""
        if self._sockets is not None:
            self._sockets.restart()

    def cut(self) -> None:
        """End every call now."""
        for door in (self._sockets, self._pipeline):
            if door is not None:
                door.parts.live.cut()

    async def stop(self) -> None:
        """Stop the worker. The server has waited for its calls; what is still there is cut off."""
        for door in (self._sockets, self._pipeline):
            if door is not None and not await door.parts.live.finished(CUT_SECONDS):
                door.parts.live.cut()
                await door.parts.live.finished(CUT_SECONDS)
        if self._pipeline is not None:
            self._pipeline.parts.loop_lag.stop()
        await self._doors.aclose()
        if self._worker is not None:
            await self._worker.stop()
        self._pulse.stop()

    def _admin_app(self) -> Application:
        if self._admin is None:
            raise RuntimeError("the gateway has not been started")
        return self._admin

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.start()
        except Exception as error:
            expected = isinstance(error, (*LOST, MigrationError))
            log.error("cannot start: %s", error, exc_info=None if expected else error)
            await send({"type": "lifespan.startup.failed", "message": f"{type(error).__name__}: {error}"})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})
