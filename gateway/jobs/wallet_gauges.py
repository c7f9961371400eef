"""Shows in the metrics what is in the buying wallet, by the books and by the chain, and which purchases have not ended.

All workers have it in common: the first one shows it, and one that is no longer the first shows nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from gateway.database.pool import Database
from gateway.jobs.gauges import IS_FIRST
from gateway.ledger.group_commit import GroupCommit
from gateway.payments.evm.encoding import parse_address
from gateway.payments.evm.purchases import HELD, OPEN, BuyingWallet
from gateway.payments.evm.rpc import RpcError
from gateway.telemetry.metrics import Metrics

Place = tuple[str, str, Literal["books", "chain"]]


@dataclass(slots=True)
class WalletSampler:
    """`sample` is the periodic job."""

    metrics: Metrics
    database: Database
    wallet: BuyingWallet
    ledger: GroupCommit
    _shown: set[Place] = field(default_factory=set[Place])

    async def sample(self) -> None:
        """Set the gauges. What a node does not say stays as it was."""
        async with self.database.acquire() as connection:
            first = await IS_FIRST.one(connection, self.ledger.worker_id)
            held = await HELD.all(connection) if first else []
            waiting = {one.network: one for one in await OPEN.all(connection)} if first else {}
        for network in self.wallet.networks:
            one = waiting.get(network)
            self.metrics.set_open_purchases(network, one.number if one else 0, one.oldest if one else 0)
        for place in () if first else tuple(self._shown):
            self.metrics.set_buying_wallet(*place, 0)
            self._shown.discard(place)
        for one in held:
            self._show((one.network, one.symbol, "books"), one.booked)
            if one.network in self.wallet.networks:
                try:
                    there = await self.wallet.balance(one.network, parse_address(one.token))
                except RpcError:
                    continue
                self._show((one.network, one.symbol, "chain"), there)

    def _show(self, place: Place, units: int) -> None:
        self.metrics.set_buying_wallet(*place, units)
        self._shown.add(place)
