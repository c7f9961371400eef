"""What the treasury of a network has by the chain and by the books, and what our key still has to send.

Both are of the same block: what is booked of later ones is left out, and what has left in earlier ones and is not
booked yet counts as gone. So they agree on a gateway that is never idle, too. The difference is what an operator has
put there or taken away.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.database.pool import Database
from gateway.database.statement import Statement
from gateway.payments.evm.chains import Chain
from gateway.payments.evm.encoding import call_data, parse_address
from gateway.payments.evm.node import BALANCE_OF
from gateway.payments.evm.purchases import final_block
from gateway.payments.evm.rpc import NodeRefused, RpcError

SLACK = 2  # blocks that may become final while this is asked: nothing newer than the block is final then


@dataclass(frozen=True, slots=True)
class Standing:
    """How one asset stands, in atomic units. `chain`: the treasury and the key together; `key`: the key alone, now.

    `queued` is what the key has been asked to send and has not: payouts, whatever they wait for, and repayments.
    """

    asset: str
    books: int
    chain: int
    key: int
    queued: int

    @property
    def missing(self) -> int:
        """Return by how much there is less than the books say."""
        return max(self.books - self.chain, 0)

    @property
    def short(self) -> int:
        """Return by how much the key has less than it has to send."""
        return max(self.queued - self.key, 0)


@dataclass(frozen=True, slots=True)
class _Booked:
    asset: str
    tokens: list[str]
    books: int
    queued: int

    def __post_init__(self) -> None:
        for name in ("books", "queued"):
            object.__setattr__(self, name, int(getattr(self, name)))


# Tokens of one peg are booked in one account. $2 is the block, $3 the key.
BOOKED = Statement(
    """
    WITH asset AS (
        SELECT l.id, l.symbol, array_agg(a.contract_address) AS tokens,
               array_agg(decode(substr(a.contract_address, 3), 'hex')) AS contracts
          FROM catalog.asset a JOIN catalog.asset l ON l.id = a.ledger_asset_id
         WHERE a.network_id = $1 AND a.contract_address IS NOT NULL GROUP BY l.id, l.symbol)
    SELECT a.symbol AS asset, a.tokens, (b.amount - later.amount - sent.amount)::numeric(39,0) AS books,
           (back.amount + sent_or_not.amount)::numeric(39,0) AS queued
      FROM asset a
      CROSS JOIN LATERAL (
          SELECT coalesce(sum(s.debits - s.credits), 0) AS amount
            FROM ledger.account c JOIN ledger.shard s ON s.account_id = c.id
           WHERE c.purpose = 'clearing' AND c.rail = $1 AND c.asset_id = a.id
             AND c.wallet_id IS NULL AND c.publisher_id IS NULL) b
      CROSS JOIN LATERAL (
          SELECT coalesce(sum(p.amount), 0) AS amount FROM chain.payment p
           WHERE p.network = $1 AND p.asset = ANY (a.contracts) AND p.state = 'confirmed' AND NOT p.final
             AND p.booking IN ('earnings', 'deposit') AND p.block_number > $2) later
      CROSS JOIN LATERAL (
          SELECT coalesce(sum(x.amount), 0) AS amount FROM (
              SELECT o.amount, o.sending_id FROM chain.payout o
               WHERE o.network = $1 AND o.token = ANY (a.contracts) AND o.state = 'processing'
              UNION ALL
              SELECT p.amount, r.sending_id FROM chain.repayment r JOIN chain.payment p ON p.id = r.payment_id
               WHERE p.network = $1 AND p.asset = ANY (a.contracts) AND r.state = 'broadcast') x
            JOIN chain.sending s ON s.id = x.sending_id AND s.block_number <= $2) sent
      CROSS JOIN LATERAL (
          SELECT coalesce(sum(o.amount), 0) AS amount
            FROM chain.payout o LEFT JOIN chain.sending s ON s.id = o.sending_id
           WHERE o.network = $1 AND o.token = ANY (a.contracts)
             AND (o.state = 'queued' OR (o.state = 'processing' AND s.block_number IS NULL))) sent_or_not
      CROSS JOIN LATERAL (
          SELECT coalesce(sum(p.amount), 0) AS amount
            FROM chain.repayment r JOIN chain.payment p ON p.id = r.payment_id
            LEFT JOIN chain.sending s ON s.id = r.sending_id
           WHERE p.network = $1 AND p.payee = $3 AND p.asset = ANY (a.contracts)
             AND (r.state = 'pending' OR (r.state = 'broadcast' AND s.block_number IS NULL))) back
    """,
    _Booked,
)


async def look(database: Database, chain: Chain) -> list[Standing]:
    """Return how each asset of a network stands. Raises NodeRefused or NoAnswer."""
    block = await final_block(chain.node, max(chain.policy.finality - SLACK, 0))
    key = chain.signer.address
    async with database.acquire() as connection:
        booked = await BOOKED.all(connection, chain.network.id, block.number, key)
    found: list[Standing] = []
    for one in booked:
        tokens = [parse_address(token) for token in one.tokens]
        there = [await _held(chain, tokens, owner, block.number) for owner in {key, chain.treasury}]
        found.append(Standing(one.asset, one.books, sum(there), await _held(chain, tokens, key), one.queued))
    return found


async def _held(chain: Chain, tokens: list[bytes], owner: bytes, block: int | None = None) -> int:
    """Return what an address has of these tokens; a token that is not there is none."""
    answers = await chain.node.views([(token, call_data(BALANCE_OF, owner)) for token in tokens], block)
    for answer in answers:
        if isinstance(answer, RpcError) and not isinstance(answer, NodeRefused):
            raise answer
    return sum(int.from_bytes(answer, "big") for answer in answers if isinstance(answer, bytes))
