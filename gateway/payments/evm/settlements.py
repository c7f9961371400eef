"""The door to settlement on chain: claim an authorization, settle it or let it go, and learn what became of it.

How a caller (the x402 pipeline, deposits, the facilitator) uses it, for one payment:

    found = await settlements.reserve(order, funds=Funds(balance, block))       before anything is delivered
        reserved    it is this call's alone; go on
        known       this authorization was presented before: `found.status` says by which payment and what became of it
        short       the payer's other open payments leave too little of the funds
        exposed     deferred payments of this payer that are not settled would exceed the cap
    await settlements.submit(id)            deliver what was paid for, and the relayer moves the money; or
    await settlements.cancel(id, reason)    the call failed: the authorization is never sent, and may be presented again
    status = await settlements.wait(id, seconds)
        confirmed   the money has moved, and is booked; `status.transaction` says where
        failed      it did not move; `status.reason` is the protocol's code. Not `final`: somebody who has seen the
                    authorization may still execute it, and then it becomes `confirmed`
        else        not known yet: pending, broadcast, unknown. Never ask for a new payment now; ask `status` later
    await settlements.repay(id, reason)     it was settled first, and then the call failed: the money goes back

Policies, as calls in order: settle before forwarding: reserve, submit, wait, forward, (repay). Before the response
ends: reserve, forward, submit or cancel, wait, end. Deferred: reserve with an exposure cap, forward, submit, end.

Every function is idempotent by the payment's id and safe from any worker. A reserved payment whose worker dies is
cancelled by the reconciler; a submitted one is settled whoever dies. Booking happens with the confirmation, in the
same database transaction (chain.confirm): earnings and fees from the network's clearing account, or a deposit.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol
from uuid import UUID

from gateway.database.pool import LOST, Connection, Database, Held
from gateway.database.statement import Statement
from gateway.database.together import Together
from gateway.faults import ARMED, act
from gateway.networks import Network
from gateway.payments.evm.chains import Chain
from gateway.payments.evm.instructions import Contracts
from gateway.payments.evm.node import Node
from gateway.payments.evm.outbox import (
    FIND_BY_NONCE,
    FIND_PAYMENTS,
    SETTLED_CHANNEL,
    BookingKind,
    Payment,
    State,
)
from gateway.payments.evm.relayer import Relayer
from gateway.payments.evm.terms import Method, Terms
from gateway.settings import DatabaseSettings

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0  # a waiter looks for itself so often, should a notification be lost
ENDED: frozenset[State] = frozenset({"confirmed", "failed", "cancelled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Booking:
    """Where the money of a confirmed payment goes.

    `earnings`: to `account_id` (an earnings account) less `fee`; it was paid to the treasury. `direct`: the same
    account has earned and received it, paid to the publisher's own address. `deposit`: a lot of `wallet_id` that only
    `publisher_id`'s calls can spend. `none`: settled for others, nothing is booked.
    """

    kind: BookingKind
    account_id: int | None = None
    fee: int = 0
    wallet_id: int | None = None
    publisher_id: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Order(Terms):
    """A verified authorization, and what it pays for. `id` is the exchange's or deposit's, and the ledger's cause.

    `request_hash` says for which request, so that the same authorization with another request can be told apart.
    """

    id: UUID
    network: str
    booking: Booking
    deferred: bool = False
    request_hash: bytes | None = None
    worker_id: int | None = None


@dataclass(frozen=True, slots=True)
class Funds:
    """The payer's token balance in atomic units, and the block it was read at (checks.py)."""

    balance: int
    block: int


@dataclass(frozen=True, slots=True)
class Status:
    """What became of a payment. `transaction` is the hash of the one that moved the money, when one did."""

    id: UUID
    network: str
    payer: bytes
    amount: int
    state: State
    reason: str | None
    final: bool
    transaction: bytes | None

    @property
    def ended(self) -> bool:
        """Return whether there is an answer."""
        return self.state in ENDED


@dataclass(frozen=True, slots=True)
class Reservation:
    """The outcome of `reserve`. `available` is what was left (short, exposed); `status` is set when `known`."""

    verdict: Literal["reserved", "known", "short", "exposed"]
    available: int | None = None
    status: Status | None = None


@dataclass(frozen=True, slots=True)
class _Claimed:
    verdict: Literal["reserved", "known", "short", "exposed"]
    payment_id: UUID | None
    available: int | None


# Many at once, in the order in which they stand.
RESERVE = Statement(
    """
    SELECT r.verdict, r.payment_id, r.available
      FROM unnest($1::uuid[], $2::text[], $3::bytea[], $4::bytea[], $5::bytea[], $6::bytea[], $7::text[], $8::bytea[],
                  $9::text[], $10::bigint[], $11::bigint[], $12::bytea[], $13::bytea[], $14::bytea[], $15::boolean[],
                  $16::text[], $17::bigint[], $18::text[], $19::bigint[], $20::uuid[], $21::bytea[], $22::integer[],
                  $23::text[], $24::bigint[], $25::text[])
           WITH ORDINALITY AS o (id, network, verifier, asset, payer, nonce, method, payee, authorized, valid_after,
                                 valid_before, signature, deploy_target, deploy_data, deferred, booking, account_id,
                                 fee, wallet_id, publisher_id, request_hash, worker_id, funds, block, exposure, place),
           LATERAL chain.reserve(o.id, o.network, o.verifier, o.asset, o.payer, o.nonce, o.method, o.payee,
                                 o.authorized::numeric, o.valid_after, o.valid_before, o.signature, o.deploy_target,
                                 o.deploy_data, o.deferred, o.booking::chain.booking, o.account_id, o.fee::numeric,
                                 o.wallet_id, o.publisher_id, o.request_hash, o.worker_id, o.funds::numeric, o.block,
                                 o.exposure::numeric) r
     ORDER BY o.place
    """,
    _Claimed,
)
SUBMIT = Statement(
    """
    SELECT chain.submit(p.id, p.amount::numeric, p.fee::numeric)::text
      FROM unnest($1::uuid[], $2::text[], $3::text[]) WITH ORDINALITY AS p (id, amount, fee, place)
     ORDER BY p.place
    """,
    str,
    scalar=True,
)
CANCEL = Statement("SELECT chain.cancel($1, $2)::text", str, scalar=True)
REPAY = Statement("SELECT chain.repay($1, $2)", str, scalar=True)


class Party(Protocol):
    """A network that can be paid on, whoever settles there: a Chain of ours, or a Remote (payments/remote)."""

    @property
    def network(self) -> Network: ...
    @property
    def contracts(self) -> Contracts: ...
    @property
    def treasury(self) -> bytes: ...
    @property
    def node(self) -> Node | None: ...


class OutsideRelay(Protocol):
    """Has such a network's payments settled."""

    @property
    def remote(self) -> Party: ...
    def wake(self) -> None: ...
    async def run(self) -> None: ...


class Settlements:
    """One per worker. `start` and `stop` frame its life; it runs this worker's relayers.

    `chains` are the networks that we settle on ourselves, `others` relays to those that a facilitator settles on, and
    `parties` both, all by CAIP-2 id.
    """

    def __init__(
        self, database: Database, settings: DatabaseSettings, chains: Mapping[str, Chain],
        others: Mapping[str, OutsideRelay] | None = None,
    ) -> None:  # fmt: skip
        self.chains = chains
        self.others = others or {}
        self.parties: dict[str, Party] = {
            **chains, **{name: relay.remote for name, relay in self.others.items()}
        }  # fmt: skip
        self._database = database
        self._reservations = Together(self._reserve, lock=lambda row: (row[1], row[4]))  # network and payer
        self._submissions = Together(self._submit, lock=lambda row: row[0])
        self._looks = Together(self._look)
        self._held = Held(settings.direct, self._listen)
        self._waiting: dict[UUID, set[asyncio.Event]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self.relayers = [
            Relayer(settings, name, chain.node, chain.signer, chain.contracts, chain.policy)
            for name, chain in chains.items()
        ]

    async def start(self) -> None:
        """Begin to relay and to listen. Needs the database; a node that is away is waited for."""
        if self.parties:
            loop = asyncio.get_running_loop()
            running = [*self.relayers, *self.others.values()]
            self._tasks = [loop.create_task(relayer.run(), name="relayer") for relayer in running]
            self._tasks.append(loop.create_task(self._hear(), name="settled"))

    async def stop(self) -> None:
        """Stop relaying; another worker takes over what is open."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await self._held.close()
        for node in self.nodes.values():
            if node is not None:
                await node.rpc.aclose()

    @property
    def nodes(self) -> dict[str, Node | None]:
        """Return the nodes of all networks that can be paid on; None where only a facilitator is."""
        return {name: party.node for name, party in self.parties.items()}

    async def reserve(self, order: Order, *, funds: Funds | None = None, exposure: int | None = None) -> Reservation:
        """Claim an authorization for one call, if nobody has and the payer's money is not promised elsewhere.

        `exposure` caps the payer's deferred payments that are not settled, in atomic units. Raises Unavailable.
        """
        booking, verifier = order.booking, self.parties[order.network].contracts.verifier(order.method, order.asset)
        claimed = await self._reservations.ask((
            order.id, order.network, verifier, order.asset, order.payer, order.nonce, order.method,
            order.payee, str(order.authorized), order.valid_after, order.valid_before, order.signature,
            order.deploy_target, order.deploy_data, order.deferred, booking.kind, booking.account_id,
            str(booking.fee), booking.wallet_id, booking.publisher_id, order.request_hash, order.worker_id,
            None if funds is None else str(funds.balance), None if funds is None else funds.block,
            None if exposure is None else str(exposure),
        ))  # fmt: skip
        if ARMED == "chain.reserved":
            await act()
        available = None if claimed.available is None else int(claimed.available)
        if claimed.verdict == "known" and claimed.payment_id != order.id and claimed.payment_id is not None:
            return Reservation("known", None, await self.status(claimed.payment_id))
        # Known under its own id: the first try got through, and its answer was lost.
        return Reservation("reserved" if claimed.verdict == "known" else claimed.verdict, available)

    async def submit(self, payment_id: UUID, *, amount: int | None = None, fee: int | None = None) -> State:
        """Have a reserved payment settled; returns its state. `amount` (an `upto` payment's actual) and its `fee`.

        Raises LookupError for an unknown id, Unavailable when the database is away: then ask again, it is idempotent.
        """
        state = await self._submissions.ask(
            (payment_id, None if amount is None else str(amount), None if fee is None else str(fee))
        )
        if ARMED == "chain.submitted":
            await act()
        for relay in self.others.values():
            relay.wake()
        return _state(state)

    async def cancel(self, payment_id: UUID, reason: str) -> State:
        """Let an authorization go that was never sent: `cancelled`, or the state that says it is too late."""
        return _state(await self._database.read(lambda connection: CANCEL.one(connection, payment_id, reason)))

    async def repay(self, payment_id: UUID, reason: str) -> str:
        """Send a confirmed payment back to its payer once it is final: `owed`, `repeated`, or why not (a state).

        At once it is no longer the publisher's. Only what was paid to the relayer's own address can be returned.
        """
        return await self._database.read(lambda connection: REPAY.one(connection, payment_id, reason))

    async def status(self, payment_id: UUID) -> Status | None:
        """Return what became of a payment, None for an unknown id. Raises Unavailable."""
        found = await self._looks.ask(payment_id)
        return None if found is None else _status(found)

    async def find(self, network: str, method: Method, asset: bytes, payer: bytes, nonce: bytes) -> Status | None:
        """Return what became of an authorization that was presented before, None when it was not."""
        verifier = self.parties[network].contracts.verifier(method, asset)
        found = await self._database.read(
            lambda connection: FIND_BY_NONCE.first(connection, network, verifier, payer, nonce)
        )
        return None if found is None else _status(found)

    async def wait(self, payment_id: UUID, seconds: float) -> Status:
        """Return the status as soon as it has ended, or as it is when the time is up. Raises LookupError."""
        deadline = asyncio.get_running_loop().time() + seconds
        event = asyncio.Event()
        self._waiting.setdefault(payment_id, set()).add(event)
        try:
            while True:
                event.clear()
                status = await self.status(payment_id)
                if status is None:
                    raise LookupError(f"no payment {payment_id}")
                left = deadline - asyncio.get_running_loop().time()
                if status.ended or left <= 0:
                    return status
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(event.wait(), min(left, LOOK_SECONDS))
        finally:
            self._waiting[payment_id].discard(event)
            if not self._waiting[payment_id]:
                del self._waiting[payment_id]

    async def _reserve(self, rows: Sequence[tuple[object, ...]]) -> list[_Claimed]:
        columns = [list(column) for column in zip(*rows, strict=True)]
        return await self._database.read(lambda connection: RESERVE.all(connection, *columns))

    async def _submit(self, rows: Sequence[tuple[UUID, str | None, str | None]]) -> list[str]:
        columns = [list(column) for column in zip(*rows, strict=True)]
        return await self._database.read(lambda connection: SUBMIT.all(connection, *columns))

    async def _look(self, ids: Sequence[UUID]) -> list[Payment | None]:
        found = await self._database.read(lambda connection: FIND_PAYMENTS.all(connection, list(set(ids))))
        by_id = {payment.id: payment for payment in found}
        return [by_id.get(one) for one in ids]

    async def _hear(self) -> None:
        """Keep the listening connection open; after a loss every waiter looks for itself."""
        while True:
            try:
                connection = await self._held.get()
                await connection.fetchval("SELECT 1", timeout=1.0)
            except LOST:
                self._held.drop()
                for events in self._waiting.values():
                    for event in events:
                        event.set()
            await asyncio.sleep(LOOK_SECONDS)

    async def _listen(self, connection: Connection) -> None:
        def told(_connection: Connection, _pid: int, _channel: str, payload: str) -> None:
            for event in self._waiting.get(UUID(payload), ()):
                event.set()

        await connection.add_listener(SETTLED_CHANNEL, told)


def _state(text: str) -> State:
    return text  # pyright: ignore[reportReturnType] - chain.state has exactly these words


def _status(payment: Payment) -> Status:
    return Status(
        payment.id, payment.network, payment.payer, payment.amount, payment.state, payment.reason, payment.final,
        payment.mined_transaction,
    )  # fmt: skip
