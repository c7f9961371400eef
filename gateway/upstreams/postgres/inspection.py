"""What the role that a publisher gave us can do, and what there is to sell.

The role is the second fence, so it is checked before anything is sold over it: a role that can write, or read more than
is on sale, is refused with the very statement that puts it right. What is read here comes from the system catalogs,
which every role may read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from asyncpg import Record

from gateway.upstreams.postgres.pool import Session
from pricing.sql.catalogue import OnSale, Relation

MAX_RELATIONS = 500
MAX_COLUMNS = 1_000
MAX_FINDINGS = 50


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that the role must not be able to do. `fix` is SQL for the database's owner."""

    problem: str
    fix: str
    fatal: bool = True


@dataclass(frozen=True, slots=True)
class Column:
    """A column as the store shows it."""

    name: str
    type: str
    nullable: bool


@dataclass(frozen=True, slots=True)
class Table:
    """A table or view as the store shows it. `rows` is the server's estimate, None where it has none."""

    schema: str
    name: str
    kind: str
    rows: int | None
    columns: tuple[Column, ...]
    whole: bool

    def relation(self) -> Relation:
        """Return it as pricing/sql knows it."""
        return Relation(self.schema, self.name, tuple(column.name for column in self.columns), self.whole, self.rows)


@dataclass(frozen=True, slots=True)
class Selection:
    """What the publisher puts on sale; an empty part means "all that the role may read". Names are exact."""

    schemas: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    """`table` or `schema.table`."""
    columns: tuple[str, ...] = ()
    """`table.column` or `schema.table.column`: only these of that table."""

    def takes(self, schema: str, table: str) -> bool:
        """Return whether a relation is on sale."""
        if self.schemas and schema not in self.schemas:
            return False
        return not self.tables or table in self.tables or f"{schema}.{table}" in self.tables

    def columns_of(self, schema: str, table: str) -> frozenset[str] | None:
        """Return the only columns of a relation that are on sale, None for all."""
        named = frozenset(
            column.removeprefix(f"{owner}.")
            for owner in (f"{schema}.{table}", table)
            for column in self.columns
            if column.startswith(f"{owner}.")
        )
        return named or None


READABLE = """
    SELECT n.nspname AS schema, c.relname AS name, c.relkind::text AS kind, c.reltuples::bigint AS rows,
           a.attname AS column, format_type(a.atttypid, a.atttypmod) AS type, NOT a.attnotnull AS nullable,
           has_column_privilege(c.oid, a.attnum, 'SELECT') AS readable
      FROM pg_catalog.pg_class c
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
       AND has_schema_privilege(n.oid, 'USAGE') AND has_any_column_privilege(c.oid, 'SELECT')
     ORDER BY n.nspname, c.relname, a.attnum
     LIMIT 100000
"""
ROLE = """
    SELECT rolname AS name, rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls
      FROM pg_catalog.pg_roles WHERE rolname = current_user
"""
MEMBER_OF = """
    SELECT r.rolname FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles r ON r.oid = m.roleid
     WHERE m.member = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user)
"""
OWNED = """
    WITH me AS (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user)
    SELECT format('%s %I.%I', CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW'
                                             WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, n.nspname, c.relname) AS thing
      FROM me, pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relowner = me.oid AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    UNION ALL
    SELECT format('SCHEMA %I', nspname) FROM me, pg_catalog.pg_namespace WHERE nspowner = me.oid
    UNION ALL
    SELECT format('DATABASE %I', datname) FROM me, pg_catalog.pg_database
     WHERE datname = current_database() AND datdba = me.oid
"""
WRITABLE = """
    SELECT format('%I.%I', n.nspname, c.relname) AS thing, p.privilege
      FROM pg_catalog.pg_class c
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     CROSS JOIN unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS p (privilege)
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
       AND (has_table_privilege(c.oid, p.privilege)
            OR (p.privilege IN ('INSERT', 'UPDATE', 'REFERENCES') AND has_any_column_privilege(c.oid, p.privilege)))
    UNION ALL
    SELECT format('SEQUENCE %I.%I', n.nspname, c.relname), p.privilege
      FROM pg_catalog.pg_class c
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     CROSS JOIN unnest(ARRAY['USAGE', 'UPDATE']) AS p (privilege)
     WHERE c.relkind = 'S' AND has_sequence_privilege(c.oid, p.privilege)
    UNION ALL
    SELECT format('SCHEMA %I', nspname), 'CREATE' FROM pg_catalog.pg_namespace WHERE has_schema_privilege(oid, 'CREATE')
    UNION ALL
    SELECT format('DATABASE %I', current_database()), 'CREATE'
     WHERE has_database_privilege(current_database(), 'CREATE')
"""
DEFINERS = """
    SELECT p.oid::regprocedure::text AS thing
      FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
     WHERE p.prosecdef AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
       AND has_schema_privilege(n.oid, 'USAGE') AND has_function_privilege(p.oid, 'EXECUTE')
"""
TEMPORARY_FILES = "SELECT current_setting('temp_file_limit')"
FLAGS = {
    "rolsuper": ("is a superuser", "NOSUPERUSER"),
    "rolcreaterole": ("may create roles", "NOCREATEROLE"),
    "rolcreatedb": ("may create databases", "NOCREATEDB"),
    "rolreplication": ("may replicate everything", "NOREPLICATION"),
    "rolbypassrls": ("passes by row security", "NOBYPASSRLS"),
}


async def tables_on_sale(session: Session, selection: Selection) -> list[Table]:
    """Return what the selection puts on sale, of what the role may read."""
    return [
        table
        for table in _tables(await session.fetch(READABLE), selection)
        if selection.takes(table.schema, table.name) and table.columns
    ][:MAX_RELATIONS]


async def findings(session: Session, on_sale: OnSale) -> list[Finding]:
    """Return what is wrong with the role, worst first; empty when it may do exactly what it should."""
    role = await session.fetchrow(ROLE)
    if role is None:
        return [Finding("The role does not exist any more.", "")]
    name = quoted(role["name"])
    found = [
        Finding(f"The role {problem}.", f"ALTER ROLE {name} {fix};")
        for flag, (problem, fix) in FLAGS.items()
        if role[flag]
    ]
    for (group,) in await session.fetch(MEMBER_OF):
        found.append(Finding(f"The role is a member of {group}.", f"REVOKE {quoted(group)} FROM {name};"))
    for (thing,) in await session.fetch(OWNED):
        found.append(Finding(f"The role owns {thing}.", f"ALTER {thing} OWNER TO <another role>;"))
    for thing, privilege in await session.fetch(WRITABLE):
        found.append(
            Finding(f"The role has {privilege} on {thing}.", f"REVOKE {privilege} ON {thing} FROM {name}, PUBLIC;")
        )
    found += await _reads_more(session, on_sale, name)
    for (thing,) in await session.fetch(DEFINERS):
        problem = f"The role may call {thing}, which runs with its owner's rights."
        found.append(Finding(problem, f"REVOKE EXECUTE ON FUNCTION {thing} FROM PUBLIC, {name};", fatal=False))
    if await session.fetchval(TEMPORARY_FILES) == "-1":
        problem = "No bound keeps the role's queries from filling the disk with temporary files."
        found.append(Finding(problem, f"ALTER ROLE {name} SET temp_file_limit = '256MB';", fatal=False))
    return found[:MAX_FINDINGS]


async def _reads_more(session: Session, on_sale: OnSale, name: str) -> list[Finding]:
    found: list[Finding] = []
    for table in _tables(await session.fetch(READABLE), Selection()):
        thing = f"{quoted(table.schema)}.{quoted(table.name)}"
        relation = on_sale.relations.get((table.schema, table.name))
        readable = {column.name for column in table.columns}
        if relation is None:
            problem = f"The role reads {table.schema}.{table.name}, which is not on sale."
            found.append(Finding(problem, f"REVOKE SELECT ON {thing} FROM {name}, PUBLIC;"))  # noqa: S608
        elif more := readable - set(relation.columns):
            listed = ", ".join(quoted(column) for column in relation.columns)
            found.append(
                Finding(
                    f"The role reads columns of {table.schema}.{table.name} that are not on sale: "
                    f"{', '.join(sorted(more)[:5])}.",
                    f"REVOKE SELECT ON {thing} FROM {name}, PUBLIC; GRANT SELECT ({listed}) ON {thing} TO {name};",  # noqa: S608
                )
            )
    return found


def sandbox_sql(role: str, database: str, tables: Iterable[Relation], password: str) -> str:
    """Return the SQL that makes the right role, for the database's owner to run. `password` is put in as it stands."""
    chosen, name = list(tables), quoted(role)
    lines = [
        f"CREATE ROLE {name} LOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION",
        f"    CONNECTION LIMIT 20 PASSWORD '{password}';",
        f"GRANT CONNECT ON DATABASE {quoted(database)} TO {name};",
        *(f"GRANT USAGE ON SCHEMA {quoted(one)} TO {name};" for one in sorted({table.schema for table in chosen})),
    ]
    for table in chosen:
        listed = "" if table.whole else f" ({', '.join(quoted(column) for column in table.columns)})"
        lines.append(f"GRANT SELECT{listed} ON {quoted(table.schema)}.{quoted(table.name)} TO {name};")
    lines += [
        f"ALTER ROLE {name} SET default_transaction_read_only = on;",
        "-- As a superuser, so that no query can fill the disk:",
        f"ALTER ROLE {name} SET temp_file_limit = '256MB';",
        "-- Functions are executable by everybody unless this is taken away:",
        *(
            f"REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA {quoted(one)} FROM PUBLIC;"
            for one in sorted({table.schema for table in chosen})
        ),
    ]
    return "\n".join(lines) + "\n"


def quoted(name: str) -> str:
    """Return a name as SQL."""
    return '"' + name.replace('"', '""') + '"'


_KINDS = {"r": "table", "p": "table", "v": "view", "m": "materialized view", "f": "foreign table"}


def _tables(rows: Sequence[Record], selection: Selection) -> list[Table]:
    """Gather one row per column into tables with the columns that the role may read and the selection takes."""
    grouped: dict[tuple[str, str], list[Record]] = {}
    for row in rows:
        grouped.setdefault((row["schema"], row["name"]), []).append(row)
    tables: list[Table] = []
    for (schema, name), columns in grouped.items():
        only = selection.columns_of(schema, name)
        taken = [
            Column(one["column"], one["type"], one["nullable"])
            for one in columns[:MAX_COLUMNS]
            if one["readable"] and (only is None or one["column"] in only)
        ]
        estimate: int = columns[0]["rows"]
        tables.append(
            Table(
                schema,
                name,
                _KINDS.get(columns[0]["kind"], "table"),
                estimate if estimate >= 0 else None,
                tuple(taken),
                whole=len(taken) == len(columns),
            )
        )
    return tables
