"""The world of a benchmark: a migrated database with publishers, and agents with keys and funds. Straight SQL, in bulk.

Also here: a ledger with a past, for measuring how it grows.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from gateway.catalog.assets import asset_id, store_assets
from gateway.database.migrate import migrate
from gateway.database.pool import Connection, connect
from gateway.identity.principals import new_key
from gateway.ids import uuid7
from gateway.settings import DatabaseSettings

NETWORK = "eip155:8453"
USDC = asset_id(NETWORK, "USDC")
FUNDS = 10**15  # never runs out
PRICE = 10_000  # one cent
FREE, PAID = "bench-free", "bench-paid"
BATCH = 10_000  # agents a statement
PAST = 500_000  # transfers a statement


@dataclass(frozen=True, slots=True)
class Agent:
    """A caller: its API key and its wallet's number."""

    account_id: UUID
    key: str
    wallet_id: int


@dataclass(frozen=True, slots=True)
class World:
    """What was seeded. `publisher_id` and `earnings_account` are the first priced publisher's; `paid` are all slugs."""

    agents: list[Agent]
    publisher_id: UUID
    earnings_account: int
    paid: list[str]


GRANTS = """
    WITH wanted AS (
        SELECT * FROM unnest($1::uuid[], $2::bigint[]) AS t (cause, wallet)
    ), payer AS MATERIALIZED (
        SELECT ledger.platform_account($3::uuid, 'promotional_expense') AS id
    ), lot AS (
        INSERT INTO ledger.account (purpose, asset_id, wallet_id, source, reference, granted, balance)
        SELECT 'promotional', $3::uuid, wallet, 'admin_grant', 'bench', $4::text::numeric, $4::text::numeric FROM wanted
        RETURNING id, wallet_id
    ), granted AS (
        INSERT INTO ledger.transfer (cause_id, kind, leg, debit_account, credit_account, wallet_id, amount)
        SELECT w.cause, 'grant', 0, p.id, l.id, l.wallet_id, $4::text::numeric
          FROM wanted w JOIN lot l ON l.wallet_id = w.wallet CROSS JOIN payer p
        RETURNING amount
    )
    SELECT ledger.add_to_shard(p.id, (SELECT sum(amount) FROM granted), 0) FROM payer p
"""


async def prepare(database_url: str, upstream_port: int, agents: int, publishers: int = 1) -> World:
    """Migrate the database and fill it. Publishers' base paths are the upstream's counters: /free and /paid."""
    await migrate(database_url)
    connection = await connect(DatabaseSettings(url=database_url, command_timeout=3600))
    try:
        await store_assets(connection)
        async with connection.transaction():
            callers: list[Agent] = []
            while len(callers) < agents:
                callers += await _agents(connection, len(callers), min(BATCH, agents - len(callers)))
            url, owner = f"http://127.0.0.1:{upstream_port}", callers[0].account_id
            await _publishers(connection, owner, [FREE], f"{url}/free", None)
            slugs = [PAID, *(f"{PAID}-{number}" for number in range(1, publishers))]
            paid = (await _publishers(connection, owner, slugs, f"{url}/paid", PRICE))[0]
            account = await connection.fetchval("SELECT ledger.earnings_account($1, $2)", paid, USDC)
        await connection.execute("ANALYZE")
        return World(callers, paid, account, slugs)
    finally:
        await connection.close()


async def _agents(connection: Connection, first: int, number: int) -> list[Agent]:
    accounts, organizations = [uuid7() for _ in range(number)], [uuid7() for _ in range(number)]
    keys = [new_key() for _ in range(number)]
    names = [f"bench-{first + index}" for index in range(number)]
    await connection.execute(
        "INSERT INTO identity.account (id, kind, name, referral_code)"
        " SELECT id, 'agent', name, name FROM unnest($1::uuid[], $2::text[]) AS t (id, name)",
        accounts, names,
    )  # fmt: skip
    await connection.execute(
        "INSERT INTO identity.organization (id, name, slug, created_by, is_personal)"
        " SELECT id, name, name, owner, true FROM unnest($1::uuid[], $2::text[], $3::uuid[]) AS t (id, name, owner)",
        organizations, names, accounts,
    )  # fmt: skip
    await connection.execute(
        "INSERT INTO identity.membership SELECT o, a, 'owner' FROM unnest($1::uuid[], $2::uuid[]) AS t (o, a)",
        organizations, accounts,
    )  # fmt: skip
    await connection.execute(
        "INSERT INTO identity.api_key (id, key_id, secret_hash, name, organization_id, account_id)"
        " SELECT id, key_id, hash, 'bench', o, a"
        "   FROM unnest($1::uuid[], $2::text[], $3::bytea[], $4::uuid[], $5::uuid[]) AS t (id, key_id, hash, o, a)",
        [uuid7() for _ in keys], [key.key_id for key in keys], [key.secret_hash for key in keys], organizations,
        accounts,
    )  # fmt: skip
    rows = await connection.fetch(
        "INSERT INTO ledger.wallet (owner_id, asset_id, address)"
        " SELECT id, $2::uuid, format('agent:%s/%s', id, $2::uuid) FROM unnest($1::uuid[]) AS t (id)"
        " RETURNING owner_id, id",
        accounts, USDC,
    )  # fmt: skip
    wallets = {row["owner_id"]: row["id"] for row in rows}
    # What ledger.grant_lot does, for all at once: one by one, the row of the sums would be written once for each.
    await connection.execute(GRANTS, [uuid7() for _ in rows], [row["id"] for row in rows], USDC, str(FUNDS))
    return [Agent(account, key.text, wallets[account]) for account, key in zip(accounts, keys, strict=True)]


async def _publishers(
    connection: Connection, owner: UUID, slugs: list[str], api_url: str, price: int | None
) -> list[UUID]:
    ids = [uuid7() for _ in slugs]
    document = {"api_url": api_url, "integration_type": "api", "billing_model": "prepaid_credits"}
    await connection.execute(
        "INSERT INTO catalog.publisher (id, organization_id, created_by, slug, name, category, wallet_address,"
        " wallet_network_id, primary_asset_id, document)"
        " SELECT t.id, m.organization_id, $3::uuid, t.slug, t.slug, 'integration', '0x0', $4::text, $5::uuid, $6::jsonb"
        "   FROM unnest($1::uuid[], $2::text[]) AS t (id, slug), identity.membership m WHERE m.account_id = $3",
        ids, slugs, owner, NETWORK, USDC, document,
    )  # fmt: skip
    await connection.execute(
        "INSERT INTO catalog.pricing (publisher_id, asset_id, price_per_call)"
        " SELECT id, $2::uuid, $3::numeric FROM unnest($1::uuid[]) t (id)",
        ids, USDC, price,
    )  # fmt: skip
    return ids


CHARGES = """
    WITH lot AS (
        SELECT row_number() OVER (ORDER BY id) - 1 AS number, id, wallet_id
          FROM ledger.account WHERE granted IS NOT NULL AND NOT spent
    ), past AS MATERIALIZED (
        SELECT (n * 7919) % (SELECT count(*) FROM lot) AS lot,
               clock_timestamp() - ($3::bigint - n) * interval '1 ms' AS at,
               (lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint - ($3::bigint - n)), 12, '0')
                || '7' || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15))::uuid AS cause
          FROM generate_series($1::bigint, $2::bigint) AS n
    ), charged AS (
        INSERT INTO ledger.transfer (cause_id, kind, leg, debit_account, credit_account, wallet_id, amount, created_at)
        SELECT p.cause, 'charge', 0, l.id, $4::bigint, l.wallet_id, $5::bigint, p.at
          FROM past p JOIN lot l ON l.number = p.lot
    ), ended AS (
        INSERT INTO ledger.settlement (exchange_id, outcome, reason, status, bytes_out, method, endpoint, ended_at)
        SELECT cause, 'settled', 'delivered', 200, 1024, 'GET', format('/v1/%s/{id}', lot % 10), at FROM past
    ), taken AS (
        UPDATE ledger.account a SET balance = a.balance - s.amount
          FROM (SELECT l.id, count(*) * $5::bigint AS amount
                  FROM past p JOIN lot l ON l.number = p.lot GROUP BY l.id) s
         WHERE a.id = s.id
    )
    INSERT INTO ledger.shard AS s (account_id, shard, credits) SELECT $4::bigint, 0, ($2 - $1 + 1) * $5::bigint
    ON CONFLICT (account_id, shard) DO UPDATE SET credits = s.credits + EXCLUDED.credits
"""


async def give_a_past(database_url: str, world: World, present: int, wanted: int) -> None:
    """Fill the ledger with settled charges of the past until there are `wanted`; every wallet and sum agrees with them.

    Their causes are ordered by time and older than everything that comes. Only the seeding itself is not durable.
    """
    connection = await connect(DatabaseSettings(url=database_url, command_timeout=3600))
    try:
        await connection.execute("SET synchronous_commit = off")
        for first in range(present + 1, wanted + 1, PAST):
            last = min(first + PAST - 1, wanted)
            # $3 is the end of the past: an hour before now, after all rows of the largest ledger.
            await connection.execute(CHARGES, first, last, wanted + 3_600_000, world.earnings_account, PRICE)
        await connection.execute("VACUUM ANALYZE ledger.account, ledger.transfer, ledger.settlement, ledger.shard")
    finally:
        await connection.close()
