"""What an operator sees of purchases: commands, metrics, and the proof."""

from __future__ import annotations

import asyncio
import re

import pytest

from gateway.cli.main import cli
from gateway.database.pool import Connection
from gateway.ledger import proof
from gateway.payments.evm.encoding import show_address
from gateway.payments.evm.keystore import Signer
from tests.payments.buying.conftest import Reselling, booked, ended
from tests.payments.facilitator.conftest import measured
from tests.support.chain import Chain
from tests.support.gateway import RunningGateway
from tests.support.seller import PRICE, Seller
from tests.support.world import Agent


async def test_the_wallet_is_funded_once_and_compared_with_the_chain(
    chain: Chain, key: str, wallet: Signer, funded: None, connection: Connection, database_url: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("TOLLWAY_DATABASE_URL", database_url)
    monkeypatch.setenv(f"TOLLWAY_CHAIN_{chain.chain_id}_RPC", chain.url)
    monkeypatch.setenv("TOLLWAY_CHAIN_BUYER_KEY", key)
    asset = f"{chain.network}/USDC"

    async def typed(*words: str) -> tuple[object, str]:
        status = await asyncio.to_thread(cli.main, ["purchases", *words], standalone_mode=False)
        return status, capsys.readouterr().out

    status, said = await typed("balance", asset)
    assert (status, said.split(":")[0]) == (0, show_address(wallet.address))
    await chain.give(wallet.address, 7)
    status, said = await typed("balance", asset)
    assert status == 1
    before = await booked(connection, chain)
    assert "booked 0.000007 USDC" in (await typed("fund", asset, "0.000007", "--reference", "0xabc"))[1]
    assert "nothing booked" in (await typed("fund", asset, "0.000007", "--reference", "0xabc"))[1]
    assert await booked(connection, chain) == before + 7
    assert (await typed("balance", asset))[0] == 0


async def test_what_was_paid_for_nothing_is_listed_until_it_is_forgiven(
    gateway: RunningGateway, seller: Seller, reselling: Reselling, agent: Agent, chain: Chain, connection: Connection,
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("TOLLWAY_DATABASE_URL", database_url)
    seller.mode, shop = "thief", await reselling()
    answer = await gateway.client.get(f"/publishers/{shop.slug}/item", headers=agent.headers)
    await ended(connection, chain)
    for there in (True, False):
        await asyncio.to_thread(cli.main, ["purchases", "list"], standalone_mode=False)
        lines = [line for line in capsys.readouterr().out.splitlines() if shop.slug in line]
        assert len(lines) == there
        if there:
            assert answer.headers["x-request-id"] in lines[0]
            assert re.search(rf"{PRICE} of 0x\S+ \(atomic\) to {show_address(seller.payee)}  bought", lines[0])
            await asyncio.to_thread(cli.main, ["purchases", "forgive", shop.slug], standalone_mode=False)
            capsys.readouterr()


async def test_payments_and_refusals_to_pay_are_counted(
    gateway: RunningGateway, seller: Seller, reselling: Reselling, agent: Agent
) -> None:
    shop = await reselling()
    path = f"/publishers/{shop.slug}/item"
    names = ("purchases_total", "purchases_declined_total")
    before = [await measured(gateway, name) for name in names]
    assert (await gateway.client.get(path, headers=agent.headers)).status_code == 200
    seller.price = 10**9
    assert (await gateway.client.get(path, headers=agent.headers)).json()["reason"] == "price"

    text = (await gateway.client.get("/metrics")).text
    assert re.search(r'^tollway_purchases_total\{network="eip155:84532",said="paid"\} ', text, re.M)
    assert re.search(r'^tollway_purchases_declined_total\{reason="price"\} ', text, re.M)
    assert [await measured(gateway, name) for name in names] == [count + 1 for count in before]


TAMPERED = (
    "UPDATE chain.purchase SET amount = amount + 1 WHERE state = 'bought'",
    "UPDATE chain.purchase SET state = 'lapsed' WHERE state = 'bought'",
    "UPDATE chain.purchase SET delivered = NOT delivered WHERE state = 'bought'",
    "DELETE FROM chain.purchase WHERE state = 'bought'",
)


@pytest.mark.parametrize("tampering", TAMPERED)
async def test_the_proof_finds_purchases_that_were_tampered_with(
    tampering: str, gateway: RunningGateway, seller: Seller, reselling: Reselling, agent: Agent, chain: Chain,
    connection: Connection,
) -> None:  # fmt: skip
    shop = await reselling()
    assert (await gateway.client.get(f"/publishers/{shop.slug}/item", headers=agent.headers)).status_code == 200
    await ended(connection, chain)
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(tampering)
        found = [rule for rule, query in proof.RULES.items() if await query.all(connection)]
    finally:
        await transaction.rollback()
    assert found
    assert all("purchase" in rule for rule in found)
