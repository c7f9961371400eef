"""PostgreSQL's parser in our process: nothing that the guard lets through ends it, fills its memory, or reads twice.

What could end a process is tried in one that a test starts.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from pricing.sql.guard import QueryRefused, guard
from pricing.sql.policy import check
from pricing.sql.tree import is_same, read, write
from tests.house.source import ROOT
from tests.pricing.sql.bombs import CHILD, SHAPES
from tests.pricing.sql.tables import ON_SALE


def child(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.parametrize("kilobytes", [512, 8192])
def test_no_shape_at_any_depth_ends_the_process_in_threads_of_any_stack(kilobytes: int) -> None:
    ended = child(CHILD, str(kilobytes))
    assert ended.returncode == 0, ended.stderr[-500:]
    sold, megabytes = map(int, ended.stdout.split())
    assert sold > 3 * len(SHAPES)
    assert megabytes < 300


def test_without_the_guard_the_process_would_end() -> None:
    ended = child("from pricing.sql.tree import read; read('SELECT ' + '+'.join(['1'] * 50_000))")
    assert ended.returncode < 0


@pytest.mark.parametrize("query", ["SELECT 1" + "+1" * 199, "SELECT " + "||".join(["name"] * 120) + " FROM companies"])
def test_what_is_deep_and_harmless_is_sold(query: str) -> None:
    check(query, ON_SALE)


def test_a_tree_that_is_not_written_as_it_was_read_is_refused() -> None:
    tree = read("SELECT 1 AS a")
    tree.stmts[0].stmt.select_stmt.target_list[0].res_target.name = "b"
    assert write(tree) == "SELECT 1 AS b"
    # A target without a value is no text that can be read.
    tree.stmts[0].stmt.select_stmt.target_list[0].res_target.ClearField("val")
    with pytest.raises(QueryRefused) as refusal:
        write(tree)
    assert refusal.value.code == "syntax"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SELECT 1", "SELECT 2"),
        ("SELECT a FROM t", "SELECT a FROM u"),
        ("SELECT a, b", "SELECT a"),
        ("SELECT a ORDER BY 1 LIMIT 1", "SELECT a ORDER BY 1 FETCH FIRST 1 ROWS WITH TIES"),
        ("SELECT DISTINCT a", "SELECT a"),
        ("SELECT -(1)", "SELECT - 1.0"),
    ],
)
def test_trees_that_differ_are_told_apart(one: str, other: str) -> None:
    assert is_same(read(one), read(f"  {one} -- elsewhere"))
    assert not is_same(read(one), read(other))


@pytest.mark.parametrize(
    ("query", "code", "words"),
    [
        ("SELECT ticker,\n pg_sleep(1) FROM companies", "unknown_function", "'pg_sleep' cannot be used here. It stands at character 17"),
        ("SELECT 'ü', Demo.Peek(1)", "unknown_function", "'demo.peek' cannot be used here. It stands at character 13"),
        ("SELECT tickr FROM companies", "unknown_column", "'tickr' on sale here. It stands at character 8"),
        ("SELECT 1 FROM nothing", "unknown_relation", "'nothing' on sale here. It stands at character 15"),
        ("SELECT 1 FRO companies", "syntax", 'at or near "companies". It stands at character 14'),
        ("SELECT ticker FROM companies FOR UPDATE", "not_sold", "FOR UPDATE and FOR SHARE is not sold"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_word_and_its_place(query: str, code: str, words: str) -> None:
    with pytest.raises(QueryRefused) as refusal:
        check(query, ON_SALE)
    assert refusal.value.code == code
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("SELECT /* a */ lower(c.name) -- b\n FROM companies c", "SELECT pg_catalog.lower(c.name) FROM demo.companies c"),
        ("SELECT 'a'\n'b', U&'\\0063', 0x1F", "SELECT 'ab', 'c', 31"),
        ("SELECT current_date, now(), similarity('a', 'b')", "SELECT current_date, pg_catalog.now(), similarity('a', 'b')"),
    ],
)  # fmt: skip
def test_the_text_that_runs_names_schemas_and_has_no_comments(query: str, text: str) -> None:
    assert check(query, ON_SALE).text == text


def test_a_string_whose_parts_escape_is_not_guessed_at() -> None:
    with pytest.raises(QueryRefused):
        guard("SELECT E'a'\n'b\\'c'")
    assert len(guard("SELECT E'a\\'b'\n'c'")) == 3
