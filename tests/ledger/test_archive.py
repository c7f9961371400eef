"""Old months go to files and their sums stay: the proof holds at every step, and whoever dies between two loses nothing."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from gateway.database.pool import connect
from gateway.faults import POINTS
from gateway.ledger import proof
from gateway.ledger.archive import ArchiveError, archive, check, read
from gateway.ledger.entries import Charge, Settlement, post
from gateway.ledger.exchanges import refund
from gateway.ledger.receipts import find_receipt
from gateway.ledger.resolutions import unended
from gateway.ledger.statements import Opening, of_wallet
from gateway.ledger.statements import read as statement
from gateway.ledger.wallets import HISTORY, HISTORY_COUNT
from gateway.settings import DatabaseSettings
from tests.ledger.past import GRACE, Past, archived, floor, id_in, month

STEPS = [point for point in POINTS if point.startswith("archive.")]


async def test_old_months_go_and_their_sums_stay(past: Past, tmp_path: Path) -> None:
    old = await past.month_of_calls(5)
    await past.month_of_calls(4)
    young = await past.month_of_calls(1)
    before = await past.money()
    receipt = await find_receipt(past.connection, old[1])
    assert receipt is not None

    assert await archived(past, 3, tmp_path) == 4, "the empty first one, and three months"
    assert await past.money() == before
    assert (await past.left())[:2] == ["transfer_archived", f"transfer_{month(3):%Y_%m}"]
    assert await find_receipt(past.connection, old[1]) is None
    assert await find_receipt(past.connection, young[1]) is not None
    assert await check(past.connection, tmp_path) == []
    assert await archived(past, 3, tmp_path) == 0

    names = {path.name for path in tmp_path.iterdir()}
    assert f"ledger-until-{month(4):%Y-%m-%d}.json" in names
    assert len(names) == 12, "nothing unfinished is left"
    lines = gzip.decompress((tmp_path / f"ledger-until-{month(4):%Y-%m-%d}.transfer.ndjson.gz").read_bytes())
    rows = [json.loads(line) for line in lines.splitlines()]
    assert {row["kind"] for row in rows} == {"charge", "refund", "hold", "capture", "release", "grant"}
    assert {row["amount"] for row in rows if row["cause_id"] == str(old[1])} == {"100"}


async def test_a_call_of_then_is_neither_charged_nor_refunded_nor_open_again(past: Past, tmp_path: Path) -> None:
    old = await past.month_of_calls(5)
    await archived(past, 3, tmp_path)
    before = await past.money()
    charge = Charge(old[1], past.agent.wallet_id, past.shop.id, past.shop.account_id, 100, 7)
    with pytest.raises(asyncpg.CheckViolationError, match="archived"):
        await post(past.connection, [charge], None, [])
    with pytest.raises(asyncpg.CheckViolationError, match="archived"):
        await post(past.connection, [], None, [Settlement(old[1], "delivered", 200, 0, 9)])
    undone = await refund(past.connection, old[1], reason="x", status=None, grace=GRACE, only_open=False)
    assert undone.verdict == "unknown"
    assert await unended(past.connection, dead_after=timedelta(0), exchange_id=old[1]) == []
    assert await past.money() == before


async def test_the_history_has_a_line_for_each_archived_month(past: Past, tmp_path: Path) -> None:
    await past.month_of_calls(5)
    await past.month_of_calls(1)
    before = await HISTORY.all(past.connection, past.agent.wallet_id, 100, 0)
    await archived(past, 4, tmp_path)
    after = await HISTORY.all(past.connection, past.agent.wallet_id, 100, 0)
    assert await HISTORY_COUNT.one(past.connection, past.agent.wallet_id) == len(after) == len(before) - 5 + 1 - 1
    (carried,) = [line for line in after if line.kind == "carried"]
    assert (carried.source, carried.amount) == ("carried_forward", 50 - 200 - 40)
    assert carried.description == f"everything before {month(4):%Y-%m-%d}"
    assert sum(line.amount for line in after) == sum(line.amount for line in before)


async def test_a_statement_opens_with_what_was_archived_and_says_so(past: Past, tmp_path: Path) -> None:
    await past.month_of_calls(5)
    await past.month_of_calls(3)
    subject, tomorrow = of_wallet(past.agent.wallet_id), datetime.now(UTC) + timedelta(days=1)

    async def whole() -> tuple[Opening, int]:
        (opening, *parts) = [
            part async for part in statement(DatabaseSettings(url=past.url), subject, month(6), tomorrow)
        ]
        assert isinstance(opening, Opening)
        return opening, sum(line.change for part in parts if isinstance(part, list) for line in part)

    before = await whole()
    await archived(past, 4, tmp_path)
    after = await whole()
    assert (before[0], after[0].archived) == (Opening(0, None), month(4))
    assert after[0].balance != 0
    assert after[0].balance + after[1] == before[1]


async def test_what_has_no_end_keeps_its_month(past: Past, tmp_path: Path) -> None:
    await past.month_of_calls(5)
    run, said = past.connection.execute, past.connection.fetchval
    reasons = {
        "no end": lambda: past.call(5, ended=False),
        "is pending": lambda: past.held(5, None),
        "worker": lambda: run("INSERT INTO ledger.worker (settled_through) VALUES ($1)", id_in(5)),
        "counts": lambda: run("UPDATE analytics.mark SET upto = '-infinity'"),
        "payment": lambda: run(PAYMENT, id_in(5), past.shop.account_id),
    }
    await archived(past, 5, tmp_path)
    for reason, happen in reasons.items():
        transaction = past.connection.transaction()
        await transaction.start()
        await happen()
        with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError, match=reason):
            async with past.connection.transaction():
                await said("SELECT ledger.seal($1)", floor(3))
        await past.call(5)  # nothing is sealed by a try that failed
        await transaction.rollback()
    assert await said("SELECT ledger.seal($1)", floor(3)) == "sealed"
    assert (await proof.verify(past.connection)).sound


PAYMENT = """
    INSERT INTO chain.payment (id, network, verifier, asset, payer, nonce, method, payee, authorized, amount, valid_after,
                               valid_before, signature, deferred, booking, account_id)
    SELECT $1, 'eip155:8453', b, b, b, decode(repeat('ab', 32), 'hex'), 'eip3009', b, 5, 5, 0, 1,
           decode(repeat('ab', 65), 'hex'), false, 'earnings', $2 FROM decode(repeat('ab', 20), 'hex') AS x (b)
"""


async def test_a_sealed_month_takes_nothing_more(past: Past, tmp_path: Path) -> None:
    (_, call, *_) = await past.month_of_calls(5)
    for _ in range(2):
        assert await past.connection.fetchval("SELECT ledger.seal($1)", floor(5)) == "sealed"
    assert [one async for one in archive(past.connection, floor(5), tmp_path)]
    assert await past.connection.fetchval("SELECT ledger.seal($1)", floor(4)) == "sealed"
    with pytest.raises(asyncpg.RaiseError, match="sealed"):
        await past.call(5)
    with pytest.raises(asyncpg.RaiseError, match="sealed"):
        await refund(past.connection, call, reason="x", status=None, grace=GRACE, only_open=False)
    await past.call(4)
    await past.money()


async def test_an_archive_that_was_changed_is_found(past: Past, tmp_path: Path) -> None:
    await past.month_of_calls(5)
    await past.month_of_calls(4)
    await archived(past, 3, tmp_path)
    name, other = (f"ledger-until-{month(ago):%Y-%m-%d}" for ago in (4, 3))
    path, manifest = f"{name}.transfer.ndjson.gz", f"{name}.json"
    kept = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    lines = gzip.decompress(kept[path]).splitlines(keepends=True)
    harms: dict[str, dict[str, bytes | None]] = {
        "an amount": {path: gzip.compress(b"".join(lines).replace(b'"100"', b'"900"'))},
        "a line": {path: gzip.compress(b"".join(lines[:-1]))},
        "the end": {path: kept[path][:-20]},
        "the manifest": {manifest: None},
        "all of it": {path: kept[f"{other}.transfer.ndjson.gz"], manifest: kept[f"{other}.json"]},
    }
    for harm, files in harms.items():
        for file, text in files.items():
            (tmp_path / file).unlink() if text is None else (tmp_path / file).write_bytes(text)
        assert await check(past.connection, tmp_path), harm
        for file in files:
            (tmp_path / file).write_bytes(kept[file])
    assert await check(past.connection, tmp_path) == []
    await past.connection.execute("ALTER TABLE ledger.carried_bought DISABLE TRIGGER USER")
    await past.connection.execute("UPDATE ledger.carried_bought SET amount = amount + 1")
    wrong = await check(past.connection, tmp_path)
    assert [one.partition(" bought ")[2] for one in wrong] == [f"240 in {month(0):%Y-%m}, carried 241"] * 2


async def test_files_that_do_not_add_up_drop_nothing(
    past: Past, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong between the ledger and the disk, the rows stay until the sums are the same."""
    await past.month_of_calls(5)
    before = await past.money()

    def wrong(sealed: object, directory: Path) -> object:
        contents = read(sealed, directory)  # type: ignore[arg-type]
        for one in contents.sums.values():
            one.debits += 1
        return contents

    monkeypatch.setattr("gateway.ledger.archive.read", wrong)
    with pytest.raises(ArchiveError, match="do not add up"):
        await archived(past, 3, tmp_path)
    assert await past.money() == before
    monkeypatch.undo()
    assert await archived(past, 3, tmp_path) == 2
    assert await past.money() == before


async def command(url: str, *arguments: str, fault: str = "") -> tuple[int, str]:
    """Run `tollway ledger` and return its status and what it said."""
    env = {**os.environ, "TOLLWAY_DATABASE_URL": url, "TOLLWAY_FAULT": fault}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway.cli.main", "ledger", *arguments, env=env,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


@pytest.mark.slow
@pytest.mark.parametrize("point", STEPS)
async def test_killed_at(past: Past, tmp_path: Path, point: str) -> None:
    await past.month_of_calls(5)
    await past.month_of_calls(4)
    before = await past.money()
    arguments = ("archive", "--before", f"{month(3):%Y-%m-%d}", "--to", str(tmp_path))
    status, said = await command(past.url, *arguments, fault=f"{point}:kill")
    assert status == -signal.SIGKILL, said
    assert await past.money() == before
    await past.call(0)
    before = await past.money()
    status, said = await command(past.url, *arguments)
    assert status == 0, said
    assert await past.money() == before
    assert (await past.left())[:2] == ["transfer_archived", f"transfer_{month(3):%Y_%m}"]
    status, said = await command(past.url, "verify", "--archive", str(tmp_path))
    assert status == 0, said


async def test_the_command_says_what_it_did_and_refuses_young_months(
    past: Past, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await past.month_of_calls(5)
    arguments = ("archive", "--to", str(tmp_path), "--before")
    status, said = await command(past.url, *arguments, f"{month(0):%Y-%m-%d}")
    assert status == 2
    assert "31 days ago" in said
    with monkeypatch.context() as longer:
        longer.setenv("TOLLWAY_PAYOUTS_HOLDBACK", "31536000")  # what is held back must be there to be counted
        status, said = await command(past.url, *arguments, f"{month(4):%Y-%m-%d}")
    assert status == 2
    assert "366 days ago" in said
    status, said = await command(past.url, *arguments, f"{month(4):%Y-%m-%d}")
    assert status == 0
    assert f"archived until {month(4):%Y-%m-%d}: ledger-until-{month(4):%Y-%m-%d}.json" in said
    assert await archived(past, 4, tmp_path) == 0
    (tmp_path / f"ledger-until-{month(4):%Y-%m-%d}.json").unlink()
    status, said = await command(past.url, "verify", "--archive", str(tmp_path))
    assert status == 1
    assert "BROKEN: archives are what was carried forward" in said


async def test_who_reads_the_ledger_is_not_overtaken(past: Past, tmp_path: Path) -> None:
    """A proof has its snapshot and keeps the rows that are in it; the archive waits, and goes on behind it."""
    await past.month_of_calls(5)
    before = await past.money()
    reader = await connect(DatabaseSettings(url=past.url))
    snapshot = reader.transaction(isolation="repeatable_read", readonly=True)
    await snapshot.start()
    await proof.HOLD_STILL.run(reader)
    count = await reader.fetchval("SELECT count(*) FROM ledger.transfer")
    archiving = asyncio.create_task(archived(past, 4, tmp_path))
    watcher = await connect(DatabaseSettings(url=past.url))
    async with asyncio.timeout(60):
        while not await watcher.fetchval(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"
        ):
            await asyncio.sleep(0.01)
    assert await reader.fetchval("SELECT count(*) FROM ledger.transfer") == count
    await snapshot.rollback()
    async with asyncio.timeout(60):
        assert await archiving == 3
    assert await past.money() == before
    await reader.close()
    await watcher.close()
