"""Makes SQL from a grammar: queries as analysts write them, with writes, foreign tables and functions strewn in."""

from __future__ import annotations

from hypothesis import strategies as st

SOLD_TABLES = ["companies", "demo.companies", "prices", "filings", "sectors", 'demo."Ratings 2024"', "latest_price"]
FOREIGN_TABLES = [
    "internal_costs", "demo.internal_costs", "hidden.api_keys", "pg_catalog.pg_authid", "pg_roles", "pg_stat_activity",
    "information_schema.tables", "pg_class",
]  # fmt: skip
COLUMNS = [
    "company_id",
    "name",
    "c.name",
    "ticker",
    "day",
    "close",
    "s.name",
    "note",
    "secret",
    "ctid",
    "c.*",
    "rolname",
]
SOLD_CALLS = [
    "lower({})",
    "abs({})",
    "coalesce({}, {})",
    "count({})",
    "max({})",
    "json_agg({})",
    "repeat({}, 3)",
    "length({})",
]
FOREIGN_CALLS = [
    "pg_sleep({})", "demo.peek({})", "peek({})", "set_config({}, {}, true)", "pg_read_file({})", "query_to_xml({}, true, true, '')",
    "lo_create({})", "nextval({})", "pg_notify({}, {})", "pg_advisory_lock({})", "current_setting({})", "dblink({}, {})",
    "txid_current()", "({}).peek", '"pg_sleep"({})', "pg_catalog.pg_sleep({})", 'U&"pg\\005fsleep"({})', "version()",
]  # fmt: skip
TYPES = ["int", "text", "regclass", "numeric", "demo.companies", "jsonb", "date", "oid"]
COMMENTS = ["", " ", "/* x */", "/* /* y */ */", "-- z\n", "\n"]
WRITES = [
    "DELETE FROM companies RETURNING *", "UPDATE companies SET name = 'x' RETURNING *", "DROP TABLE companies",
    "INSERT INTO sectors VALUES (99, 'x') RETURNING *", "TRUNCATE companies", "SET ROLE postgres", "COMMIT",
    "CREATE TABLE t AS SELECT 1", "COPY companies TO STDOUT", "DO $$ BEGIN END $$", "CALL f()", "LOCK companies",
]  # fmt: skip

_literals = st.sampled_from(["1", "0", "'x'", "NULL", "true", "'2022-01-03'", "E'a\\'b'", "$$q$$", "-5", "1.5"])
_columns = st.sampled_from(COLUMNS)
_comments = st.sampled_from(COMMENTS)


def _filled(call: str, one: str, other: str) -> str:
    return call.replace("{}", one, 1).replace("{}", other)


def _wider(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    calls = st.one_of(st.sampled_from(SOLD_CALLS), st.sampled_from(SOLD_CALLS), st.sampled_from(FOREIGN_CALLS))
    operators = st.sampled_from(["+", "||", "=", "<", "AND", "OR", "LIKE", "->>", "OPERATOR(pg_catalog.+)"])
    return st.one_of(
        st.builds(_filled, calls, inner, inner),
        st.builds(lambda a, o, b: f"({a} {o} {b})", inner, operators, inner),
        st.builds(lambda a, t: f"CAST({a} AS {t})", inner, st.sampled_from(TYPES)),
        st.builds(lambda a, t: f"{a}::{t}", inner, st.sampled_from(TYPES)),
        st.builds(lambda a, b: f"CASE WHEN {a} IS NULL THEN {b} END", inner, inner),
        st.builds(lambda q: f"({q})", _selects(inner)),
        st.builds(lambda a, c: f"{a}{c}", inner, _comments),
    )


def _sources(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    tables = st.one_of(st.sampled_from(SOLD_TABLES), st.sampled_from(SOLD_TABLES), st.sampled_from(FOREIGN_TABLES))
    return st.one_of(
        st.builds(lambda t: f"{t} AS c", tables),
        st.builds(lambda t: f"{t} AS c", tables),
        st.builds(lambda t, u: f"{t} AS c JOIN {u} AS s ON true", tables, tables),
        st.builds(lambda e: f"(SELECT {e} AS name) AS c", inner),
        st.builds(lambda w: f"({w}) AS c", st.sampled_from(WRITES)),
        st.just("generate_series(1, 3) AS c (name)"),
    )


def _selects(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(
        lambda c, e, s, w, tail: f"SELECT {c}{e} FROM {s}{w}{tail}",
        _comments,
        inner,
        _sources(inner),
        st.one_of(st.just(""), st.builds(lambda e: f" WHERE {e} IS NOT NULL", inner)),
        st.sampled_from(["", " LIMIT 3", " FOR UPDATE", " FETCH FIRST 2 ROWS ONLY", " ORDER BY 1", " INTO t"]),
    )


expressions = st.recursive(st.one_of(_literals, _columns, _columns), _wider, max_leaves=6)
selects = _selects(expressions)
queries = st.one_of(
    selects,
    selects,
    selects,
    st.builds(lambda a, b: f"WITH c AS ({a}) SELECT * FROM c, ({b}) AS d", st.one_of(selects, st.sampled_from(WRITES)), selects),
    st.builds(lambda a, o, b: f"{a} {o} {b}", selects, st.sampled_from(["UNION ALL", "EXCEPT", ";", "; --"]), selects),
    st.sampled_from(WRITES),
    st.builds(lambda e: f"VALUES ({e})", expressions),
    st.builds(lambda q: f"EXPLAIN ANALYZE {q}", selects),
)  # fmt: skip
