"""What an operator sees of purchases: commands, metrics, and the proof."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import click
import pytest

from gateway.cli.main import cli
from gateway.database.pool import Connection
from gateway.devservices import chain as devchain
from gateway.devservices.datadir import write_dev_json
from gateway.ledger import proof
from gateway.payments.evm.encoding import call_data, selector, show_address
from gateway.payments.evm.keystore import Signer
from gateway.settings import SettingsError
from tests.payments.buying.conftest import Reselling, booked, ended, expire
from tests.payments.evm.conftest import clearing, until
from tests.payments.facilitator.conftest import measured
from tests.support.chain import Chain, executed
from tests.support.gateway import RunningGateway
from tests.support.seller import PRICE, Seller
from tests.support.world import Agent

Typed = Callable[..., Awaitable[tuple[object, str]]]


@pytest.fixture
def typed(
    chain: Chain, wallet: Signer, database_url: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Typed:  # fmt: skip
    """Types `tollway purchases ...` on a machine that has the wallet's address and not its key."""
    monkeypatch.setenv("TOLLWAY_DATABASE_URL", database_url)
    monkeypatch.setenv(f"TOLLWAY_CHAIN_{chain.chain_id}_RPC", chain.url)
    monkeypatch.setenv("TOLLWAY_CHAIN_BUYER_ADDRESS", show_address(wallet.address))
    monkeypatch.setenv("TOLLWAY_CHAIN_TREASURY", show_address(chain.treasury))

    async def type_(*words: str) -> tuple[object, str]:
        try:
            status = await asyncio.to_thread(cli.main, ["purchases", *words], standalone_mode=False)
        except click.ClickException as error:
            return 1, error.format_message()
        return status, capsys.readouterr().out

    return type_


async def test_what_came_into_the_wallet_is_booked_once_as_the_chain_has_it(
    chain: Chain, wallet: Signer, funded: None, connection: Connection, typed: Typed
) -> None:
    asset = f"{chain.network}/USDC"
    status, said = await typed("balance", asset)
    assert (status, said.split(":")[0]) == (0, show_address(wallet.address))
    before = await booked(connection, chain)
    transaction = await chain.give(wallet.address, 7)
    assert (await typed("balance", asset))[0] == 1
    assert "has 0 of 2 confirmations" in (await typed("fund", asset, transaction))[1]
    await chain.mine(2)
    assert "booked 0.000007 USDC from outside; the books have" in (await typed("fund", asset, transaction))[1]
    assert "was booked before" in (await typed("fund", asset, transaction.upper().replace("X", "x")))[1]
    assert await booked(connection, chain) == before + 7
    assert (await typed("balance", asset))[0] == 0
    (entry,) = await connection.fetch(
        "SELECT actor_type, metadata FROM audit.entry WHERE action = 'purchase.fund' AND metadata ->> 'transaction' = $1",
        transaction.lower(),
    )
    assert (entry["actor_type"], entry["metadata"]["amount_atomic"]) == ("operator", 7), "booked once, told once"


async def test_what_left_the_wallet_is_booked_once_and_to_where_it_went(
    gateway: RunningGateway, chain: Chain, wallet: Signer, funded: None, connection: Connection, typed: Typed
) -> None:
    asset, held, before = f"{chain.network}/USDC", await clearing(connection), await booked(connection, chain)
    ether = await chain.wallet()
    signed = [chain.authorize(wallet, payee, units) for payee, units in ((chain.treasury, 5), (b"\x11" * 20, 3))]
    sent = [await chain.transact(ether, chain.usdc, executed(one)) for one in signed]
    await chain.mine(3)
    assert "booked 0.000005 USDC to the treasury;" in (await typed("withdraw", asset, sent[0]))[1]
    assert "booked 0.000003 USDC to outside;" in (await typed("withdraw", asset, sent[1]))[1]
    assert "was booked before" in (await typed("withdraw", asset, sent[0]))[1]
    assert (await booked(connection, chain), await clearing(connection)) == (before - 8, held + 5)
    back = await chain.treasurer_pays(wallet.address, 5)
    await chain.mine(3)
    assert "booked 0.000005 USDC from the treasury;" in (await typed("fund", asset, back))[1]
    assert (await booked(connection, chain), await clearing(connection)) == (before - 3, held)


async def test_what_the_chain_does_not_say_is_not_booked(
    gateway: RunningGateway, seller: Seller, reselling: Reselling, agent: Agent, chain: Chain, wallet: Signer,
    connection: Connection, typed: Typed, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    shop = await reselling()
    assert (await gateway.client.get(f"/publishers/{shop.slug}/item", headers=agent.headers)).status_code == 200
    await ended(connection, chain)
    purchase = await connection.fetchval("SELECT transaction FROM chain.purchase ORDER BY signed_at DESC LIMIT 1")
    other = await chain.give(b"\x22" * 20, 7)
    poor = await chain.wallet()
    reverted = await chain.transact(
        poor, chain.usdc, call_data(selector("transfer(address,uint256)"), wallet.address, 7)
    )
    await chain.mine(3)
    before, asset = await booked(connection, chain), f"{chain.network}/USDC"
    for words, why in (
        (("fund", asset, "0x" + "12" * 32), "no block has this transaction"),
        (("fund", asset, "0xabc"), "must be a transaction's hash"),
        (("fund", asset, other), "brought the wallet nothing"),
        (("withdraw", asset, other), "took nothing of the token"),
        (("fund", asset, reverted), "failed"),
        (("withdraw", asset, purchase), "nothing of the token but what was bought"),
        (("fund", "eip155:8453/USDC", other), "no token on a network that has a node"),
    ):
        status, said = await typed(*words)
        assert status == 1
        assert why in said
    monkeypatch.delenv("TOLLWAY_CHAIN_TREASURY")
    assert "which address is the treasury?" in (await typed("fund", asset, other))[1]
    assert await booked(connection, chain) == before


async def test_the_development_gateways_wallet_is_found_without_its_key(
    chain: Chain, key: str, wallet: Signer, funded: None, database_url: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    running = devchain.Chain(chain.url, chain.chain_id, "", "", show_address(chain.treasury), (), buyer_key=key)
    write_dev_json(tmp_path, {"database_url": database_url, "chain": running.document()})
    monkeypatch.setenv("TOLLWAY_DATA", str(tmp_path))
    monkeypatch.delenv("TOLLWAY_DATABASE_URL", raising=False)
    asset = f"{chain.network}/USDC"
    assert await asyncio.to_thread(cli.main, ["purchases", "balance", asset], standalone_mode=False) == 0
    assert capsys.readouterr().out.startswith(show_address(wallet.address))
    monkeypatch.setenv("TOLLWAY_CHAIN_BUYER_KEY", "0x" + "07" * 32)
    with pytest.raises(SettingsError, match="is not the address of the key"):
        await asyncio.to_thread(cli.main, ["purchases", "balance", asset], standalone_mode=False)


async def test_what_is_in_the_wallet_and_not_known_yet_is_measured(
    gateway: RunningGateway, seller: Seller, reselling: Reselling, agent: Agent, chain: Chain, connection: Connection
) -> None:
    network = f'network="{chain.network}"'

    async def shown(series: str, right: Callable[[float], bool]) -> None:
        async def there() -> bool:
            lines = (await gateway.client.get("/metrics")).text.splitlines()
            values = [float(line.split()[-1]) for line in lines if line.startswith(f"tollway_{series}")]
            return len(values) == 1 and right(values[0])

        await until(there)

    seller.mode, shop = "late", await reselling()  # a payment that is not taken
    assert (await gateway.client.get(f"/publishers/{shop.slug}/item", headers=agent.headers)).status_code == 200
    await shown(f"purchases_open{{{network}}}", lambda number: number == 1)
    await shown(f"purchases_oldest_open_seconds{{{network}}}", lambda seconds: seconds > 0)
    await expire(connection, chain)
    await ended(connection, chain)
    await shown(f"purchases_open{{{network}}}", lambda number: number == 0)
    units = await booked(connection, chain)
    for of in ("books", "chain"):
        await shown(f'buying_wallet_atomic{{asset="USDC",{network},of="{of}"}}', lambda there: there == units)


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
    "DELETE FROM chain.wallet_movement",
    "UPDATE chain.wallet_movement SET outside = outside + 1",
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
    assert all("purchase" in rule or "buying wallet" in rule for rule in found)
