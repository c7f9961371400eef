"""A settlement worker as a process of its own, to be killed: reserves, submits and waits for what standard input says.

Input: one JSON object with `database_url`, `environment` and `orders` (bytes as hex). Prints `confirmed` at the end.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import replace
from typing import Any
from uuid import UUID

from gateway.database.pool import Database
from gateway.faults import ARMED
from gateway.ids import floor_at
from gateway.ledger.exchanges import START_WORKER
from gateway.networks import load_networks
from gateway.payments.evm.chains import open_chains
from gateway.payments.evm.fees import RelayPolicy
from gateway.payments.evm.settlements import Booking, Order, Settlements
from gateway.settings import DatabaseSettings

POLICY = RelayPolicy(finality=3, poll_seconds=0.05, idle_seconds=0.1, check_seconds=0.4)


async def main(task: dict[str, Any]) -> None:
    settings = DatabaseSettings(url=task["database_url"])
    database = Database(settings)
    await database.start()
    links = open_chains(load_networks(task["environment"]), task["environment"])
    settlements = Settlements(database, settings, {name: replace(link, policy=POLICY) for name, link in links.items()})
    async with database.acquire() as connection:
        worker = await START_WORKER.one(connection, floor_at(time.time_ns() // 1_000_000), [])
    await settlements.start()
    orders = [read_order(fields, worker) for fields in task["orders"]]
    await asyncio.gather(*(buy(settlements, one) for one in orders))
    if ARMED:  # what was booked is told before the step behind it, at which this process may have to die
        await asyncio.sleep(20)
    await settlements.stop()
    print("confirmed")


async def buy(settlements: Settlements, one: Order) -> None:
    assert (await settlements.reserve(one)).verdict == "reserved"
    await settlements.submit(one.id)
    status = await settlements.wait(one.id, 60)
    assert status.state == "confirmed", status


def read_order(fields: dict[str, Any], worker: int) -> Order:
    raw = {name: bytes.fromhex(fields[name]) for name in ("asset", "payer", "payee", "nonce", "signature")}
    booking = Booking(kind="earnings", account_id=fields["account_id"], fee=fields["fee"])
    numbers = {name: fields[name] for name in ("authorized", "valid_after", "valid_before", "network", "method")}
    return Order(id=UUID(fields["id"]), booking=booking, worker_id=worker, **raw, **numbers)


def write_order(one: Order) -> dict[str, Any]:
    """The inverse of `read_order`."""
    raw = {name: getattr(one, name).hex() for name in ("asset", "payer", "payee", "nonce", "signature")}
    numbers = {name: getattr(one, name) for name in ("authorized", "valid_after", "valid_before", "network", "method")}
    return {"id": str(one.id), "account_id": one.booking.account_id, "fee": one.booking.fee, **raw, **numbers}


if __name__ == "__main__":
    asyncio.run(main(json.load(sys.stdin)))
