"""SQL is visible and right: every statement is registered, and every registered one fits the migrated schema."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator

import pytest

import admin_api
import gateway
from gateway.database.pool import Connection
from gateway.database.statement import REGISTRY, Statement
from tests.house.source import Module, modules

DOOR = "gateway/database"
# Speaks to publishers' databases, whose schemas are not ours: its statements are run by its own tests.
FOREIGN = "gateway/upstreams/postgres"
RUN = frozenset(
    {"execute", "executemany", "fetch", "fetchrow", "fetchval", "cursor", "prepare", "copy_records_to_table"}
)
MAKE = frozenset({"Statement", "Command"})
# Asks whether a connection lives; it depends on no schema.
PING = "SELECT 1"
SQL = re.compile(r"\s*(?:SELECT\s|INSERT\s+INTO\s|UPDATE\s+[\w.]+\s+SET\s|DELETE\s+FROM\s|WITH\s+\w+\s+AS\s|CALL\s+\w)")


def everything() -> list[Statement[object]]:
    """Import every module, so that every statement registers itself; gateway.cli.asgi would start the application."""
    for package in (gateway, admin_api):
        for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if found.name != "gateway.cli.asgi":
                importlib.import_module(found.name)
    return REGISTRY


STATEMENTS = {" ".join(statement.sql.split())[:90]: statement for statement in everything()}


def test_statements_are_found() -> None:
    assert len(STATEMENTS) > 60


@pytest.mark.parametrize("name", STATEMENTS)
async def test_a_statement_fits_the_schema(name: str, connection: Connection) -> None:
    await connection.prepare(STATEMENTS[name].sql)


def literal(node: ast.AST) -> str | None:
    """Return the beginning of a text that is written out here, also of one that is put together."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(literal(part) or "{}" for part in node.values)
    if isinstance(node, ast.BinOp):
        return literal(node.left)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return literal(node.func.value)
    return None


def in_statements(module: Module) -> set[int]:
    """Return the nodes that are part of a statement: its arguments, and constants that they put together."""
    parts = [
        part
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in MAKE
        for argument in node.args
        for part in ast.walk(argument)
    ]
    names = {part.id for part in parts if isinstance(part, ast.Name)}
    for node in module.tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in names:
            parts += ast.walk(node.value)
    return {id(part) for part in parts}


def strays(module: Module) -> Iterator[str]:
    """Yield SQL that is run, or written down, outside of a statement."""
    made = in_statements(module)
    documentation = {id(node.value) for node in ast.walk(module.tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in RUN and node.args:
            text = literal(node.args[0])
            if text is not None and text != PING:
                yield f"{module.path}:{node.lineno} runs {text[:40]!r}"
        elif id(node) not in made | documentation and (text := literal(node)) and SQL.match(text) and text != PING:
            yield f"{module.path}:{node.lineno} writes {text[:40]!r}"


def test_no_sql_outside_of_statements() -> None:
    ours = (module for module in modules("gateway", "admin_api") if not module.within(DOOR, FOREIGN))
    found = [line for module in ours for line in strays(module)]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        'await connection.fetch("SELECT x FROM y")',
        'await connection.execute(f"DELETE FROM {table}")',
        'await connection.fetchval("SELECT " + column)',
        'await connection.execute("INSERT INTO {} VALUES (1)".format(table))',
        'TEXT = "UPDATE ledger.lot SET balance = 0"',
        'await connection.execute("SET lock_timeout = 1")',
    ],
)
def test_stray_sql_would_be_found(line: str) -> None:
    assert len(list(strays(Module("x.py", f"async def f(connection, table, column):\n    {line}\n")))) >= 1


def test_a_statement_and_its_documentation_are_no_strays() -> None:
    text = 'def f():\n    """SELECT is documented here."""\nX = Statement("SELECT 1 FROM y" " WHERE true", int)\nPING = "SELECT 1"\n'
    assert list(strays(Module("x.py", text))) == []
