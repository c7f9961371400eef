"""Which account has which columns: what the check of ledger.account allows, column by column, for every purpose."""

from __future__ import annotations

from gateway.database.pool import Connection

COLUMNS = ("wallet_id", "balance", "granted", "publisher_id", "fee_account_id")
LOT = {"wallet_id", "balance", "granted"}
OF_WALLET = {"wallet_id", "balance"}
# The sets of columns that an account of a purpose may have; every other purpose has none.
SHAPES: dict[str, tuple[set[str], ...]] = {
    "deposit": (LOT | {"publisher_id"},),
    "promotional": (LOT,),
    "funded": (LOT,),
    "held": (OF_WALLET,),
    "disputed": (OF_WALLET,),
    "earnings": ({"publisher_id"}, {"publisher_id", "fee_account_id"}),
    "paying_out": ({"publisher_id"},),
    "penalties": ({"publisher_id"},),
}
CHECK = "SELECT pg_get_expr(conbin, conrelid) FROM pg_constraint WHERE conname = 'account_shape'"


async def test_an_account_has_the_columns_of_its_purpose_and_no_others(connection: Connection) -> None:
    check = await connection.fetchval(CHECK)
    rows = await connection.fetch(
        f"SELECT purpose::text, {', '.join(f'{column} IS NOT NULL AS {column}' for column in COLUMNS)}, ({check}) AS allowed"
        " FROM unnest(enum_range(NULL::ledger.purpose)) AS p (purpose),"
        + ",".join(f" (VALUES (1), (NULL)) AS {column}_is ({column})" for column in COLUMNS)
    )
    purposes = {row["purpose"] for row in rows}
    assert len(rows) == len(purposes) * 2 ** len(COLUMNS)
    allowed = {(row["purpose"], *(row[column] for column in COLUMNS)) for row in rows if row["allowed"]}
    assert allowed == {
        (purpose, *(column in columns for column in COLUMNS))
        for purpose in purposes
        for columns in SHAPES.get(purpose, (set[str](),))
    }
