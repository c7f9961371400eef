"""Shapes of text that make a parser recurse, each as deep as one asks: for the processes that test_tree.py starts."""

from __future__ import annotations

from collections.abc import Callable

SHAPES: dict[str, Callable[[int], str]] = {
    "sum": lambda n: "SELECT " + "+".join(["1"] * n),
    "signs": lambda n: "SELECT " + "+" * n + "1",
    "signs in an operator": lambda n: "SELECT 1 " + "*-" + "+-" * n + "1",
    "signs apart": lambda n: "SELECT " + "- " * n + "name FROM companies",
    "not": lambda n: "SELECT " + "NOT " * n + "true",
    "and": lambda n: "SELECT " + "true AND " * n + "true",
    "casts": lambda n: "SELECT 1" + "::int" * n,
    "casts in words": lambda n: "SELECT " + "CAST(" * n + "1" + " AS int)" * n,
    "brackets": lambda n: "SELECT " + "(" * n + "1" + ")" * n,
    "calls": lambda n: "SELECT " + "abs(" * n + "1" + ")" * n,
    "windows": lambda n: "SELECT " + "sum(" * n + "1" + ") OVER ()" * n,
    "arrays": lambda n: "SELECT " + "ARRAY[" * n + "1" + "]" * n,
    "rows": lambda n: "SELECT " + "ROW(" * n + "1" + ")" * n,
    "case": lambda n: "SELECT " + "CASE WHEN true THEN " * n + "1" + " END" * n,
    "in": lambda n: "SELECT " + "1 IN (" * n + "1" + ")" * n,
    "time zones": lambda n: "SELECT now()" + " AT TIME ZONE 'UTC'" * n,
    "collations": lambda n: "SELECT 'a'" + ' COLLATE "C"' * n,
    "operators by name": lambda n: "SELECT 1" + " OPERATOR(pg_catalog.+) 1" * n,
    "subscripts": lambda n: "SELECT ARRAY[1]" + "[1]" * n,
    "scalar sub-selects": lambda n: "SELECT " + "(SELECT " * n + "1" + ")" * n,
    "sub-selects": lambda n: "SELECT 1 FROM " + "(SELECT 1 FROM " * n + "companies" + ") x" * n,
    "unions": lambda n: " UNION ALL ".join(["VALUES (1)"] * n),
    "unions of sums": lambda n: " UNION ALL ".join(["SELECT " + "+".join(["1"] * 150)] * n),
    "columns called select": lambda n: "SELECT " + " + ".join(["c.select" + "+1" * 100] * n) + " FROM companies c",
    "joins": lambda n: "SELECT 1 FROM companies c0" + "".join(f" JOIN companies c{i} ON true" for i in range(1, n)),
    "joins to the right": lambda n: "SELECT 1 FROM companies" + " JOIN sectors" * n + " ON true" * n,
    "joins in brackets": lambda n: "SELECT 1 FROM " + "(" * n + "companies" + " JOIN sectors ON true)" * n,
    "with": lambda n: "WITH x AS (" * n + "SELECT 1" + ") SELECT 1" * n,
    "recursive with": lambda n: "WITH RECURSIVE x AS (" * n + "SELECT 1" + " UNION ALL SELECT 1) SELECT 1" * n,
    "all at once": lambda n: "SELECT " + "(1+1+1+1+" * n + "1" + ")" * n,
    "numbers": lambda n: "SELECT 1" + ",1" * n,
    "strings": lambda n: "SELECT 'a'" + "\n'b'" * n,
}
DEPTHS = (5, 10, 20, 39, 45, 70, 99, 140, 199, 250, 299, 400, 1_000, 5_000, 20_000)
CHILD = """
import sys, threading
from pricing.sql.guard import QueryRefused
from pricing.sql.policy import check
from tests.pricing.sql.bombs import DEPTHS, SHAPES
from tests.pricing.sql.tables import ON_SALE

def try_all(shapes):
    for shape in shapes:
        for depth in DEPTHS:
            try:
                check(shape(depth), ON_SALE)
                sold.append(depth)
            except QueryRefused:
                pass

sold = []
threading.stack_size(int(sys.argv[1]) * 1024)
shapes = list(SHAPES.values())
threads = [threading.Thread(target=try_all, args=(shapes[part::3],)) for part in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(len(sold), int(peak.split()[1]) // 1024)
"""
