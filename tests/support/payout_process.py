"""A settlement worker as a process of its own that sends payouts until it is killed at the armed fault point.

Input: one JSON object with `database_url` and `environment`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from typing import Any

from gateway.database.pool import Database
from gateway.networks import load_networks
from gateway.payments.evm.chains import open_chains
from gateway.payments.evm.settlements import Settlements
from gateway.settings import DatabaseSettings
from tests.support.relay_process import POLICY


async def main(task: dict[str, Any]) -> None:
    settings = DatabaseSettings(url=task["database_url"])
    database = Database(settings)
    await database.start()
    links = open_chains(load_networks(task["environment"]), task["environment"])
    settlements = Settlements(database, settings, {name: replace(link, policy=POLICY) for name, link in links.items()})
    await settlements.start()
    await asyncio.sleep(100)


if __name__ == "__main__":
    asyncio.run(main(json.load(sys.stdin)))
