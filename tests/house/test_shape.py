"""Sizes and words: what is public explains itself, functions fit a screen, files can be read in one go."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.house.source import Module, modules

MAX_FUNCTION = 60
MAX_FILE = 450
MAX_TEST_FILE = 500
# Longer files, each with its reason and a bound of its own.
LONGER = {
    "gateway/app.py": (530, "every part of a worker and its lifetime, in the order of both"),
    "gateway/telemetry/metrics.py": (520, "every metric of a worker with its labels, in one list"),
    "gateway/upstreams/http/connection.py": (470, "one state machine, whose states share everything"),
    "tests/proxy/test_websocket.py": (520, "the life of one connection, on three servers"),
}
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def unexplained(module: Module) -> Iterator[str]:
    """Yield what is public and has no docstring."""
    if not ast.get_docstring(module.tree):
        yield f"{module.path}: the module"
    yield from _unexplained(module.path, module.tree.body)


def _unexplained(path: str, body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        if not isinstance(node, Definition) or node.name.startswith("_"):
            continue
        if not ast.get_docstring(node) and not _overloads(node):
            yield f"{path}:{node.lineno} {node.name}"
        if isinstance(node, ast.ClassDef) and "Protocol" not in map(ast.unparse, node.bases):
            yield from _unexplained(path, node.body)


def _overloads(node: Definition) -> bool:
    return any("overload" in ast.unparse(one) for one in node.decorator_list)


def long(module: Module) -> Iterator[str]:
    """Yield files and functions that are too long."""
    most = LONGER.get(module.path, (MAX_TEST_FILE if module.within("tests") else MAX_FILE, ""))[0]
    if len(module.lines) > most:
        yield f"{module.path}: {len(module.lines)} lines"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            size = (node.end_lineno or node.lineno) - node.lineno + 1
            if size > MAX_FUNCTION:
                yield f"{module.path}:{node.lineno} {node.name}: {size} lines"


def test_what_is_public_explains_itself() -> None:
    assert [line for module in modules() for line in unexplained(module)] == []


def test_every_test_module_says_what_holds() -> None:
    silent = [
        module.path
        for module in modules("tests", "benchmarks")
        if module.text.strip() and not ast.get_docstring(module.tree)
    ]
    assert silent == []


def test_functions_fit_a_screen_and_files_a_reading() -> None:
    folders = ("pricing", "gateway", "admin_api", "benchmarks", "scripts", "tests")
    assert [line for module in modules(*folders) for line in long(module)] == []


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("def f(): ...", 2),
        ('"""Says."""\ndef f(): ...', 1),
        ('"""Says."""\nclass A:\n    """Says."""\n    def b(self): ...\n    def _c(self): ...', 1),
        ('"""Says."""\ndef f():\n    """Says."""\n    def inner(): ...', 0),
        ('"""Says."""\nclass A(Protocol):\n    """Says."""\n    def f(self): ...', 0),
    ],
)
def test_silence_would_be_found(text: str, count: int) -> None:
    assert len(list(unexplained(Module("x.py", text)))) == count


def test_length_would_be_found() -> None:
    body = "def f():\n" + "    pass\n" * MAX_FUNCTION
    assert len(list(long(Module("x.py", body)))) == 1
    assert len(list(long(Module("x.py", "pass\n" * (MAX_FILE + 1))))) == 1
    assert list(long(Module("x.py", "def f():\n" + "    pass\n" * (MAX_FUNCTION - 1)))) == []


MARKS = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b")


def test_no_promises_are_left_in_the_code() -> None:
    found = [
        f"{module.path}:{number}"
        for module in modules("pricing", "gateway", "admin_api", "benchmarks", "scripts")
        for number, line in enumerate(module.lines, 1)
        if MARKS.search(line)
    ]
    assert found == []
    assert MARKS.search("x = 1  # " + "TODO: y")


def test_every_longer_file_is_longer() -> None:
    lengths = {module.path: len(module.lines) for module in (*modules(), *modules("tests"))}
    assert [path for path in LONGER if lengths.get(path, 0) <= MAX_FILE] == []


def swallowed(module: Module) -> Iterator[str]:
    """Yield handlers that catch everything and say nothing."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
            if broad and all(isinstance(step, ast.Pass | ast.Continue) for step in node.body):
                yield f"{module.path}:{node.lineno}"


def test_no_error_is_swallowed() -> None:
    assert [place for module in modules() for place in swallowed(module)] == []
    assert len(list(swallowed(Module("x.py", "try:\n    f()\nexcept Exception:\n    pass")))) == 1
