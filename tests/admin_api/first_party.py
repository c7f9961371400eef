"""A first-party publisher of its owner's, and agents with money: for tests of direct charges and of what is earned by them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx

from gateway.billing import charges
from gateway.ids import uuid7
from gateway.ledger.wallets import FIND_BY_ADDRESS, grant
from tests.admin_api.conftest import Api, Clerk, Member

DAY = 1_000_000
ONE = 500_000


@dataclass
class Payer:
    """An agent with money."""

    member: Member
    address: str
    wallet_id: int


@dataclass
class Service:
    """A first-party publisher, and its owner's key for it."""

    api: Api
    owner: Member
    id: str
    slug: str

    @property
    def path(self) -> str:
        return f"/billing/publishers/{self.slug}/charges"

    async def send(self, path: str, body: dict[str, Any], expect: int | None = None, **options: Any) -> httpx.Response:
        return await self.api.call("POST", self.path + path, self.owner.key, json=body, expect=expect, **options)

    async def charge(
        self, payer: Payer, amount: int = 100_000, expect: int | None = 200, **more: Any
    ) -> dict[str, Any]:
        body = {"agent_wallet": payer.address, "amount_atomic": amount, "description": "two hours", **more}
        return (await self.send("", body, expect)).json()

    async def refund(self, charge: dict[str, Any], key: str | None = None, reason: str = "broken") -> httpx.Response:
        headers = {} if key is None else {"Idempotency-Key": key}
        return await self.send(f"/{charge['id']}/refund", {"reason": reason}, headers=headers)

    async def slash(
        self, charge: dict[str, Any], amount: int, key: str | None = None, reason: str = "not released"
    ) -> httpx.Response:
        headers = {} if key is None else {"Idempotency-Key": key}
        body = {"reason": reason, "slash_amount_atomic": amount}
        return await self.send(f"/{charge['id']}/slash", body, headers=headers)

    async def status(self, charge: dict[str, Any]) -> str:
        answer = await self.api.call("GET", f"{self.path}/{charge['id']}", self.owner.key, expect=200)
        return answer.json()["status"]

    async def has(self, purpose: str) -> int:
        """Return what one of the publisher's accounts holds."""
        return await self.api.services.database.read(
            lambda connection: connection.fetchval(
                "SELECT coalesce(sum(s.credits - s.debits), 0)::bigint FROM ledger.account a"
                " JOIN ledger.shard s ON s.account_id = a.id"
                " WHERE a.publisher_id = $1 AND a.purpose = $2::text::ledger.purpose",
                UUID(self.id), purpose,
            )
        )  # fmt: skip


async def terms(api: Api, publisher: str, per_charge: int = ONE, per_day: int = DAY) -> None:
    async with api.services.database.transaction() as connection:
        asset = api.services.catalog.default_asset.id
        await charges.SET_TERMS.run(connection, UUID(publisher), asset, str(per_charge), str(per_day))


async def service(api: Api, clerk: Clerk, per_charge: int = ONE, per_day: int = DAY, **changes: Any) -> Service:
    owner = await clerk.agent()
    made = await clerk.publisher(owner, **changes)
    await terms(api, made["id"], per_charge, per_day)
    return Service(api, owner, made["id"], made["slug"])


async def fund(api: Api, payer: Payer, amount: int, expires: timedelta | None = None) -> int:
    """Grant an amount and return its lot."""
    async with api.services.database.transaction() as connection:
        moment = None if expires is None else datetime.now(UTC) + expires
        made = await grant(
            connection, payer.wallet_id, source="admin_grant", reference=str(uuid7()), amount=amount, expires_at=moment
        )
    return made.lot_id


async def payer(api: Api, clerk: Clerk, funds: int = 1_000_000) -> Payer:
    member = await clerk.agent()
    answer = await api.call("GET", "/wallet/balance", member.key, expect=200)
    address = answer.json()["data"]["wallet_address"]
    async with api.services.database.acquire() as connection:
        wallet = await FIND_BY_ADDRESS.one(connection, address)
    made = Payer(member, address, wallet.id)
    if funds:
        await fund(api, made, funds)
    return made
