"""The buying wallet: pays upstreams that sell by x402 for callers with a balance, and finds out what that came to.

    verdict = await wallet.promise(order)   a row is on disk, so that an authorization may be signed; or why it may not
    wallet.sign(digest)
    await wallet.note(...)                  what the upstream's answer said of it
    await wallet.watch()                    a job: asks the chain until an authorization is used, or can never be

The chain alone says what was paid, in a block that no fork will take away: only then a cost is booked. The key is not
the relayer's, because what is at its address may be spent by an upstream's word; it needs no gas.

    TOLLWAY_CHAIN_BUYER_KEY, or TOLLWAY_CHAIN_BUYER_KEYSTORE with its password, as for the relayer (keystore.py)
    TOLLWAY_CHAIN_BUYER_ADDRESS     instead, for commands that look at the wallet and sign nothing

What does not live here: what its operator puts in and takes out (wallet_movements.py).
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal
from uuid import UUID

from gateway.database.pool import LOST, Database
from gateway.database.statement import Command, Statement
from gateway.errors import Unavailable
from gateway.networks import Network, Networks, load_networks
from gateway.payments.evm.encoding import call_data, parse_configured_address
from gateway.payments.evm.endpoints import Endpoints
from gateway.payments.evm.instructions import AUTHORIZATION_STATE
from gateway.payments.evm.keystore import BUYER, Signer, load_signer
from gateway.payments.evm.node import Block, Node
from gateway.payments.evm.rpc import NoAnswer, RpcError
from gateway.settings import SettingsError

log = logging.getLogger(__name__)

ADDRESS = f"{BUYER}_ADDRESS"
ROUND = 200
FUNDS_NANOSECONDS = 2_000_000_000

Said = Literal["paid", "unpaid", "unknown"]
Verdict = Literal["signed", "unheld", "exposed", "bonuses", "short"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Purchase:
    """What is to be signed for one held call: atomic units of a token to a payee, until `valid_before` (Unix seconds).

    `asset_id` is what the ledger books in, `rail` names the wallet's account there (`rail_of`). `exposure` is the most
    that may be at risk with this publisher's owner, `exposure_total` with all, `bonuses` what the owner may have of
    those within 30 days; this purchase included.
    """

    exchange_id: UUID
    publisher_id: UUID
    asset_id: UUID
    rail: str
    network: str
    asset: bytes
    payee: bytes
    nonce: bytes
    amount: int
    valid_before: int
    exposure: int
    exposure_total: int
    bonuses: int


@dataclass(frozen=True, slots=True)
class Signing:
    """What came of it. `available` is what is left of the exposure, the bonuses, or the wallet."""

    verdict: Verdict
    available: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "available", int(self.available))


@dataclass(frozen=True, slots=True)
class OpenPurchase:
    """A purchase of which it is not known yet whether it was paid, or that an operator wants to see."""

    exchange_id: UUID
    publisher: str | None
    network: str
    asset: bytes
    payer: bytes
    payee: bytes
    nonce: bytes
    amount: int
    valid_before: int
    state: str
    transaction: str | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "amount", int(self.amount))


@dataclass(frozen=True, slots=True)
class Held:
    """What the books have in the wallet of a token (its contract's address as text), in atomic units."""

    network: str
    symbol: str
    token: str
    booked: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "booked", int(self.booked))


@dataclass(frozen=True, slots=True)
class OpenPurchases:
    """How many purchases of a network have not ended, and for how many seconds the oldest."""

    network: str
    number: int
    oldest: int


SIGN = Statement(
    """
    SELECT verdict, available
      FROM chain.sign_purchase($1, $2, $3, $4, $5, $6, $7, $8, $9::text::numeric, $10, $11, $12::text::numeric,
                               $13::text::numeric, $14::text::numeric, $15::text::numeric)
    """,
    Signing,
)
NOTE = Command("UPDATE chain.purchase SET state = $2, transaction = $3 WHERE exchange_id = $1 AND state = 'signed'")
# Looked at again the later the older it is. A worker that dies meanwhile delays it by that much.
DUE = Statement(
    """
    WITH due AS (
        SELECT p.exchange_id FROM chain.purchase p WHERE p.ended_at IS NULL AND p.network = $1 AND p.check_at <= now()
         ORDER BY p.check_at LIMIT $2 FOR UPDATE SKIP LOCKED)
    UPDATE chain.purchase p
       SET check_at = now() + least(greatest((now() - p.signed_at) / 2, interval '1 second'), interval '30 seconds')
      FROM due WHERE p.exchange_id = due.exchange_id
    RETURNING p.exchange_id, NULL AS publisher, p.network, p.asset, p.payer, p.payee, p.nonce, p.amount::text AS amount,
              p.valid_before, p.state::text AS state, p.transaction
    """,
    OpenPurchase,
)
END = Statement("SELECT chain.end_purchase($1, $2, $3)", str, scalar=True)
LIST = Statement(
    """
    SELECT p.exchange_id, c.slug AS publisher, p.network, p.asset, p.payer, p.payee, p.nonce, p.amount::text AS amount,
           p.valid_before, p.state::text AS state, p.transaction
      FROM chain.purchase p LEFT JOIN catalog.publisher c ON c.id = p.publisher_id
     WHERE p.ended_at IS NULL OR (p.state = 'bought' AND NOT p.delivered AND NOT p.forgiven)
     ORDER BY p.signed_at LIMIT $1
    """,
    OpenPurchase,
)
FORGIVE = Command(
    """
    UPDATE chain.purchase p SET forgiven = true FROM catalog.publisher c
     WHERE c.slug = $1 AND p.organization_id = c.organization_id
       AND p.state = 'bought' AND NOT p.delivered AND NOT p.forgiven
    """
)
HELD = Statement(
    """
    SELECT x.network_id AS network, x.symbol, x.contract_address AS token,
           coalesce((SELECT sum(s.debits - s.credits) FROM ledger.shard s WHERE s.account_id = a.id), 0)::text AS booked
      FROM ledger.account a JOIN catalog.asset x ON a.rail = x.network_id || '/' || x.symbol
     WHERE a.purpose = 'buying' AND x.contract_address IS NOT NULL
    """,
    Held,
)
OPEN = Statement(
    """
    SELECT p.network, count(*) AS number, extract(epoch FROM now() - min(p.signed_at))::bigint AS oldest
      FROM chain.purchase p WHERE p.ended_at IS NULL GROUP BY p.network
    """,
    OpenPurchases,
)
BOOKED = Statement(
    """
    SELECT coalesce(sum(s.debits - s.credits), 0)::text FROM ledger.account a JOIN ledger.shard s ON s.account_id = a.id
     WHERE a.purpose = 'buying' AND a.rail = $1
    """,
    int,
    scalar=True,
)


def rail_of(network: str, symbol: str) -> str:
    """Return the name of the wallet's ledger account for a token: what is booked there is what the chain has."""
    return f"{network}/{symbol}"


class BuyingWallet:
    """One key on every network that has a node. Any number of workers may use it at once."""

    def __init__(
        self, database: Database, signer: Signer, nodes: Mapping[str, tuple[Network, Node]], grace: timedelta
    ) -> None:
        self._database = database
        self._signer = signer
        self._nodes = dict(nodes)
        self._grace = grace
        self._funds: dict[tuple[str, bytes], tuple[int, int]] = {}

    @property
    def address(self) -> bytes:
        """Return the wallet's 20 bytes."""
        return self._signer.address

    @property
    def networks(self) -> list[str]:
        """Return the networks it can pay on."""
        return list(self._nodes)

    def nonce(self) -> bytes:
        """Return a nonce that was never used."""
        return secrets.token_bytes(32)

    def sign(self, digest: bytes) -> bytes:
        """Return the signature of an authorization as tokens take it. Only after `promise`."""
        raw = self._signer.sign(digest)
        return raw[:64] + bytes((27 + raw[64],))

    async def promise(self, order: Purchase) -> Signing:
        """Write a purchase down, durably, unless something speaks against it. Raises Unavailable; then do not sign."""
        funds = await self._funds_of(order.network, order.asset)
        arguments = (
            order.exchange_id, order.publisher_id, order.asset_id, order.network, order.asset, self.address,
            order.payee, order.nonce, str(order.amount), order.valid_before, order.rail, str(order.exposure),
            str(order.exposure_total), str(order.bonuses), None if funds is None else str(funds),
        )  # fmt: skip
        try:
            async with self._database.transaction() as connection:
                return await SIGN.one(connection, *arguments)
        except LOST as error:
            raise Unavailable("The purchase could not be written down; nothing was paid. Try again.") from error

    async def note(self, exchange_id: UUID, said: Said, transaction: str | None) -> None:
        """Note what an upstream said of its payment. Raises Unavailable; nothing depends on it."""
        await self._database.read(lambda connection: NOTE.run(connection, exchange_id, said, transaction))

    async def watch(self) -> int:
        """Ask the chains about purchases that are due, end those that are known, and return how many ended."""
        ended = 0
        for name, (network, node) in self._nodes.items():
            async with self._database.acquire() as connection:
                due = await DUE.all(connection, name, ROUND)
            if due:
                ended += await self._look(network, node, due)
        return ended

    async def aclose(self) -> None:
        """Close the connections to the nodes."""
        for _, node in self._nodes.values():
            await node.rpc.aclose()

    async def balance(self, network: str, asset: bytes) -> int:
        """Return what the wallet has of a token now, by the chain. Raises NodeRefused or NoAnswer."""
        return await self._nodes[network][1].token_balance(asset, self.address)

    async def _funds_of(self, network: str, asset: bytes) -> int | None:
        """Return what the wallet had of a token a moment ago; None when no node says."""
        known = self._funds.get((network, asset))
        if known is None or time.monotonic_ns() - known[0] > FUNDS_NANOSECONDS:
            try:
                known = (time.monotonic_ns(), await self.balance(network, asset))
            except RpcError:
                return None
            self._funds[network, asset] = known
        return known[1]

    async def _look(self, network: Network, node: Node, due: Sequence[OpenPurchase]) -> int:
        try:
            block = await final_block(node, max(network.confirmations, 1))
            calls = [(one.asset, call_data(AUTHORIZATION_STATE, one.payer, one.nonce)) for one in due]
            answers = await node.views(calls, block.number)
        except RpcError as error:
            log.info("purchases on %s are looked at later: %s", network.id, error)
            return 0
        ended = 0
        for one, answer in zip(due, answers, strict=True):
            if isinstance(answer, RpcError) or len(answer) != 32:
                continue
            used = any(answer)
            if used or block.timestamp >= one.valid_before:
                async with self._database.transaction() as connection:
                    ended += await END.one(connection, one.exchange_id, used, self._grace) != "waits"
        return ended


async def final_block(node: Node, depth: int) -> Block:
    """Return the newest block that no fork will take away. Raises NodeRefused or NoAnswer."""
    head = await node.head()
    found = (await node.blocks([max(head.number - depth, 0)]))[0]
    if isinstance(found, RpcError):
        raise found
    if found is None:
        raise NoAnswer("the node lacks a block that it should have")
    return found


def open_wallet(
    database: Database, grace: timedelta, environ: Mapping[str, str] | None = None, networks: Networks | None = None
) -> BuyingWallet | None:
    """Return the buying wallet, or None without a key. Raises SettingsError."""
    env = os.environ if environ is None else environ
    signer = load_buyer(env)
    if signer is None:
        return None
    return BuyingWallet(database, signer, open_nodes(networks or load_networks(env)), grace)


def open_nodes(networks: Networks) -> dict[str, tuple[Network, Node]]:
    """Return what the wallet can be used on: networks that have a node, by CAIP-2 id."""
    usable = [one for one in networks.networks if one.rpc and one.id.startswith("eip155:")]
    return {one.id: (one, Node(Endpoints(one.id, one.nodes))) for one in usable}


def load_buyer(env: Mapping[str, str]) -> Signer | None:
    """Return the buying wallet's key. Raises SettingsError, also when it is the relayer's."""
    signer, relayer = load_signer(env, BUYER), load_signer(env)
    if signer is not None and relayer is not None and signer.address == relayer.address:
        raise SettingsError(f"{BUYER}_KEY: must not be the relayer's key: upstreams' prices are paid from its address")
    return signer


def buyer_address(env: Mapping[str, str]) -> bytes | None:
    """Return the buying wallet's address: what is configured, else its key's. Raises SettingsError."""
    try:
        configured = parse_configured_address(env[ADDRESS]) if env.get(ADDRESS) else None
    except ValueError as error:
        raise SettingsError(f"{ADDRESS}={env[ADDRESS]!r}: {error}") from None
    signer = load_buyer(env)
    if signer is not None and configured not in (None, signer.address):
        raise SettingsError(f"{ADDRESS}: is not the address of the key that is configured beside it: keep one")
    return configured if signer is None else signer.address
