"""The archive: old months of the ledger as files, and their sums in place of their rows.

A month goes through it in steps, each of which may be the last before a crash; whoever begins again goes on from there:

1. It is sealed, if everything in it has ended for good: nothing can be written into it from then on (ledger.seal).
2. Its rows are written to files, which are on the disk before anything else happens. They are written anew by whoever
   begins again: what a dead process has left is not trusted.
3. The files are read back, and summed up.
4. In one transaction the database writes the sums of its rows, which must be those of the files, and drops the rows.

What does not live here: which moments may be named (cli/ledger.py); the proof, which adds the sums (proof.py).
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import AsyncGenerator, Generator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from gateway.database.pool import Connection, LockNotAvailable
from gateway.database.statement import Command, Statement
from gateway.faults import ARMED, act

FIRST = UUID(int=0)
PAGE = 5_000
DROP_TRIES = 20  # of half a second at most
Table = Literal["transfer", "settlement"]
TABLES: tuple[Table, ...] = ("transfer", "settlement")


class ArchiveError(RuntimeError):
    """A month cannot be archived, or an archive is not what was archived. The message says why; nothing was dropped."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A month that nothing is written into any more: ids from `low` (None: the first) to before `upto`."""

    id: int
    low: UUID | None
    upto: UUID


@dataclass(frozen=True, slots=True)
class Archived(Sealed):
    """A month whose sums stand for its rows."""

    transfers: int
    settlements: int
    transfer_digest: bytes
    settlement_digest: bytes


@dataclass(frozen=True, slots=True)
class Line:
    """A row as it is written to a file, and its key."""

    key: UUID
    kind: str
    leg: int
    text: str


@dataclass(slots=True)
class Sum:
    """What was moved on one account, in atomic units; `granted` is the part of the credits that opened lots."""

    account_id: int
    debits: int = 0
    credits: int = 0
    granted: int = 0

    def __post_init__(self) -> None:
        self.debits, self.credits, self.granted = int(self.debits), int(self.credits), int(self.granted)


@dataclass(frozen=True, slots=True)
class Bought:
    """What a wallet paid in a month, less what came back."""

    wallet_id: int
    month: str
    amount: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "amount", int(self.amount))


@dataclass(frozen=True, slots=True)
class File:
    """One table's rows. `sha256` is of the lines, not of the compressed file."""

    name: str
    rows: int
    sha256: str


@dataclass(slots=True)
class Contents:
    """What the files of a month say. `bought` is what each wallet paid, less what came back, by month of booking."""

    transfer: File
    settlement: File
    sums: dict[int, Sum] = field(default_factory=dict[int, Sum])
    bought: dict[tuple[int, str], int] = field(default_factory=dict[tuple[int, str], int])


SEAL = Statement("SELECT ledger.seal($1)", str, scalar=True)
FIND_SEALED = Statement("SELECT id, low, upto FROM ledger.archive WHERE carried_at IS NULL", Sealed)
FIND_ARCHIVED = Statement(
    """
    SELECT id, low, upto, transfers, settlements, transfer_digest, settlement_digest FROM ledger.archive
     WHERE carried_at IS NOT NULL ORDER BY upto
    """,
    Archived,
)
# Amounts are texts: a reader that takes numbers for floats would lose units of an asset with 18 decimals.
PAGES: dict[Table, Statement[Line]] = {
    "transfer": Statement(
        """
        SELECT t.cause_id AS key, t.kind::text AS kind, t.leg, json_build_object(
                   'cause_id', t.cause_id, 'kind', t.kind, 'leg', t.leg, 'worker_id', t.worker_id,
                   'debit_account', t.debit_account, 'credit_account', t.credit_account, 'wallet_id', t.wallet_id,
                   'amount', t.amount::text, 'fee', t.fee::text, 'fee_account', f.fee_account_id,
                   'created_at', t.created_at)::text AS text
          FROM ledger.transfer t
          LEFT JOIN ledger.account f
            ON t.fee > 0 AND f.id = CASE WHEN t.kind IN ('refund', 'reversal', 'repayment') THEN t.debit_account
                                         ELSE t.credit_account END
         WHERE t.cause_id >= $1 AND (t.cause_id, t.kind, t.leg) > ($1, $2::text::ledger.kind, $3) AND t.cause_id < $4
         ORDER BY t.cause_id, t.kind, t.leg LIMIT $5
        """,
        Line,
    ),
    "settlement": Statement(
        """
        SELECT s.exchange_id AS key, 'settlement' AS kind, 0 AS leg, json_build_object(
                   'exchange_id', s.exchange_id, 'outcome', s.outcome, 'reason', s.reason, 'status', s.status,
                   'bytes_in', s.bytes_in, 'bytes_out', s.bytes_out, 'method', s.method,
                   'target_hash', s.target_hash, 'body_hash', s.body_hash, 'endpoint', s.endpoint,
                   'row_count', s.row_count, 'ended_at', s.ended_at)::text AS text
          FROM ledger.settlement s
         WHERE s.exchange_id >= $1 AND (s.exchange_id > $1 OR ($2::text = 'grant' AND $3::smallint < 0))
           AND s.exchange_id < $4
         ORDER BY s.exchange_id LIMIT $5
        """,
        Line,
    ),
}
CARRY = Command("SELECT ledger.carry($1, $2, $3, $4, $5)")
CARRIED = Statement(
    "SELECT account_id, debits, credits, granted FROM ledger.carried WHERE archive_id = $1 ORDER BY account_id", Sum
)
# The lines of invoices that are still to be made: of this month, and of later ones in which money of this one moved.
CARRY_BOUGHT = Command(
    """
    INSERT INTO ledger.carried_bought (archive_id, wallet_id, month, kind, publisher_id, number, amount)
    SELECT $1, b.wallet_id, b.month, b.kind, b.publisher_id, sum(b.number), sum(b.amount)
      FROM ledger.bought b
     WHERE b.cause_id >= $2 AND b.cause_id < $3
     GROUP BY b.wallet_id, b.month, b.kind, b.publisher_id HAVING sum(b.number) > 0 OR sum(b.amount) <> 0
    """
)
CARRIED_BOUGHT = Statement(
    """
    SELECT wallet_id, to_char(month, 'YYYY-MM') AS month, sum(amount) AS amount FROM ledger.carried_bought
     WHERE archive_id = $1 GROUP BY 1, 2 HAVING sum(amount) <> 0
    """,
    Bought,
)
DROP_CARRIED = Command("SELECT ledger.drop_carried($1)")


async def archive(connection: Connection, before: UUID, directory: Path) -> AsyncGenerator[Sealed]:
    """Archive every month that ends before an id, oldest first, and yield each when it is done. Raises ArchiveError."""
    while (sealed := await _seal(connection, before)) is not None:
        if ARMED == "archive.sealed":
            await act()
        written: dict[Table, File] = {table: await _write(connection, sealed, table, directory) for table in TABLES}
        _keep(directory.joinpath(manifest_name(sealed.upto)), _manifest(sealed, written))
        if ARMED == "archive.written":
            await act()
        contents = read(sealed, directory)
        if ARMED == "archive.read":
            await act()
        await _put_away(connection, sealed, contents)
        if ARMED == "archive.dropped":
            await act()
        yield sealed


def name_of(upto: UUID) -> str:
    """Return what the files of a month are called: by the day before which its calls were."""
    return f"ledger-until-{moment_of(upto):%Y-%m-%d}"


def moment_of(floor: UUID) -> datetime:
    """Return the moment that an id begins with."""
    return datetime.fromtimestamp((floor.int >> 80) // 1000, UTC)


def manifest_name(upto: UUID) -> str:
    """Return the name of the file that names the others."""
    return f"{name_of(upto)}.json"


async def check(connection: Connection, directory: Path) -> list[str]:
    """Return what is wrong with the archives in a directory: they must be all, as they were, with the sums carried."""
    wrong: list[str] = []
    for archived in await FIND_ARCHIVED.all(connection):
        try:
            contents = read(archived, directory)
        except ArchiveError as error:
            wrong.append(str(error))
            continue
        for file, rows, digest in (
            (contents.transfer, archived.transfers, archived.transfer_digest),
            (contents.settlement, archived.settlements, archived.settlement_digest),
        ):
            if (file.rows, file.sha256) != (rows, digest.hex()):
                wrong.append(
                    f"{file.name}: {file.rows} rows of digest {file.sha256}, archived were {rows} of {digest.hex()}"
                )
        carried, bought = await _carried(connection, archived)
        wrong += [
            f"{name_of(archived.upto)}: account {account}: {contents.sums.get(account)}, carried {carried.get(account)}"
            for account in sorted(carried.keys() | contents.sums.keys())
            if carried.get(account) != contents.sums.get(account)
        ][:20]
        wrong += [
            f"{name_of(archived.upto)}: wallet {key[0]} bought {contents.bought.get(key)} in {key[1]}, carried"
            f" {bought.get(key)}"
            for key in sorted(bought.keys() | contents.bought.keys())
            if bought.get(key) != contents.bought.get(key)
        ][:20]
    return wrong


def read(sealed: Sealed, directory: Path) -> Contents:
    """Read the files of a month and sum them up. Raises ArchiveError when they are not what their manifest says."""
    path = directory.joinpath(manifest_name(sealed.upto))
    try:
        manifest: dict[str, Any] = json.loads(path.read_bytes())
        told: dict[Table, File] = {table: File(**manifest["files"][table]) for table in TABLES}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArchiveError(f"{path.name}: {type(error).__name__}: {error}") from error
    contents = Contents(told["transfer"], told["settlement"])
    for table, file in told.items():
        if file != _read(directory.joinpath(file.name), table, sealed, contents):
            raise ArchiveError(f"{file.name} is not the file that {path.name} names")
    return contents


async def _carried(connection: Connection, sealed: Sealed) -> tuple[dict[int, Sum], dict[tuple[int, str], int]]:
    """Return what stands for the rows of a month: the sum of each account, and what each wallet bought by month."""
    sums = {one.account_id: one for one in await CARRIED.all(connection, sealed.id)}
    bought = {(one.wallet_id, one.month): one.amount for one in await CARRIED_BOUGHT.all(connection, sealed.id)}
    return sums, bought


async def _seal(connection: Connection, before: UUID) -> Sealed | None:
    for _ in range(DROP_TRIES):
        try:
            said = await SEAL.one(connection, before)
        except LockNotAvailable:
            continue
        return None if said == "none" else await FIND_SEALED.one(connection)
    raise ArchiveError("the oldest month is in use all the time; try again later")


async def _write(connection: Connection, sealed: Sealed, table: Table, directory: Path) -> File:
    """Write the rows of a table to a file, in the order of their keys."""
    path = directory.joinpath(f"{name_of(sealed.upto)}.{table}.ndjson.gz")
    part, digest, rows = path.with_suffix(".part"), hashlib.sha256(), 0
    after: tuple[UUID, str, int] = (sealed.low or FIRST, "grant", -1)
    with part.open("wb") as raw:
        with gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as packed:
            while page := await PAGES[table].all(connection, *after, sealed.upto, PAGE):
                text = "".join(f"{line.text}\n" for line in page).encode()
                packed.write(text)
                digest.update(text)
                rows += len(page)
                after = (page[-1].key, page[-1].kind, page[-1].leg)
        raw.flush()
        os.fsync(raw.fileno())
    part.replace(path)
    return File(path.name, rows, digest.hexdigest())


def _manifest(sealed: Sealed, files: dict[Table, File]) -> bytes:
    document = {
        "format": 1,
        "low": None if sealed.low is None else str(sealed.low),
        "upto": str(sealed.upto),
        "before": moment_of(sealed.upto).isoformat(),
        "files": {table: asdict(file) for table, file in files.items()},
    }
    return json.dumps(document, indent=2).encode() + b"\n"


def _keep(path: Path, text: bytes) -> None:
    """Write a small file and have it, and the names of all files beside it, on the disk."""
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read(path: Path, table: Table, sealed: Sealed, contents: Contents) -> File:
    """Return what a file holds; of transfers the sums are added up."""
    digest, rows = hashlib.sha256(), 0
    try:
        for line in _lines(path):
            digest.update(line)
            rows += 1
            row: dict[str, Any] = json.loads(line)
            key = UUID(row["cause_id" if table == "transfer" else "exchange_id"])
            if not (sealed.low or FIRST) <= key < sealed.upto:
                raise ArchiveError(f"{path.name}: {key} is of another month")
            if table == "transfer":
                _add(contents.sums, row)
                _add_bought(contents.bought, row)
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise ArchiveError(f"{path.name}: {type(error).__name__}: {error}") from error
    return File(path.name, rows, digest.hexdigest())


def _lines(path: Path) -> Generator[bytes]:
    with gzip.open(path, "rb") as file:
        yield from file


def _add(sums: dict[int, Sum], row: dict[str, Any]) -> None:
    """Add both sides of a transfer, as the view ledger.posting has them."""
    amount, fee, kind = int(row["amount"]), int(row["fee"]), row["kind"]
    back = kind in ("refund", "reversal", "repayment")

    def of(account: int) -> Sum:
        return sums.setdefault(account, Sum(account))

    of(row["debit_account"]).debits += amount - fee if back else amount
    of(row["credit_account"]).credits += amount if back else amount - fee
    if kind == "grant":
        of(row["credit_account"]).granted += amount
    if fee and back:
        of(row["fee_account"]).debits += fee
    elif fee:
        of(row["fee_account"]).credits += fee


def _add_bought(bought: dict[tuple[int, str], int], row: dict[str, Any]) -> None:
    """Add a transfer to what its wallet has bought, as the view ledger.bought has it; nothing stands for a sum of 0."""
    if row["wallet_id"] is None or row["kind"] not in ("charge", "capture", "penalty", "refund"):
        return
    month = f"{datetime.fromisoformat(row['created_at']).astimezone(UTC):%Y-%m}"
    key = row["wallet_id"], month
    amount = bought.pop(key, 0) + (-int(row["amount"]) if row["kind"] == "refund" else int(row["amount"]))
    if amount:
        bought[key] = amount


async def _put_away(connection: Connection, sealed: Sealed, contents: Contents) -> None:
    """Write the sums and drop the rows, both or neither."""
    async with connection.transaction():
        await CARRY.run(
            connection, sealed.id, contents.transfer.rows, contents.settlement.rows,
            bytes.fromhex(contents.transfer.sha256), bytes.fromhex(contents.settlement.sha256),
        )  # fmt: skip
        await CARRY_BOUGHT.run(connection, sealed.id, sealed.low or FIRST, sealed.upto)
        if await _carried(connection, sealed) != (contents.sums, contents.bought):
            raise ArchiveError(
                f"{name_of(sealed.upto)}: the files do not add up to what the ledger holds; nothing was dropped"
            )
        if ARMED == "archive.carried":
            await act()
        for _ in range(DROP_TRIES):
            try:
                async with connection.transaction():
                    await DROP_CARRIED.run(connection, sealed.id)
                return
            except LockNotAvailable:
                continue
        raise ArchiveError(
            "somebody reads the ledger all the time, such as a proof; nothing was dropped, try again later"
        )
