"""What goes into the buying wallet, and out of it other than by purchases: found on the chain, and booked once.

The operator names a transaction; what it moved is read from the token's logs, in a block that is final. What a purchase
took in the same transaction is left out: purchases.py books that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import NAMESPACE_URL, UUID, uuid5

from gateway.database.pool import Connection
from gateway.database.statement import Statement
from gateway.payments.evm.encoding import word
from gateway.payments.evm.instructions import TRANSFERRED, USED
from gateway.payments.evm.node import Log, Node, Receipt
from gateway.payments.evm.purchases import rail_of
from gateway.payments.evm.rpc import RpcError


class NotMoved(Exception):
    """A transaction that is not to be booked, or not yet; says why."""


@dataclass(frozen=True, slots=True)
class Movement:
    """What a transaction moved, in atomic units, by who was at the other end."""

    treasury: int
    outside: int


@dataclass(frozen=True, slots=True)
class _Bought:
    payee: bytes
    amount: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "amount", int(self.amount))


BOUGHT = Statement(
    """
    SELECT p.payee, p.amount::text AS amount FROM chain.purchase p
     WHERE p.network = $1 AND p.asset = $2 AND p.payer = $3 AND p.nonce = ANY($4::bytea[])
    """,
    _Bought,
)
MOVE = Statement(
    "SELECT chain.move_wallet($1, $2, $3, $4, $5, $6, $7::text::numeric, $8::text::numeric)", bool, scalar=True
)


async def final_receipt(node: Node, transaction: bytes, depth: int) -> Receipt:
    """Return a transaction's receipt once `depth` blocks are on top of it. Raises NotMoved, NodeRefused or NoAnswer."""
    receipt = (await node.receipts([transaction]))[0]
    if isinstance(receipt, RpcError):
        raise receipt
    if receipt is None:
        raise NotMoved("no block has this transaction: is it on another network, or still on its way?")
    if not receipt.succeeded:
        raise NotMoved("this transaction failed, and moved nothing")
    above = (await node.head()).number - receipt.block_number
    if above < depth:
        raise NotMoved(f"this transaction has {max(above, 0)} of {depth} confirmations: try again later")
    return receipt


async def moved(
    connection: Connection, receipt: Receipt, network: str, token: bytes, wallet: bytes, treasury: bytes | None, *,
    incoming: bool,
) -> Movement:  # fmt: skip
    """Return what a transaction brought into the wallet, or took out of it. Raises NotMoved when that is nothing."""
    bought: Sequence[_Bought] = ()
    if not incoming:
        mark = (USED, word(wallet))
        nonces = [log.topics[2] for log in receipt.logs if log.address == token and log.topics[:2] == mark]
        bought = await BOUGHT.all(connection, network, token, wallet, nonces)
    parties = _transfers(receipt.logs, token, wallet, incoming=incoming)
    for one in bought:
        if (one.payee, one.amount) in parties:
            parties.remove((one.payee, one.amount))
    back = sum(amount for party, amount in parties if party == treasury)
    movement = Movement(back, sum(amount for _, amount in parties) - back)
    if not movement.treasury + movement.outside:
        only = " but what was bought" if bought else ""
        raise NotMoved(f"this transaction {'brought the wallet' if incoming else 'took'} nothing of the token{only}")
    return movement


def _transfers(logs: Sequence[Log], token: bytes, wallet: bytes, *, incoming: bool) -> list[tuple[bytes, int]]:
    """Return who was at the other end of each transfer, and how much it moved. What goes in a circle moves nothing."""
    ours, theirs = (2, 1) if incoming else (1, 2)
    return [
        (log.topics[theirs][12:], int.from_bytes(log.data, "big"))
        for log in logs
        if log.address == token and len(log.topics) == 3 and log.topics[0] == TRANSFERRED
        and log.topics[ours] == word(wallet) != log.topics[theirs]
    ]  # fmt: skip


async def book(
    connection: Connection, asset_id: UUID, network: str, symbol: str, transaction: bytes | None, movement: Movement, *,
    incoming: bool,
) -> bool:  # fmt: skip
    """Book a movement, and return whether it was not booked before.

    Without a transaction it was there when a local chain began.
    """
    rail = rail_of(network, symbol)
    name = "genesis" if transaction is None else transaction.hex()
    cause = uuid5(NAMESPACE_URL, f"tollway:{'funding' if incoming else 'withdrawal'}/{rail}/{name}")
    amounts = (str(movement.treasury), str(movement.outside))
    return await MOVE.one(connection, cause, asset_id, network, rail, transaction, incoming, *amounts)
