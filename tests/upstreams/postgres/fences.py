"""What the two fences stop, each alone: the rows of the table in docs/sql.md, with statements for each."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Row(NamedTuple):
    """What the role and its read-only transaction do with these statements when the list is not there.

    `stops`: the server refuses. `runs`: it does what it is asked, so only the list stops it. `by version`: it depends.
    """

    role: Literal["stops", "runs", "by version"]
    statements: tuple[str, ...]


ROWS = {
    "writes": Row(
        "stops",
        (
            "INSERT INTO demo.sectors VALUES (99, 'x', NULL)",
            "INSERT INTO demo.companies SELECT * FROM demo.companies RETURNING *",
            "UPDATE demo.companies SET name = 'x'",
            "DELETE FROM demo.prices WHERE company_id = 1 RETURNING *",
            "TRUNCATE demo.prices",
            "MERGE INTO demo.sectors s USING demo.companies c ON false WHEN NOT MATCHED THEN INSERT VALUES (99, 'x', NULL)",
            "WITH gone AS (DELETE FROM demo.prices RETURNING close) SELECT avg(close) FROM gone",
            "WITH new AS (INSERT INTO demo.sectors VALUES (99, 'x', NULL) RETURNING *) TABLE new",
            "SELECT name INTO TEMPORARY t FROM demo.companies",
            "CREATE TEMPORARY TABLE t AS SELECT 1",
            "EXPLAIN ANALYZE DELETE FROM demo.companies",
            "REFRESH MATERIALIZED VIEW demo.monthly_volume",
            "SELECT ticker FROM demo.companies LIMIT 1 FOR UPDATE",
            "SELECT ticker FROM demo.companies LIMIT 1 FOR KEY SHARE",
            "SELECT nextval('demo.ticket_seq')",
            "COPY demo.sectors FROM STDIN",
        ),
    ),
    "definitions and rights": Row(
        "stops",
        (
            "CREATE TABLE demo.x (a int)",
            "CREATE SCHEMA x",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "CREATE ROLE x SUPERUSER",
            "ALTER TABLE demo.companies ADD COLUMN x int",
            "ALTER ROLE reader SUPERUSER",
            "ALTER SYSTEM SET fsync = off",
            "DROP TABLE demo.prices",
            "GRANT ALL ON demo.companies TO reader",
            "VACUUM",
            "SET SESSION AUTHORIZATION postgres",
            "SET ROLE pg_read_all_data",
        ),
    ),
    "tables that were not granted": Row(
        "stops",
        (
            "SELECT secret FROM hidden.api_keys",
            "SELECT note FROM demo.internal_costs",
            "SELECT * FROM demo.companies c JOIN demo.internal_costs i USING (company_id)",
            "SELECT (SELECT max(note) FROM demo.internal_costs)",
            "VALUES ((SELECT note FROM demo.internal_costs LIMIT 1))",
            "TABLE demo.internal_costs",
            "WITH i AS (SELECT 1) SELECT * FROM demo.internal_costs",
            "SELECT * FROM pg_authid",
            "SELECT count(*) FROM pg_statistic",
            "SELECT currval('demo.ticket_seq')",
        ),
    ),
    "the server's files and programs": Row(
        "stops",
        (
            "SELECT pg_read_file('postgresql.conf')",
            "SELECT pg_ls_dir('.')",
            "SELECT pg_ls_waldir()",
            "SELECT lo_import('/etc/passwd')",
            "COPY demo.companies TO '/tmp/x'",
            "COPY demo.companies TO PROGRAM 'cat'",
            "COPY demo.sectors FROM '/etc/passwd'",
        ),
    ),
    "statements about the session": Row(
        "runs",
        (
            "SET statement_timeout = 0",
            "SET search_path = hidden",
            "RESET ROLE",
            "SHOW search_path",
            "LISTEN x",
            "UNLISTEN *",
            "PREPARE x AS SELECT 1",
            "DO LANGUAGE plpgsql 'BEGIN END'",
            "DECLARE c CURSOR FOR SELECT 1",
            "LOCK TABLE demo.companies IN ACCESS SHARE MODE",
            "EXPLAIN ANALYZE SELECT count(*) FROM demo.companies",
            "EXPLAIN SELECT 1",
        ),
    ),
    "functions that wait, lock, tell or set": Row(
        "runs",
        (
            "SELECT pg_sleep(0.01)",
            "SELECT 'x' FROM pg_sleep(0.01)",
            "SELECT pg_advisory_xact_lock(1)",
            "SELECT pg_try_advisory_lock(1)",
            "SELECT pg_notify('x', 'y')",
            "SELECT set_config('statement_timeout', '0', true)",
            "SELECT set_config('transaction_read_only', 'on', true)",
            "SELECT pg_backend_pid()",
            "SELECT current_setting('work_mem')",
            "SELECT * FROM ts_stat('SELECT to_tsvector(''a'')')",
            "SELECT txid_current_if_assigned()",
            "SELECT (0.01::float8).pg_sleep",
            "SELECT version()",
            "SELECT current_user",
        ),
    ),
    "the system catalogs": Row(
        "runs",
        (
            "SELECT rolname FROM pg_roles",
            "SELECT query FROM pg_stat_activity",
            "SELECT relname FROM pg_catalog.pg_class",
            "SELECT column_name FROM information_schema.columns",
            "SELECT attname FROM pg_attribute",
            "SELECT name, setting FROM pg_settings",
            "SELECT prosrc FROM pg_proc",
            "SELECT 'demo.companies'::regclass::oid",
            "SELECT ctid FROM demo.companies LIMIT 1",
            "SELECT tableoid::regclass FROM demo.companies LIMIT 1",
        ),
    ),
    "the publisher's own functions": Row(
        "runs",
        (
            "SELECT demo.peek(1)",
            "SELECT * FROM demo.peek(2)",
            "SELECT demo.peek(n) FROM generate_series(1, 3) n",
            "SELECT (3).peek",
            "SELECT n.peek FROM generate_series(1, 2) AS n",
        ),
    ),
    "large objects": Row(
        "by version",
        (
            "SELECT lo_create(0)",
            "SELECT lo_from_bytea(0, 'x')",
            "SELECT lo_creat(-1)",
        ),
    ),
}
